"""Any server with OpenAI's completions as an engine: no weights here, only the served model's tokenizer.

A token's probability is read off the answer to "one token more": a server with token ids (vLLM, SGLang) says that of
the very tokens asked for, or of the likeliest, where more than `WIDEST` would do; any other (llama.cpp, TGI, a hosted
one) that of the likeliest, in text. A token that the server does not list counts as impossible, so values from such a
server are lower bounds. One that tells no probabilities (`transformers serve`) can be asked for answers, not to score.
Servers with a prefix cache read a history once.

For evaluation, audits and other people's trainers: its logprobs are no part of this project's training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import numpy as np

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.engine import Engine, Pair
from backtrack_mrt.policy.json_client import JsonClient
from backtrack_mrt.types import Completion, Finish, FloatArray, Request, Sampling, TokenIds

COMPLETIONS, MODELS = "/v1/completions", "/v1/models"
WIDEST = 20  # tokens whose logprobs a server tells at once; vLLM's limit unless it was started with --max-logprobs
_NARROW = 5  # a hosted one's
_PLAIN = {"temperature": 1.0, "top_p": 1.0}
_PLAIN_IDS = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # or generation_config.json has its say
_PROBE = 8  # tokens
_HOT, _DRAWS, _DRAWN = 2.0, 4, 32  # temperature, draws and tokens that tell whether a server draws at all
_AGAIN = 8  # times that a question is asked which another program's spoiled
_ID = "token_id:"
_UNKNOWN_CONTEXT = 32_768
_REMEDY = "Name the address of a server with OpenAI's completions, such as `vllm serve MODEL`: http://host:8000."
_LOUDER = "Start it so that `logprobs` is answered, or take sampled answers (estimator monte_carlo or greedy)."

Logprobs = dict[int, float]  # by token


class CompletionsEngine(Engine):
    """The engine contract on `url`. tokenizer: the served model's. model: which one is asked (None: the first).
    max_rows: requests at a time. scoring: whether it will be asked to. Raises UserError for a server that cannot be
    asked, has another tokenizer, or tells no probabilities where they are wanted."""

    exact = False

    def __init__(
        self,
        url: str,
        tokenizer: Any,
        *,
        model: str | None = None,
        max_rows: int = 64,
        field: str = "--server",
        scoring: bool = True,
    ) -> None:
        self._tokenizer, self._client = tokenizer, client(url, field)
        rows = served(self._client)
        row = next((row for row in rows if model in (None, row["id"], row.get("root"))), {})
        self.model: str | None = row.get("id", model)
        meta = row.get("meta") or {}  # llama.cpp's: what it holds, and what the model was trained on
        known = row.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
        super().__init__(int(known or min(tokenizer.model_max_length, _UNKNOWN_CONTEXT)), max_rows)
        self._threads = ThreadPoolExecutor(max_rows)
        self._widest, self._pieces = WIDEST, dict[int, str]()
        self._probed = tuple(tokenizer("1 + 2 = 3, 2 + 3 =")["input_ids"])
        self._begins = tokenizer.bos_token_id == self._probed[0]  # whether texts are tokenised with BOS
        self._silent: UserError | None = None  # why it cannot score
        self._draws = False  # whether it is known to
        try:
            self.speaks_ids = self._probe()
        except UserError as error:
            if "refused with status" not in error.reason or self.model is None or (row and model):
                raise
            if model is not None:
                names = ", ".join(row["id"] for row in rows) or "nothing"
                raise self._client.refusal(f"it does not serve {model!r}", f"It serves: {names}.") from error
            self.model = None  # the one that it was started with, which need not be in the list
            self.speaks_ids = self._probe()
        if scoring and self._silent is not None:
            raise self._silent
        self.scores = self._silent is None

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """The server draws with its own random numbers; its logprobs are known at temperature 1 (and 0), NaN else and
        where it answers in text."""
        if sampling.temperature > 0 and not (self.speaks_ids or self._draws):
            self._check_draws()
        drawn = list(self._threads.map(lambda request: self._completed(request, sampling), requests))
        self.stats.sampled += sum(len(completion.token_ids) for completion in drawn)
        return drawn

    def _score(self, pairs: Sequence[Pair], endings: Mapping[Pair, TokenIds]) -> list[FloatArray]:
        """Every token is asked for once: continuations share their beginnings. Raises UserError where the server tells
        no probabilities."""
        if self._silent is not None:
            raise self._silent
        wanted: dict[TokenIds, set[int]] = {}
        for prefix, ids in pairs:
            for t, token in enumerate(ids):
                alike = endings.get((prefix, ids), ()) if t == len(ids) - 1 else ()
                wanted.setdefault(prefix + ids[:t], set()).update({token, *alike})
        told: dict[TokenIds, Logprobs] = {}
        for few in (True, False):  # vLLM has no likeliest tokens for a request beside one that names its tokens
            some = {prefix: tokens for prefix, tokens in wanted.items() if (len(tokens) <= WIDEST) is few}
            told |= zip(some, self._threads.map(self._next, some, some.values()), strict=True)
        rows = []
        for prefix, ids in pairs:
            row = np.array([told[prefix + ids[:t]].get(token, -inf) for t, token in enumerate(ids)], dtype=np.float64)
            if alike := endings.get((prefix, ids), ()):
                known = told[prefix + ids[:-1]]
                row[-1] = np.logaddexp.reduce([known.get(token, -inf) for token in alike])
            rows.append(row)
        return rows

    def close(self) -> None:
        """See `Engine.close`."""
        self._threads.shutdown()
        self._client.close()

    def _next(self, prefix: TokenIds, wanted: set[int]) -> Logprobs:
        """Logprobs of the wanted tokens behind the prefix, as far as the server tells them."""
        asked = {"max_tokens": 1, "logprobs": self._widest, **_PLAIN}
        if not self.speaks_ids:
            told = self._ask(prefix, asked)
            return {token: told[piece] for token in wanted if (piece := self._piece(token)) in told}
        if len(wanted) > WIDEST:  # the many tokens that close an answer
            for _ in range(_AGAIN):
                if len(likeliest := _by_id(self._ask(prefix, asked))) >= WIDEST:
                    return likeliest
            raise self._client.refusal("its likeliest tokens are lost beside others' requests", "Use it alone.")
        return _by_id(self._ask(prefix, asked | {"logprob_token_ids": sorted(wanted)}))

    def _ask(self, prefix: TokenIds, asked: Mapping[str, Any]) -> dict[str, float]:
        """Logprobs of the next token by its name."""
        choice = self._answer(prefix, asked)
        self.stats.computed += 1
        told = self._likeliest(choice)
        if objection := self._objection(told):
            raise objection
        return told

    def _answer(self, prefix: TokenIds, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The completion: text, perhaps token_ids, logprobs, finish_reason."""
        body: dict[str, Any] = {"model": self.model, **asked} if self.model is not None else dict(asked)
        if self.speaks_ids:
            body |= {"prompt": list(prefix), "return_tokens_as_token_ids": True, "return_token_ids": True, **_PLAIN_IDS}
        else:
            body["prompt"] = self._text(prefix)
        answer = self._client.ask("POST", COMPLETIONS, body)
        with self._client.understood(COMPLETIONS):
            (choice,) = answer["choices"]
            return {"text": "", **choice}

    def _completed(self, request: Request, sampling: Sampling) -> Completion:
        most = min(request.max_new_tokens, self.context_length - len(request.prefix_ids))
        asked: dict[str, Any] = {
            "max_tokens": most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed % 2**31,
        }
        if self.speaks_ids:
            asked |= {"stop_token_ids": sorted(sampling.stop_ids), "ignore_eos": True}
            asked |= {"logprobs": 1} if self._silent is None else {}
        choice = self._answer(request.prefix_ids, asked)
        with self._client.understood(COMPLETIONS):
            return self._read(choice, most, sampling)

    def _read(self, choice: Mapping[str, Any], most: int, sampling: Sampling) -> Completion:
        """The completion in at most so many tokens, up to the first that stops it."""
        if self.speaks_ids:
            ids = tuple(map(int, choice["token_ids"]))
        else:
            text = choice["text"] or ""
            ended = (self._tokenizer.eos_token_id,) if choice.get("finish_reason") == "stop" else ()
            ids = tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"][:most]) + ended
            ids = ids[:most] or (self._tokenizer.eos_token_id,)
        stop = next((n for n, token in enumerate(ids) if token in sampling.stop_ids), None)
        ids = ids if stop is None else ids[: stop + 1]
        known = ((choice.get("logprobs") or {}).get("token_logprobs") or []) if self.speaks_ids else []
        exact = sampling.temperature in (0.0, 1.0) and sampling.top_p == 1.0 and len(known) >= len(ids)
        logprobs = tuple(map(float, known[: len(ids)])) if exact else (float("nan"),) * len(ids)
        return Completion(ids, logprobs, Finish.LENGTH if stop is None else Finish.STOP)

    def _probe(self) -> bool:
        """Whether the server takes and gives token ids. Finds how many logprobs it tells, if any."""
        ids, self.speaks_ids, choice = self._probed, True, dict[str, Any]()
        greedy = {"max_tokens": _PROBE, "temperature": 0.0}
        for told in ({"logprobs": 1}, {}):
            try:
                choice = self._answer(ids, greedy | told)
                break
            except UserError as error:
                if "cannot be reached" in error.reason or "no address" in error.reason:
                    raise
        if (drawn := choice.get("token_ids")) is not None:
            with self._client.understood(COMPLETIONS):
                text = self._tokenizer.decode(list(map(int, drawn)), skip_special_tokens=True)
            if text.strip() != str(choice["text"]).strip():
                reason = f"it serves {self.model!r}, whose tokenizer is not the one that is used here"
                raise self._client.refusal(reason, "Name the served model with --model: its tokenizer is read there.")
            self._silent = self._objection(self._likeliest(choice))
            return True
        self.speaks_ids = False
        self._answer(ids, greedy)
        for self._widest in (WIDEST, _NARROW):
            try:
                self._ask(ids, {"max_tokens": 1, "logprobs": self._widest, **_PLAIN})
            except UserError as error:
                known = "logprobs" in error.reason
                self._silent = error if known else self._client.refusal(f"no logprobs: {error.reason}", _LOUDER)
            else:
                self._silent = None
                break
        return False

    def _check_draws(self) -> None:
        """Raises UserError for a server that answers with the likeliest tokens whatever it is asked for."""
        requests = [Request(self._probed, _DRAWN, seed) for seed in range(_DRAWS)]
        drawn = {self._completed(request, Sampling(_HOT)).token_ids for request in requests}
        if len(drawn) == 1:
            reason = f"it draws nothing: {_DRAWS} completions at temperature {_HOT:g} are all the same"
            remedy = "Start it so that it samples (do_sample in its generation_config.json), or ask greedily."
            raise self._client.refusal(reason, remedy)
        self._draws = True

    def _likeliest(self, choice: Mapping[str, Any]) -> dict[str, float]:
        """Of the first token, by name: in the form of completions, or in that of chats, as llama.cpp answers."""
        with self._client.understood(COMPLETIONS):
            logprobs = choice.get("logprobs") or {}
            if rows := logprobs.get("top_logprobs"):
                return {name: float(value) for name, value in (rows[0] or {}).items() if value is not None}
            first: Mapping[str, Any] = next(iter(logprobs.get("content") or ()), {})
            return {row["token"]: float(row["logprob"]) for row in first.get("top_logprobs", ())}

    def _objection(self, told: Mapping[str, float]) -> UserError | None:
        """What is wrong with the logprobs of a completion, if anything is."""
        if not told:
            return self._client.refusal("its completions have no logprobs", _LOUDER)
        if max(told.values()) > 1e-3:
            reason = "what it tells as logprobs are not logarithms of probabilities"
            return self._client.refusal(reason, "Start vLLM without --logprobs-mode.")
        return None

    def _text(self, ids: TokenIds) -> str:
        """The prefix as text. The server writes BOS itself, where the tokenizer does."""
        ids = ids[1:] if self._begins and ids[:1] == (self._tokenizer.bos_token_id,) else ids
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _piece(self, token: int) -> str:
        """The text of a token behind another."""
        if token not in self._pieces:
            (before, *_) = self._tokenizer("1", add_special_tokens=False)["input_ids"][-1:]
            start, whole = (self._tokenizer.decode(ids) for ids in ([before], [before, token]))
            self._pieces[token] = whole[len(start) :]
        return self._pieces[token]


def client(url: str, field: str) -> JsonClient:
    """The client of a server with OpenAI's completions; the address may end in /v1, as others write it."""
    return JsonClient(url.rstrip("/").removesuffix("/v1"), field=field, key="OPENAI_API_KEY", remedy=_REMEDY)


def served(asked: JsonClient) -> list[dict[str, Any]]:
    """What the server says of its models: id, and in vLLM root, parent and max_model_len. `transformers serve` tells
    what lies in its cache, or fails. Raises UserError."""
    try:
        answer = asked.ask("GET", MODELS)
    except UserError as error:
        if "refused with status" not in error.reason:
            raise
        return []
    with asked.understood(MODELS):
        return [row | {"id": str(row.get("id"))} for row in (answer or {}).get("data") or []]


def _by_id(told: Mapping[str, float]) -> Logprobs:
    return {int(name.removeprefix(_ID)): value for name, value in told.items() if name.startswith(_ID) and value > -inf}
