"""Decoding on rounded shapes, as GPUs do it; where there is a GPU, by captured graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from support.engine_subjects import FREE, requests

from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.kv_cache import RowCache
from backtrack_mrt.policy.hf.step_graphs import ROWS, StepGraphs
from backtrack_mrt.types import Request, Sampling


def engine_with(policy: PeftModel, rounded: bool) -> HFEngine:
    """One whose steps are of rounded shapes, or, also on a GPU, as they are."""
    engine = HFEngine(policy, max_rows=ROWS + 3, compiled=False)
    runner = engine._policy
    runner.cache = RowCache(engine.max_rows, padding=ROWS if rounded else 1)
    runner.graphs = StepGraphs(runner._read_step, runner.cache) if rounded else None
    return engine


def scale_adapter(policy: PeftModel, by: float) -> None:
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.mul_(by)


def test_rounded_steps_give_the_same_tokens(policy: PeftModel) -> None:
    """Over two turns, with rows that end at different steps, more rows than places, scores between, and an update."""
    asked, stopping = [*requests(ROWS + 5, 20), *requests(2, 3)], Sampling(stop_ids=frozenset({3, 7, 11}))
    found = []
    for rounded in (False, True):
        engine = engine_with(policy, rounded)
        first = engine.generate(asked, stopping)
        histories = [(*r.prefix_ids, *c.token_ids) for r, c in zip(asked, first, strict=True)]
        scores = engine.score([ids[:4] for ids in histories], [(1, 2)] * len(histories))
        second = engine.generate([Request((*ids, 5, 6), 9, i) for i, ids in enumerate(histories)], FREE)
        scale_adapter(policy, 2)
        engine.sync()
        third = engine.generate(requests(3, 220), FREE)  # fewer rows than before, and longer
        scale_adapter(policy, 1 / 2)
        found.append(([c.token_ids for c in (*first, *second, *third)], np.concatenate(scores), engine.stats))
    (tokens, scores, stats), (same_tokens, same_scores, same_stats) = found
    assert same_tokens == tokens
    np.testing.assert_allclose(same_scores, scores, atol=1e-5)
    assert same_stats == stats


@pytest.mark.parametrize(("share", "kept"), [(1 / 9, True), (1 / 7, False)])
def test_a_small_part_of_a_gpu_is_kept_during_updates(
    share: float, kept: bool, policy: PeftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_with(policy, rounded=True)
    engine.generate(requests(3, 5), FREE)
    memory = round(engine._policy.size / share)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, memory))
    engine.release()
    assert (engine._policy.size > 0) is kept
    engine.close()
    assert engine._policy.size == 0
