"""`engine.sleep` and `engine.merged`: what vLLM in this process is told, against a stand-in; where they are refused."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from support.engine_subjects import FREE, random_llama, requests
from transformers import MptConfig, MptForCausalLM

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.vllm.jobs import Drawn
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.rollouts.assembly import assemble, merges_adapter


class StandIn:
    """Notes what it is told; draws the token 1."""

    told: list[str]
    asked: list[str]

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.told, self.asked, self.llm_engine = [], [], self

    def collective_rpc(self, method: str, kwargs: Any) -> None:
        self.told.append(method)

    def reset_prefix_cache(self) -> None:
        self.told.append("forget")

    def sleep(self, level: int) -> None:
        self.told.append(f"sleep {level}")

    def wake_up(self) -> None:
        self.told.append("wake")

    def add_request(self, name: str, *_: Any, **__: Any) -> None:
        self.asked.append(name)

    def step(self) -> list[Any]:
        self.told.append("generate")
        done, self.asked = self.asked, []
        return [SimpleNamespace(request_id=name) for name in done]

    def abort_request(self, names: list[str]) -> None:
        assert not names


def test_the_context_is_the_models_under_whatever_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtrack_mrt.policy.vllm.local._vllm", lambda: SimpleNamespace(LLM=StandIn))
    model = MptForCausalLM(MptConfig(d_model=32, n_heads=2, n_layers=1, max_seq_len=48, vocab_size=8))
    engine = VLLMEngine(model, max_rows=2)
    assert (engine.context_length, engine._llm.settings["max_model_len"]) == (48, 48)


@pytest.mark.parametrize("sleep", [True, False])
def test_it_sleeps_from_release_until_it_is_asked_again(sleep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtrack_mrt.policy.vllm.local._vllm", lambda: SimpleNamespace(LLM=StandIn))
    drawn = Drawn((1,), (0.0,), 0)
    draws = SimpleNamespace(params_of=lambda job: job, answer_of=lambda output: drawn)  # the module needs vLLM
    monkeypatch.setitem(sys.modules, "backtrack_mrt.policy.vllm.draws", draws)
    engine = VLLMEngine(random_llama(), max_rows=2, sleep=sleep)
    assert engine._llm.settings["enable_sleep_mode"] is sleep
    engine.generate(requests(2), FREE)
    for _ in range(2):
        engine.release()
    engine.generate([], FREE)
    engine.converse({}, FREE, lambda row, completion: None)  # nothing is asked, and nothing wakes
    engine.sync()
    engine.generate(requests(2), FREE)
    engine.release()
    engine.score([(1, 2)], [(1,)])
    asleep, awake = (["sleep 1"], ["wake"]) if sleep else ([], [])
    updated = ["forget", *awake, "reload_weights", "generate"]  # all weights: they have to be there
    released = ["forget", *asleep]
    first = ["reload_weights", "generate", *released]
    assert engine._llm.told == [*first, "forget", *updated, *released, *awake, "generate"]


@pytest.mark.parametrize(
    ("flags", "merged"),
    [
        ([], True),
        (["--model.dtype", "bfloat16"], False),  # it would be rounded
        (["--prover.policy", "reference"], False),  # and the weights exchanged twice a step
        (["--model.dtype", "bfloat16", "--engine.merged", "true"], True),
        (["--engine.merged", "false"], False),
    ],
)
def test_what_is_merged_by_default(flags: list[str], merged: bool) -> None:
    assert merges_adapter(read_request(["--engine.type", "vllm", *flags]).config) is merged


def test_where_nothing_can_be_merged_it_is_refused() -> None:
    vllm = ["--engine.type", "vllm", "--engine.merged", "true"]
    assert read_request(vllm).config.engine.merged
    for flags in (vllm[2:], [*vllm, "--engine.server", "http://host:8000"], [*vllm, "--model.full_finetuning", "true"]):
        with pytest.raises(UserError, match=r"engine.merged .*= True: only vLLM in this process"):
            read_request(flags)


def test_where_nothing_can_sleep_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ["--engine.type", "vllm", "--engine.server", "http://host:8000"]
    for engine in ([], server):
        with pytest.raises(UserError, match=r"engine.sleep .*= True: only vLLM in this process"):
            read_request([*engine, "--engine.sleep", "true"])
    monkeypatch.setattr("backtrack_mrt.rollouts.assembly.load_model", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"engine.sleep = True: vLLM sleeps on GPUs only"):
        assemble(read_request(["--engine.type", "vllm", "--engine.sleep", "true"]).config)
