"""What every engine promises, tested on every engine that runs here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from backtrack_mrt.engines.base import Engine
from backtrack_mrt.engines.hf import HFEngine
from backtrack_mrt.engines.scripted import ScriptedEngine
from backtrack_mrt.types import Finish, FloatArray, Request, Sampling, TokenIds

VOCABULARY, CONTEXT = 40, 160
FREE = Sampling()
GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class Subject:
    """An engine under test: `new()` makes one with nothing cached, which takes 6 rows at once or as many as it is told;
    `logits` (T, V) is the truth about its policy after every token of the given ids."""

    new: Callable[..., Engine]
    logits: Callable[[TokenIds], torch.Tensor]

    def logprobs(self, prefix: TokenIds, continuation: TokenIds, temperature: float = 1.0) -> FloatArray:
        rows = (self.logits(prefix + continuation) / temperature).log_softmax(-1)[len(prefix) - 1 : -1]
        return np.array([float(row[token]) for row, token in zip(rows, continuation, strict=True)])


@pytest.fixture(scope="module", params=["hf", "scripted"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "scripted":
        engine = ScriptedEngine(vocabulary=VOCABULARY)
        return Subject(
            lambda rows=6: ScriptedEngine(vocabulary=VOCABULARY, context_length=CONTEXT),
            lambda ids: torch.stack([engine._logits(token) for token in ids]),
        )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(config), lora).eval()

    @torch.no_grad()
    def logits(ids: TokenIds) -> torch.Tensor:
        return model(torch.tensor([ids]), use_cache=False).logits[0]

    return Subject(lambda rows=6: HFEngine(model, max_rows=rows), logits)


def prompts(count: int, seed: int = 0) -> list[TokenIds]:
    """Ragged random ids."""
    chance = random.Random(seed)
    return [tuple(chance.randrange(VOCABULARY) for _ in range(chance.randrange(1, 12))) for _ in range(count)]


def requests(count: int, length: int = 8) -> list[Request]:
    return [Request(prefix, length, seed) for seed, prefix in enumerate(prompts(count))]


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
    engine.sync(1)
    assert [c.token_ids for c in engine.generate(requests(4), FREE)] == [c.token_ids for c in first]
    engine.release()
    assert [c.token_ids for c in engine.generate(requests(4), FREE)] == [c.token_ids for c in first]


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
