"""The engines under test: one `Subject` each, and what they are asked. A plugin of pytest (see conftest)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BARE, SPECIAL, byte_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from support.server_process import served
from transformers import LlamaConfig, LlamaForCausalLM

from backtrack_mrt.policy.engine import Engine, EngineStats
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.plain_engine import PlainEngine
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.policy.vllm.remote import ServerEngine
from backtrack_mrt.policy.vllm.servers import Servers
from backtrack_mrt.types import FloatArray, Request, Sampling, TokenIds

VOCABULARY, CONTEXT = 40, 160
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FREE = Sampling()
GREEDY = Sampling(temperature=0.0)
NEEDS_VLLM = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM: make test-vllm")]


@dataclass(frozen=True)
class Subject:
    """An engine under test: `new()` makes one with nothing cached, which takes 6 rows at once or as many as it is told;
    `logits` (T, V) is the truth about its policy after every token of the given ids."""

    new: Callable[..., Engine]
    logits: Callable[[TokenIds], torch.Tensor]

    def logprobs(self, prefix: TokenIds, continuation: TokenIds, temperature: float = 1.0) -> FloatArray:
        rows = (self.logits(prefix + continuation) / temperature).log_softmax(-1)[len(prefix) - 1 : -1]
        return np.array([float(row[token]) for row, token in zip(rows, continuation, strict=True)])


def random_llama() -> LlamaForCausalLM:
    """Always the same. Heads of 32, the smallest that vLLM has a kernel for."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def random_policy() -> PeftModel:
    """`random_llama` with an adapter that is not the identity."""
    base = random_llama()
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(base, adapter).eval().to(DEVICE)


@pytest.fixture(scope="session")
def policy() -> PeftModel:
    return random_policy()


@pytest.fixture(scope="session")
def vllm_engine(policy: PeftModel) -> Iterator[VLLMEngine]:
    engine = VLLMEngine(policy, max_rows=6)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `vllm serve` of `random_llama`."""
    folder: Path = tmp_path_factory.mktemp("served")
    random_llama().save_pretrained(folder)
    byte_tokenizer(BARE, SPECIAL[BARE]).save_pretrained(folder)  # OpenAI's interface also answers in text
    with served(folder, max_rank=8) as url:
        yield url


@pytest.fixture(scope="session")
def server_engine(policy: PeftModel, server_url: str) -> Iterator[ServerEngine]:
    engine = ServerEngine(policy, Servers([server_url], 6), max_rows=6)
    yield engine
    engine.close()


IN_PROCESS = ["hf", "modules", "plain", "scripted"]
ENGINES = [*IN_PROCESS, *(pytest.param(name, marks=NEEDS_VLLM) for name in ("vllm", "server"))]


@pytest.fixture(scope="module", params=ENGINES)
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "scripted":
        engine = ScriptedEngine(vocabulary=VOCABULARY)
        return Subject(
            lambda rows=6: ScriptedEngine(vocabulary=VOCABULARY, context_length=CONTEXT),
            lambda ids: torch.stack([engine._logits(token) for token in ids]),
        )
    model = request.getfixturevalue("policy")

    @torch.no_grad()
    def logits(ids: TokenIds) -> torch.Tensor:
        return model(torch.tensor([ids], device=DEVICE), use_cache=False).logits[0].cpu()

    if request.param in ("hf", "modules"):
        return Subject(lambda rows=6: HFEngine(model, max_rows=rows, compiled=request.param == "hf"), logits)
    if request.param == "plain":
        return Subject(lambda rows=6: PlainEngine(model, max_rows=rows), logits)
    live = request.getfixturevalue(f"{request.param}_engine")

    def renewed(rows: int = 6) -> Engine:
        """Starting vLLM takes long, so there is one, as good as new."""
        live.sync()
        live.stats = EngineStats()
        return live

    return Subject(renewed, logits)


def prompts(count: int, seed: int = 0) -> list[TokenIds]:
    """Ragged random ids."""
    chance = random.Random(seed)
    return [tuple(chance.randrange(VOCABULARY) for _ in range(chance.randrange(1, 12))) for _ in range(count)]


def requests(count: int, length: int = 8) -> list[Request]:
    return [Request(prefix, length, seed) for seed, prefix in enumerate(prompts(count))]
