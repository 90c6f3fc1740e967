"""What every engine promises of its draws, tested on every engine that runs here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.engine_subjects import CONTEXT, FREE, GREEDY, VOCABULARY, Subject, requests

from backtrack_mrt.types import Finish, Request, Sampling


def test_same_seed_same_tokens(subject: Subject) -> None:
    first, again = subject.new().generate(requests(5), FREE), subject.new().generate(requests(5), FREE)
    assert [c.token_ids for c in first] == [c.token_ids for c in again]
    reseeded = [replace(r, seed=r.seed + 100) for r in requests(5)]
    assert [c.token_ids for c in subject.new().generate(reseeded, FREE)] != [c.token_ids for c in first]


def test_repeated_call_of_a_warm_engine(subject: Subject) -> None:
    engine = subject.new()
    first = engine.generate(requests(5), FREE)
    assert [c.token_ids for c in engine.generate(requests(5), FREE)] == [c.token_ids for c in first]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_logprobs_are_the_policys(subject: Subject, temperature: float) -> None:
    asked = requests(5)
    for request, done in zip(asked, subject.new().generate(asked, Sampling(temperature)), strict=True):
        truth = subject.logprobs(request.prefix_ids, done.token_ids, temperature)
        np.testing.assert_allclose(done.logprobs, truth, atol=1e-4)


def test_greedy_takes_the_likeliest_token(subject: Subject) -> None:
    asked = requests(4)
    for request, done in zip(asked, subject.new().generate(asked, GREEDY), strict=True):
        ids = request.prefix_ids + done.token_ids
        best = subject.logits(ids).argmax(-1).tolist()[len(request.prefix_ids) - 1 : -1]
        assert list(done.token_ids) == best
        np.testing.assert_allclose(done.logprobs, subject.logprobs(request.prefix_ids, done.token_ids), atol=1e-4)


def test_tokens_do_not_depend_on_the_batch(subject: Subject) -> None:
    asked = requests(6)
    together = [c.token_ids for c in subject.new().generate(asked, FREE)]
    assert [subject.new().generate([r], FREE)[0].token_ids for r in asked] == together
    order = [4, 0, 5, 2]
    mixed = subject.new().generate([asked[i] for i in order], FREE)
    assert [c.token_ids for c in mixed] == [together[i] for i in order]


def test_more_requests_than_rows(subject: Subject) -> None:
    asked = requests(15)
    done = subject.new().generate(asked, FREE)
    assert [c.token_ids for c in done] == [subject.new().generate([r], FREE)[0].token_ids for r in asked]


def test_group_members_differ_by_seed_only(subject: Subject) -> None:
    prompt = (3, 1, 4, 1, 5)
    group = subject.new().generate([Request(prompt, 6, seed) for seed in range(6)], FREE)
    alone = [subject.new().generate([Request(prompt, 6, seed)], FREE)[0] for seed in range(6)]
    assert [c.token_ids for c in group] == [c.token_ids for c in alone]
    assert len({c.token_ids for c in group}) > 1


def test_stop_ids_end_a_row_and_belong_to_it(subject: Subject) -> None:
    sampling = Sampling(stop_ids=frozenset(range(6)))
    finishes = set()
    for done in subject.new().generate(requests(12, length=6), sampling):
        hits = [i for i, token in enumerate(done.token_ids) if token in sampling.stop_ids]
        finishes.add(done.finish)
        if done.finish is Finish.STOP:
            assert hits == [len(done.token_ids) - 1]
        else:
            assert not hits
            assert len(done.token_ids) == 6
    assert finishes == {Finish.STOP, Finish.LENGTH}


def test_a_stop_id_changes_nothing_before_it(subject: Subject) -> None:
    free = subject.new().generate(requests(8), FREE)
    for whole, cut in zip(free, subject.new().generate(requests(8), Sampling(stop_ids=frozenset({2, 7}))), strict=True):
        assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids


def test_every_row_has_its_own_length(subject: Subject) -> None:
    lengths = [1, 9, 4, 2, 7, 1]
    asked = [replace(r, max_new_tokens=n) for r, n in zip(requests(6), lengths, strict=True)]
    done = subject.new().generate(asked, FREE)
    assert [len(c.token_ids) for c in done] == lengths
    assert all(c.finish is Finish.LENGTH for c in done)


def test_length_is_cut_at_the_context(subject: Subject) -> None:
    prefix = tuple(i % VOCABULARY for i in range(CONTEXT - 3))
    (done,) = subject.new().generate([Request(prefix, 50, 0)], FREE)
    assert (len(done.token_ids), done.finish) == (3, Finish.LENGTH)


def test_bad_inputs(subject: Subject) -> None:
    engine, full = subject.new(), tuple([1] * CONTEXT)
    with pytest.raises(ValueError, match="empty prefix"):
        engine.generate([Request((), 4, 0)], FREE)
    with pytest.raises(ValueError, match=f"{CONTEXT} prefix.*context of {CONTEXT}"):
        engine.generate([Request(full, 4, 0)], FREE)
    with pytest.raises(ValueError, match="at least 1"):
        engine.generate([Request((1,), 0, 0)], FREE)
    with pytest.raises(ValueError, match="empty prefix"):
        engine.score([()], [(1,)])
    with pytest.raises(ValueError, match="exceed the context"):
        engine.score([full], [(1,)])
    with pytest.raises(ValueError, match="zip"):
        engine.score([(1,)], [])


def test_nothing_asked_nothing_done(subject: Subject) -> None:
    engine = subject.new()
    assert engine.generate([], FREE) == []
    assert engine.score([], []) == []
    (empty,) = engine.score([(1, 2)], [()])
    assert empty.shape == (0,)


def test_draws_follow_the_distribution(subject: Subject) -> None:
    """Chi-square of 1,000 first tokens, rare ones pooled; 72.1 is the 99.9 % quantile of 39 degrees of freedom."""
    prefix, draws = (3, 1, 4), 1000
    engine, counts = subject.new(rows=500), np.zeros(VOCABULARY)
    for done in engine.generate([Request(prefix, 1, seed) for seed in range(draws)], FREE):
        counts[done.token_ids[0]] += 1
    expected = subject.logits(prefix)[-1].softmax(-1).double().numpy() * draws
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum() + 1e-9)
    assert ((counts - expected) ** 2 / expected).sum() < 72.1


def test_top_p_draws_from_the_likeliest(subject: Subject) -> None:
    prefix = (3, 1, 4)
    probs = subject.logits(prefix)[-1].softmax(-1)
    ranked, order = probs.sort(descending=True)
    nucleus = set(order[: int((ranked.cumsum(0) < 0.5).sum()) + 1].tolist())
    done = subject.new(rows=200).generate([Request(prefix, 1, seed) for seed in range(200)], Sampling(top_p=0.5))
    assert {c.token_ids[0] for c in done} <= nucleus
    for completion in done[:20]:  # logprobs are those of the whole distribution
        np.testing.assert_allclose(completion.logprobs[0], float(probs[completion.token_ids[0]].log()), atol=1e-4)


def test_endings_are_the_mass_of_all_their_tokens_at_the_last_place(subject: Subject) -> None:
    """Several continuations of a prefix, among them one inside another, each with endings of its own or none."""
    prefixes = [(3, 1, 4), (3, 1, 4), (3, 1, 4), (2, 7, 1, 8), (2, 7, 1, 8)]
    continuations = [(5, 9), (5, 9, 2), (6,), (5, 9), (1,)]
    endings = [(9, 11, 30), (2, 3), (), (9, 11, 30), tuple(range(VOCABULARY))]
    engine = subject.new()
    for _ in range(2):  # the second time the histories are cached
        for prefix, ids, alike, scored in zip(
            prefixes, continuations, endings, engine.score(prefixes, continuations, endings), strict=True
        ):
            truth = subject.logprobs(prefix, ids)
            if alike:
                last = subject.logits(prefix + ids[:-1])[-1].log_softmax(-1)
                truth[-1] = float(last[list(alike)].logsumexp(-1))
            np.testing.assert_allclose(scored, truth, atol=1e-4)


def test_an_ending_of_one_token_changes_no_bit(subject: Subject) -> None:
    prefixes, continuations = [(3, 1, 4), (2, 7, 1, 8)], [(5, 9), (1, 2, 3)]
    plain = subject.new().score(prefixes, continuations)
    ended = subject.new().score(prefixes, continuations, [(9,), (3,)])
    assert [row.tolist() for row in ended] == [row.tolist() for row in plain]


def test_endings_that_cannot_be(subject: Subject) -> None:
    engine = subject.new()
    with pytest.raises(ValueError, match="other endings"):
        engine.score([(1,), (1,)], [(2,), (2,)], [(2, 3), (2, 4)])
    with pytest.raises(ValueError, match="no token"):
        engine.score([(1,)], [()], [(2,)])
    with pytest.raises(ValueError, match="zip"):
        engine.score([(1,)], [(2,)], [])
