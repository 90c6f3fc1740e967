"""The token sequences whose probabilities add up to a value."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType

import numpy as np
import pytest

from backtrack_mrt.graders.math import MATH, Math
from backtrack_mrt.policy.scripted import ScriptedEngine
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.rollouts.prover import AutoProver, LikelihoodProver, SampledProver
from backtrack_mrt.rollouts.spelling import Speller, Vocabulary
from backtrack_mrt.types import Completion, Finish, FloatArray, Problem, Request, Sampling, TokenIds

MERGES = [
    "{",
    "}",
    "}}",
    "}.",
    " }",
    "}{",
    "2}",
    "1",
    "2",
    "3",
    "12",
    ".",
    "0",
    "\\",
    "frac",
    "{1",
    "/",
    "$",
    ",",
    " ",
    "x",
]


class WordChat(ByteChat):
    """Tokens of several characters, the longest first, as BPE has them: `MERGES`, then single bytes."""

    pieces: Mapping[int, str] = MappingProxyType(dict(enumerate([*MERGES, *map(chr, range(128))])))
    eos_id = len(pieces)
    stop_ids = frozenset({eos_id})

    def encode(self, text: str) -> TokenIds:
        ids: list[int] = []
        while text:
            token = max((i for i, piece in self.pieces.items() if text.startswith(piece)), key=self._length)
            ids.append(token)
            text = text[len(self.pieces[token]) :]
        return tuple(ids)

    def decode(self, ids: TokenIds) -> str:
        return "".join(self.pieces.get(i, "") for i in ids)

    def _length(self, token: int) -> tuple[int, int]:
        return len(self.pieces[token]), -token


CHAT = WordChat()
DIALOGUE = Dialogue(CHAT, load_prompts("single", "terse"))
GOLDS = ["12", "3", "1/2", r"\frac{1}{2}", "0.5", "1,230", r"\text{x}", "x = 2"]


def sequences(gold: str) -> list[TokenIds]:
    """All token sequences that count as the gold, each up to the token that closes the box."""
    spellings = Speller(DIALOGUE, MATH.spellings).spellings(Problem("p", "?", gold))
    return [(*spelling.ids[:-1], last) for spelling in spellings for last in spelling.endings]


@pytest.mark.parametrize("gold", GOLDS)
def test_all_counted_sequences_are_right_and_none_begins_another(gold: str) -> None:
    found = sequences(gold)
    assert len(found) == len(set(found)) > 1
    assert not any(a == b[: len(a)] for a, b in product(found, found) if a != b)
    with Math(workers=1) as grader:
        for ids in found:
            assert grader.grade(Problem("p", "?", gold), DIALOGUE.forced_answer(ids)).reward == 1, CHAT.decode(ids)


def test_every_token_that_closes_the_box_counts() -> None:
    closed = {CHAT.decode(ids) for ids in sequences("3")}
    assert {"3}", "3}}", "3}.", "3 }", "3}{", "3.0}", r"\$3}."} <= closed


def test_a_token_may_end_the_answer_and_close_the_box() -> None:
    written = [[CHAT.pieces[i] for i in ids] for ids in sequences("12")]
    assert ["12", "}"] in written
    assert all(row[0] != "1" for row in written), "only the tokenizer's own ways of writing are counted"
    assert ["3", "2}"] in [[CHAT.pieces[i] for i in ids] for ids in sequences("32")]
    ends = {tuple(CHAT.pieces[i] for i in ids[-2:]) for ids in sequences(r"\frac{1}{2}")}
    assert {("2}", "}"), ("2}", "}.")} <= ends


def test_a_joint_that_the_tokenizer_would_merge_is_written_apart() -> None:
    """``\\boxed{1`` has the token ``{1``, but the begun answer ends in a brace of its own."""
    assert CHAT.pieces[CHAT.encode(r"\boxed{1")[-1]] == "{1"
    assert all(CHAT.decode(ids).lstrip("\\$").startswith("1") for ids in sequences("1"))


def test_tokens_by_their_beginning() -> None:
    vocabulary = Vocabulary({0: "}", 1: "}}", 2: " }", 3: "a}", 4: "", 5: "\n}.", 6: "{"})
    assert vocabulary.beginning_with("}") == (0, 1, 2, 5)
    assert vocabulary.beginning_with("}}") == (1,)
    assert vocabulary.beginning_with("a") == (3,)
    assert vocabulary.beginning_with("b") == ()


def engine() -> ScriptedEngine:
    return ScriptedEngine(vocabulary=CHAT.eos_id + 1)


def test_the_likelihood_is_the_sum_over_all_counted_sequences() -> None:
    prefix, problem = CHAT.encode("?"), Problem("p", "?", "12")
    (value,) = LikelihoodProver(DIALOGUE, engine()).prefix_values([(prefix, problem)])
    found = sequences("12")
    masses = [np.exp(row.sum()) for row in engine().score([prefix] * len(found), found)]
    assert value == pytest.approx(sum(masses))
    assert value > 2 * masses[0]


SAID = {"2}": 0.5, "2 }": 0.15, "02}": 0.05, "3}": 0.3}  # and how often; the third is right and no usual form


class Sayings(ScriptedEngine):
    """Says what is in `SAID`."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        chances = list(SAID.values())
        texts = [random.Random(request.seed).choices(list(SAID), chances)[0] for request in requests]
        return [Completion(CHAT.encode(t), (0.0,) * len(CHAT.encode(t)), Finish.STOP) for t in texts]

    def score(
        self,
        prefixes: Sequence[TokenIds],
        continuations: Sequence[TokenIds],
        endings: Sequence[TokenIds] | None = None,
    ) -> list[FloatArray]:
        assert endings is not None
        known = {CHAT.encode(text): chance for text, chance in SAID.items()}
        masses = [
            sum(known.get((*ids[:-1], last), 0) for last in alike or ids[-1:])
            for ids, alike in zip(continuations, endings, strict=True)
        ]
        return [np.log([max(mass, 1e-300)]) for mass in masses]


def test_with_the_likelihood_sampled_values_keep_their_mean_and_lose_noise() -> None:
    prefixes = [(CHAT.encode("?"), Problem("p", "?", "2"))] * 200
    likelihood = LikelihoodProver(DIALOGUE, Sayings())
    with Math(workers=1) as grader:
        plain, helped = (
            SampledProver(
                DIALOGUE, Sayings(), grader=grader, samples=20, temperature=1.0, max_answer_tokens=4, likelihood=help
            ).prefix_values(prefixes)
            for help in (None, likelihood)
        )
    assert likelihood.prefix_values(prefixes[:1]) == pytest.approx(0.65)
    assert helped.mean() == pytest.approx(0.7, abs=0.012)  # 4 standard errors
    assert plain.mean() == pytest.approx(0.7, abs=0.03)
    assert helped.std() < 0.6 * plain.std()
    assert helped.min() >= 0.65


def test_auto_takes_the_likelihood_for_integers_alone() -> None:
    with Math(workers=1) as grader:
        likelihood = LikelihoodProver(DIALOGUE, engine())
        sampled = SampledProver(DIALOGUE, engine(), grader=grader, samples=2, temperature=1.0, max_answer_tokens=4)
        auto, other = AutoProver(likelihood, sampled), LikelihoodProver(DIALOGUE, engine())
        whole, fraction = Problem("a", "?", "12"), Problem("b", "?", r"\frac{1}{2}")
        rounded = Problem("c", "?", "12", rel_tol=0.01)
        assert [auto.chosen(p) is likelihood for p in (whole, fraction, rounded)] == [True, False, False]
        prefixes = [(CHAT.encode("?"), problem) for problem in (fraction, whole, rounded)]
        values = auto.prefix_values(prefixes)
        assert values[1] == other.prefix_values(prefixes)[1]
        assert auto.tokens == likelihood.tokens + sampled.tokens > 0
        assert auto.reserve(fraction) == sampled.reserve(fraction)


def test_a_forced_answer_ends_with_its_box() -> None:
    engine = ScriptedEngine(lambda prefix: (*CHAT.encode(r"\frac{1}{2}}. No: \boxed{7}"), CHAT.eos_id))
    with Math(workers=1) as grader:
        prover = SampledProver(DIALOGUE, engine, grader=grader, samples=1, temperature=1.0, max_answer_tokens=64)
        for gold, value in (("7", 0.0), ("1", 0.0)):
            assert prover.prefix_values([(CHAT.encode("?"), Problem("p", "?", gold))]) == [value]
    assert DIALOGUE.forced_answer(CHAT.encode(r"\frac{1}{2}}. No: \boxed{7}")) == r"\frac{1}{2}"
    assert DIALOGUE.forced_answer(CHAT.encode("12")) is None
