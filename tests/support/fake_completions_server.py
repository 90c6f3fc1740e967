"""A server that answers OpenAI's completions as vLLM does (in token ids) or as others do (in text), with a Hugging Face
model behind it."""

from __future__ import annotations

from typing import Any

import torch
from support.fake_vllm_server import FakeServer

from backtrack_mrt.types import Request, Sampling

TOLD = 20  # logprobs at most


class CompletionsServer(FakeServer):
    """ids: whether it takes and gives token ids. told: logprobs at most. silent: it leaves them out, whatever is asked.
    draws: whether it samples. asked: the bodies of all requests."""

    def __init__(
        self,
        base: Any,
        tokenizer: Any,
        *,
        ids: bool = True,
        told: int = TOLD,
        silent: bool = False,
        draws: bool = True,
    ) -> None:
        super().__init__(base, takes_adapters=False)
        self.tokenizer, self.ids, self.told, self.silent, self.draws = tokenizer, ids, told, silent, draws
        self.asked: list[dict[str, Any]] = []

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """See `FakeServer.answer`."""
        if path != "/v1/completions":
            return None
        self.asked.append(body)
        prompt = body["prompt"]
        wrong = self.ids == isinstance(prompt, str) or body.get("model", "base") not in self.engines
        if wrong or (body.get("logprobs") or 0) > self.told:
            return None
        ids = tuple(prompt) if self.ids else self._read(prompt)
        stops = frozenset(body.get("stop_token_ids") or [self.tokenizer.eos_token_id])
        with torch.no_grad():
            logprobs = self.base(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        wanted = body.get("logprob_token_ids") or logprobs.topk(body.get("logprobs") or 0).indices.tolist()
        told = {self._name(token): float(logprobs[token]) for token in wanted}
        drawn, chosen = [int(logprobs.argmax())], [float(logprobs.max())]
        if body["max_tokens"] > 1:
            sampling = Sampling(body["temperature"] if self.draws else 0.0, body.get("top_p", 1.0), stops)
            (done,) = self.engines["base"].generate([Request(ids, body["max_tokens"], body.get("seed", 0))], sampling)
            drawn, chosen = list(done.token_ids), list(done.logprobs)
        choice: dict[str, Any] = {
            "text": self.tokenizer.decode(drawn, skip_special_tokens=True),
            "finish_reason": "stop" if drawn[-1] in stops else "length",
            "logprobs": None if self.silent else {"token_logprobs": chosen, "top_logprobs": [told]},
        }
        return {"choices": [choice | ({"token_ids": drawn} if self.ids else {})]}

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self.ids else self.tokenizer.decode([token])

    def _read(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text)["input_ids"])
