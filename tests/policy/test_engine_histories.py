"""What every engine promises across calls: turns, branches, scores, the reference."""

from __future__ import annotations

import random

import numpy as np
from support.engine_subjects import FREE, VOCABULARY, Subject, prompts, requests

from backtrack_mrt.types import Request, Sampling


def test_score_of_branches_off_a_rollout(subject: Subject) -> None:
    """Forced answers after every beginning of cached trajectories, before and after the cache is dropped."""
    engine = subject.new()
    asked = requests(5)
    trajectories = [r.prefix_ids + c.token_ids for r, c in zip(asked, engine.generate(asked, FREE), strict=True)]
    pairs = [((*ids[:cut], 7, 8), (1, 2, 3)) for ids in trajectories for cut in range(1, len(ids) + 1, 3)]
    pairs += [(trajectories[0], (5,)), (trajectories[1][:2], ()), (trajectories[0], (5, 6)), (trajectories[0], (5,))]
    pairs += [((9,), (4, 4)), ((33, 34, 35), (1,))]
    for _ in range(2):
        scores = engine.score([p for p, _ in pairs], [c for _, c in pairs])
        for (prefix, continuation), row in zip(pairs, scores, strict=True):
            assert row.dtype == np.float64
            np.testing.assert_allclose(row, subject.logprobs(prefix, continuation), atol=1e-4)
        engine.release()


def test_score_leaves_the_rollout_as_it_was(subject: Subject) -> None:
    asked = requests(4)
    engine = subject.new()
    done = engine.generate(asked, FREE)
    nexts = [Request(r.prefix_ids + c.token_ids + (2,), 6, r.seed) for r, c in zip(asked, done, strict=True)]
    engine.score([(*r.prefix_ids, 11, 12) for r in nexts], [(13, 14)] * 4)
    with engine.reference():
        engine.score([r.prefix_ids for r in nexts], [(13, 14)] * 4)
    assert [c.token_ids for c in engine.generate(nexts, FREE)] == [
        c.token_ids for c in subject.new().generate(nexts, FREE)
    ]


def test_score_agrees_with_generate(subject: Subject) -> None:
    engine, asked = subject.new(), requests(5)
    done = engine.generate(asked, FREE)
    scores = engine.score([r.prefix_ids for r in asked], [c.token_ids for c in done])
    for completion, row in zip(done, scores, strict=True):
        np.testing.assert_allclose(completion.logprobs, row, atol=1e-4)


def test_reference_is_another_policy_with_its_own_history(subject: Subject) -> None:
    engine, asked = subject.new(), requests(4)
    policy = engine.generate(asked, FREE)
    with engine.reference():
        inside = engine.generate(asked, FREE)
        with engine.reference():
            nested = engine.generate(asked, FREE)
    assert [c.token_ids for c in inside] == [c.token_ids for c in nested]
    assert [c.token_ids for c in inside] != [c.token_ids for c in policy]
    assert [c.token_ids for c in engine.generate(asked, FREE)] == [c.token_ids for c in policy]


def test_turns_equal_a_fresh_engine_on_the_same_prefixes(subject: Subject) -> None:
    """Six turns in lock step: ragged, rows drop out, instructions differ, some prefixes coincide."""
    chance, engine = random.Random(1), subject.new()
    sampling = Sampling(temperature=0.8, stop_ids=frozenset({0, 1}))
    prefixes = [prompt for prompt in prompts(3) for _ in range(2)]
    for turn in range(6):
        asked = [Request(p, chance.randrange(1, 9), 100 * turn + i) for i, p in enumerate(prefixes)]
        done = engine.generate(asked, sampling)
        for request, completion in zip(asked, done, strict=True):
            (fresh,) = subject.new().generate([request], sampling)
            assert fresh.token_ids == completion.token_ids
            np.testing.assert_allclose(fresh.logprobs, completion.logprobs, atol=1e-4)
        prefixes = [
            request.prefix_ids + completion.token_ids + tuple(chance.choices(range(VOCABULARY), k=chance.randrange(4)))
            for request, completion in zip(asked, done, strict=True)
        ]
        if turn in (1, 3):
            prefixes.pop(chance.randrange(len(prefixes)))


def test_stats_count_tokens(subject: Subject) -> None:
    engine = subject.new()
    done = engine.generate(requests(5), FREE)
    engine.score([(1, 2)], [(3, 4, 5)])
    assert engine.stats.sampled == sum(len(c.token_ids) for c in done)
    assert engine.stats.scored == 3
    assert engine.stats.computed > 0


def test_sync_and_release_keep_the_answers(subject: Subject) -> None:
    engine = subject.new()
    first = engine.generate(requests(4), FREE)
    engine.sync()
    assert [c.token_ids for c in engine.generate(requests(4), FREE)] == [c.token_ids for c in first]
    engine.release()
    assert [c.token_ids for c in engine.generate(requests(4), FREE)] == [c.token_ids for c in first]
