"""vLLM in this process, on a CPU: against the HF engine, through updates, and in a whole training step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.engine_subjects import FREE, NEEDS_VLLM, VOCABULARY, random_llama, requests
from transformers import AutoModelForCausalLM

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import generate
from backtrack_mrt.policy.engine import Engine, EngineStats
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.vllm.local import VLLMEngine
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.rollouts.rollout import converse, trajectory_seeds
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Completion, Request, Sampling

pytestmark = NEEDS_VLLM
SMOLLM2 = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"


@pytest.fixture
def adapter(policy: PeftModel) -> Iterator[list[torch.nn.Parameter]]:
    """The B matrices of the policy's adapter; put back afterwards."""
    matrices = [p for name, p in policy.named_parameters() if "lora_B" in name]
    before = [p.detach().clone() for p in matrices]
    yield matrices
    for parameter, old in zip(matrices, before, strict=True):
        parameter.data.copy_(old)


def draws(engine: Engine, asked: list[Request], sampling: Sampling = FREE) -> list[Completion]:
    return engine.generate(asked, sampling)


@pytest.mark.parametrize("sampling", [FREE, Sampling(0.6), Sampling(1.4, 0.7, frozenset({3, 4})), Sampling(0.0)])
@pytest.mark.parametrize("engine", ["vllm_engine", "server_engine"])
def test_the_same_seeds_give_the_hf_engine_s_tokens(
    engine: str, policy: PeftModel, sampling: Sampling, request: pytest.FixtureRequest
) -> None:
    asked = [replace(row, seed=(k << 40) + 1) for k, row in enumerate(requests(12))]
    vllm = request.getfixturevalue(engine)
    vllm.sync()
    done, truth = (each.generate(asked, sampling) for each in (vllm, HFEngine(policy, max_rows=6)))
    assert [(c.token_ids, c.finish) for c in done] == [(c.token_ids, c.finish) for c in truth]


@torch.no_grad()
def test_an_update_arrives_with_sync_and_not_before(
    vllm_engine: VLLMEngine, policy: PeftModel, adapter: list[torch.nn.Parameter]
) -> None:
    asked = requests(6)
    seen = []
    for update in range(3):
        for matrix in adapter:
            matrix.mul_(-1.5)
        stale = draws(vllm_engine, asked)
        assert update == 0 or stale == seen[-1]
        vllm_engine.sync()
        seen.append(draws(vllm_engine, asked))
        assert [c.token_ids for c in seen[-1]] == [c.token_ids for c in draws(HFEngine(policy, max_rows=6), asked)]
    assert seen[0] != seen[1] != seen[2]
    assert vllm_engine._adapters is not None
    assert len(list(Path(vllm_engine._adapters._folder.name).iterdir())) == 1  # old ones are deleted
    for matrix in adapter:
        matrix.mul_(-1 / 1.5**3)
    vllm_engine.sync()


def test_history_is_not_computed_again_until_the_weights_change(vllm_engine: VLLMEngine) -> None:
    prefix = tuple(i * 7 % VOCABULARY for i in range(100))
    computed = []
    vllm_engine.sync()
    for ids in (prefix, (*prefix, 1, 2, 3), (*prefix, 1, 2, 3)):
        vllm_engine.stats = EngineStats()
        draws(vllm_engine, [Request(ids, 4, 0)])
        computed.append(vllm_engine.stats.computed)
        if len(computed) == 2:
            vllm_engine.sync()
    assert computed == [103, 106 - 96, 106]  # whole blocks of 32 are kept


def test_no_row_waits_for_the_turns_of_others(vllm_engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three turns of other lengths in every row: the tokens of lock step, in fewer steps of the engine."""
    vllm, steps = vllm_engine._llm.llm_engine, list[int]()
    monkeypatch.setattr(vllm, "step", lambda step=vllm.step: steps.append(1) or step())
    in_lock_step = SimpleNamespace(generate=vllm_engine.generate, context_length=vllm_engine.context_length)
    found = []
    for sampler in (vllm_engine, in_lock_step):
        vllm_engine.sync()
        steps.clear()
        found.append((_conversation(sampler), len(steps)))
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1] - 10


def _conversation(sampler: Any) -> list[list[tuple[int, ...]]]:
    """What six rows are given in three turns."""
    turns: list[list[tuple[int, ...]]] = [[] for _ in range(6)]

    def asked(row: int, before: Completion | None = None) -> Request | None:
        if before is not None:
            turns[row].append(before.token_ids)
        history = (1 + row, *(token for turn in turns[row] for token in turn))
        length = (2, 9, 16)[(row + len(turns[row])) % 3]
        return Request(history, length, 10 * row + len(turns[row])) if len(turns[row]) < 3 else None

    converse(sampler, {row: asked(row) for row in range(6)}, FREE, asked)
    return turns


def test_what_is_under_way_when_a_protocol_fails_is_given_up(vllm_engine: VLLMEngine) -> None:
    def failing(row: int, completion: Completion) -> None:
        raise ZeroDivisionError

    asked = {row: replace(request, max_new_tokens=2 + row) for row, request in enumerate(requests(4))}
    with pytest.raises(ZeroDivisionError):
        converse(vllm_engine, asked, FREE, failing)
    assert not vllm_engine._llm.llm_engine.has_unfinished_requests()
    assert len(draws(vllm_engine, requests(4))) == 4


# From here on engines are closed, and with one all of vLLM in this process.


def test_with_little_room_rows_come_in_chunks_and_are_not_read_again() -> None:
    """Rollouts and values with room for a third of the batch: in chunks that fit less is computed than by all rows at
    once; the tokens are the same."""
    parts = assemble(read_request([]).config)
    rows = [problem for problem in generate("validation", 6, seed=5) for _ in range(4)]
    engine = VLLMEngine(parts.model, max_rows=24, context_length=384, kv_blocks=28)
    computed, tokens = [], []
    try:
        for asked in (engine, _silent(engine)):
            engine.sync()
            engine.stats.computed = 0
            collector = replace(parts, engine=asked).training_collector()
            found = collector.collect(rows, trajectory_seeds(0, 1, len(rows)), 1.0).scored
            computed.append(engine.stats.computed)
            tokens.append([scored.trajectory.token_ids for scored in found])
        assert 27 * 32 <= engine.cache_tokens <= 28 * 32 < sum(map(len, tokens[0])) / 2
    finally:
        engine.close()
    assert tokens[0] == tokens[1]
    assert computed[1] > 1.3 * computed[0]


def _silent(engine: VLLMEngine) -> Any:
    """The engine, which does not say how much room it has."""
    quiet = copy(engine)
    quiet.__class__ = type("Silent", (VLLMEngine,), {"cache_tokens": None})
    return quiet


@torch.no_grad()
def test_all_weights_can_be_handed_over() -> None:
    model = random_llama().eval()
    engine = VLLMEngine(model, max_rows=6)
    try:
        for _ in range(2):
            hf = HFEngine(model, max_rows=6)
            assert [c.token_ids for c in draws(engine, requests(6))] == [c.token_ids for c in draws(hf, requests(6))]
            for parameter in model.parameters():
                parameter.mul_(1.2)
            engine.sync()
    finally:
        engine.close()


@torch.no_grad()
def test_a_merged_adapter_is_computed_along(policy: PeftModel, adapter: list[torch.nn.Parameter]) -> None:
    """The policy's tokens and the reference's, in turn, also after an update."""
    engine = VLLMEngine(policy, max_rows=6, merged=True)
    try:
        for _ in range(2):
            hf = HFEngine(policy, max_rows=6)
            for _ in range(2):
                seen = [[c.token_ids for c in draws(each, requests(6))] for each in (engine, hf)]
                with engine.reference(), hf.reference():
                    seen += [[c.token_ids for c in draws(each, requests(6))] for each in (engine, hf)]
                assert seen[0] == seen[1] != seen[2] == seen[3]
            for matrix in adapter:
                matrix.mul_(-1.5)
            engine.sync()
    finally:
        engine.close()


@pytest.mark.smollm2
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="no models/smollm2-135m-instruct: python scripts/fetch_smollm2.py")
def test_logprobs_of_a_language_model() -> None:
    """SmolLM2 in float32 with an adapter that is not the identity: within 1e-4 of the HF engine, drawn and scored."""
    base = AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype="float32")
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear")).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.005)
    engine, hf = VLLMEngine(model, max_rows=8, context_length=256), HFEngine(model, max_rows=8)
    try:
        asked = [Request(tuple(range(1000 + 40 * k, 1030 + 40 * k)), 12, k) for k in range(6)]
        done = draws(engine, asked)
        prefixes, continuations = [r.prefix_ids for r in asked], [c.token_ids for c in done]
        scores = engine.score(prefixes, continuations)
        for completion, ours, theirs in zip(done, scores, hf.score(prefixes, continuations), strict=True):
            np.testing.assert_allclose(completion.logprobs, theirs, atol=1e-4)
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    finally:
        engine.close()


@pytest.mark.parametrize("merged", ["true", "false"])
def test_a_step_of_mrt_rl(tmp_path: Path, merged: str) -> None:
    """Rollout and values by vLLM, update by TRL, adapter to vLLM: two steps on the embedded model."""
    sizes = ["--training.problems_per_step", "4", "--training.group_size", "4", "--training.micro_batch_size", "8"]
    flags = ["--training.steps", "2", "--data.train_size", "8", "--data.eval_size", "8", "--training.save_every", "1"]
    engine = ["--engine.type", "vllm", "--engine.merged", merged]
    result = train(read_request([*engine, "--output-dir", str(tmp_path / "run"), *sizes, *flags]))
    assert result.trained.accuracy.n == 8
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row["grad_norm"] > 0
        assert 0 < row["sampling/sampling_logp_difference/max"] < 1e-4
        assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-5)
    # The second step's rollouts are those of the updated adapter; an engine that kept the old one would show here.
    assert rows[1]["sampling/sampling_logp_difference/mean"] < 1e-5
