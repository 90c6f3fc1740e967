"""The scripted engine says what it is told."""

from __future__ import annotations

import numpy as np
from support.engine_subjects import FREE

from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.types import Finish, Request, Sampling


def test_a_script_is_followed() -> None:
    engine = ScriptedEngine(lambda prefix: (prefix[-1] + 1, 9, 0, 5))
    sampling = Sampling(stop_ids=frozenset({0}))
    long, short = engine.generate([Request((1,), 8, 0), Request((4,), 2, 0)], sampling)
    assert (long.token_ids, long.finish) == ((2, 9, 0), Finish.STOP)
    assert (short.token_ids, short.finish) == ((5, 9), Finish.LENGTH)
    np.testing.assert_allclose(engine.score([(1,)], [(2, 9, 0)])[0], long.logprobs, atol=1e-6)


def test_a_script_may_be_a_list() -> None:
    engine = ScriptedEngine([(1, 2), (3,)])
    assert [c.token_ids for c in engine.generate([Request((7,), 8, 0)] * 2, FREE)] == [(1, 2), (3,)]
