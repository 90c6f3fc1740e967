"""Decoding on rounded shapes, as GPUs do it; where there is a GPU, by captured graphs."""

from __future__ import annotations

import numpy as np
from peft import PeftModel
from support.engine_subjects import FREE, requests

from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.kv_cache import RowCache
from backtrack_mrt.policy.hf.step_graphs import ROWS, StepGraphs
from backtrack_mrt.types import Request


def rounding(engine: HFEngine) -> HFEngine:
    """The engine with steps of rounded shapes."""
    runner = engine._policy
    runner.cache = RowCache(engine.max_rows, padding=ROWS)
    runner.graphs = StepGraphs(runner._read_step, runner.cache)
    return engine


def test_rounded_steps_give_the_same_tokens(policy: PeftModel) -> None:
    """Over two turns, with rows that end at different steps, more rows than places, and scores in between."""
    found = []
    for plain in (True, False):
        engine = HFEngine(policy, max_rows=ROWS + 3, compiled=False)
        engine = engine if plain else rounding(engine)
        stopping = FREE.__class__(stop_ids=frozenset({3, 7, 11}))
        first = engine.generate([*requests(ROWS + 5, 20), *requests(2, 3)], stopping)
        histories = [
            (*r.prefix_ids, *c.token_ids)
            for r, c in zip([*requests(ROWS + 5, 20), *requests(2, 3)], first, strict=True)
        ]
        scores = engine.score([ids[:4] or ids for ids in histories], [(1, 2)] * len(histories))
        second = engine.generate([Request((*ids, 5, 6), 9, i) for i, ids in enumerate(histories)], FREE)
        engine.sync(1)  # other buffers
        third = engine.generate(requests(ROWS, 30), FREE)
        found.append(([c.token_ids for c in (*first, *second, *third)], np.concatenate(scores), engine.stats))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
    assert found[0][2] == found[1][2]
