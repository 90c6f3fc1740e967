"""The evaluation sets of the shared folder, loaded by their ready-made names; what they share with training sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtrack_mrt.config import DataSection
from backtrack_mrt.data.loading import load_problem_sets, load_problems
from backtrack_mrt.grading import MathGrader, Verdict

DATA = Path(__file__).parents[3] / "shared" / "data"
SIZES = {"aime24": 30, "aime25": 30, "amc23": 40, "minerva-math": 272, "math500": 500, "gsm8k-test": 1319}

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the data sets are not here (../shared/data)")


def local(name: str) -> str:
    """A ready-made set in the shared folder."""
    return f"{name}={DATA / name.replace('-', '_')}.jsonl"


@pytest.mark.parametrize("name", SIZES)
def test_every_evaluation_set_loads_and_its_golds_are_right(name: str) -> None:
    problems = load_problems([local(name)], None, 0)
    assert len(problems) == SIZES[name]
    assert {problem.rel_tol for problem in problems} == {0.01 if name == "minerva-math" else None}
    with MathGrader(workers=1) as grader:
        for answer in ("{}", "${}$."):  # as it is, and as it would stand in a sentence
            pairs = [(problem.answer, answer.format(problem.answer)) for problem in problems]
            verdicts = grader.grade_many(pairs, rel_tol=[problem.rel_tol for problem in problems])
            assert set(verdicts) == {Verdict.RIGHT}


def test_large_draws_begin_with_the_small_ones_and_ask_nothing_held_out() -> None:
    train = [f"math={DATA}/math_train.jsonl", f"mawps={DATA}/mawps_*.jsonl"]
    data = DataSection(train=train, eval=[local("math500"), local("aime24")], train_size=4_000, eval_size=None)
    sets = load_problem_sets(data, batch=64)
    assert (len(sets.train), len(sets.eval)) == (4_000, 530)
    assert load_problem_sets(data.model_copy(update={"train_size": 1_000})).train == sets.train[:1_000]
    repeated, copies = sets.notes
    assert "data.eval asks nearly the same" in copies
    assert "an earlier one asks the same" in repeated  # MAWPS repeats itself
