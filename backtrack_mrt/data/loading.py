"""The problems of a run: named sets, drawn with a seed, held-out questions kept out of training."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backtrack_mrt.config import DataSection, SetSection
from backtrack_mrt.data import countdown, signs
from backtrack_mrt.data.catalogue import find_set, refuse_test_set
from backtrack_mrt.data.duplicates import SHARE, Overlap, Words, words_in
from backtrack_mrt.data.files import is_local
from backtrack_mrt.data.problems import SetSource, notes_on, read_problems, some, unrated
from backtrack_mrt.data.quizzes import QUIZZES
from backtrack_mrt.errors import UserError, did_you_mean
from backtrack_mrt.foreign.source import source
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.plugins import is_foreign
from backtrack_mrt.types import Problem

TASKS: dict[str, Callable[..., list[Problem]]] = {  # generated problems, NAME/SPLIT
    "signs": signs.generate,
    "countdown": countdown.generate,
    **{name: quiz.generate for name, quiz in QUIZZES.items()},
}


@dataclass(frozen=True)
class ProblemSets:
    """What a run trains on and is evaluated on, disjoint. `notes` tell what was left out and why."""

    train: list[Problem]
    eval: list[Problem]
    notes: list[str]


def load_problem_sets(data: DataSection, batch: int = 1, grader: Grader = MATH) -> ProblemSets:
    """The training and held-out problems of a config, drawn with its seed. The held-out problems are drawn first; their
    questions and near copies are then kept out of training, so that runs on different training sets stay comparable.
    Golds are those that the `grader` can use.

    Raises UserError for whatever is wrong with a set, and if it has fewer problems than asked for, or, in training,
    than one `batch` of problems."""
    held_out, told = load_held_out(data, grader)
    trained = _Wanted("data.train", data.train, data.train_size, data, grader, trained_on=True)
    drawn, passed = _select(_pool(trained, told), data.train_size, Overlap(map(_identity, held_out)))
    told += passed
    _check_size(drawn, trained, batch, [note for note in told if note.startswith(trained.field)])
    return ProblemSets(drawn, held_out, told)


def load_held_out(
    data: DataSection, grader: Grader = MATH, *, field: str = "data.eval"
) -> tuple[list[Problem], list[str]]:
    """The held-out problems of `load_problem_sets`, and notes on what was left out. The training sets are not read.
    `field` is what a UserError blames.

    Raises UserError for whatever is wrong with a set, and if it has fewer problems than asked for."""
    notes: list[str] = []
    wanted = _Wanted(field, data.eval, data.eval_size, data, grader)
    held_out = _pool(wanted, notes)[: data.eval_size]
    _check_size(held_out, wanted)
    return held_out, notes


def load_problems(
    specs: Sequence[str],
    size: int | None,
    seed: int,
    *,
    field: str = "problems",
    sets: Mapping[str, SetSection] | None = None,
) -> list[Problem]:
    """`size` problems (None: all) drawn without replacement from the sets `specs`, the same for the same arguments.
    `field` is what a UserError blames, `sets` are named sets of one's own; see `load_problem_sets`."""
    asked = {"eval": list(specs), "eval_size": size, "seed": seed, "sets": sets or {}}
    return load_held_out(DataSection().model_copy(update=asked), field=field)[0]


def is_task(spec: str) -> bool:
    """Whether a problem set is generated, here or by an environment of another library."""
    return is_foreign(spec) or (spec.partition("/")[0] in TASKS and "/" in spec)


def is_generated(problem: Problem) -> bool:
    """Whether a problem is of a generated task, whatever its source says."""
    task = signs.is_signs(problem) or countdown.numbers_and_target(problem) is not None
    name, split, *_ = [*problem.id.split("/"), ""]  # a file's own rows are NAME/ROW
    return task or (name in QUIZZES and split in signs.SPLITS) or is_foreign(problem.source)


def on_hub(spec: str, sets: Mapping[str, SetSection]) -> bool:
    """Whether a problem set is neither generated nor in files."""
    return not is_task(spec) and not all(map(is_local, find_set(spec, sets, "data")[1].path))


@dataclass(frozen=True)
class _Wanted:
    """Which problems: `size` (None: all) of those in `specs`. `field` is the config field that says so."""

    field: str
    specs: list[str]
    size: int | None
    data: DataSection
    grader: Grader
    trained_on: bool = False

    @property
    def v0(self) -> list[float] | None:
        return self.data.v0 if self.trained_on else None


def _select(pool: Sequence[Problem], size: int | None, held_out: Overlap) -> tuple[list[Problem], list[str]]:
    """The first `size` problems (None: all) whose question is neither held out nor a repetition, and notes on those
    passed over."""
    chosen: dict[Words, Problem] = {}
    passed: Counter[str] = Counter()
    for problem in pool:
        if len(chosen) == size:
            break
        question = _identity(problem)
        if held_out.has(question):
            passed["data.eval asks the same"] += 1
        # Generated problems are built of one grammar: all of them look alike. They hold out by construction.
        elif not is_generated(problem) and held_out.nearest(question)[0] >= SHARE:
            passed["data.eval asks nearly the same"] += 1
        elif question in chosen:
            passed["an earlier one asks the same"] += 1
        else:
            chosen[question] = problem
    notes = [f"data.train: {count} problems left out because {why}" for why, count in sorted(passed.items())]
    return list(chosen.values()), notes


def _identity(problem: Problem) -> Words:
    """The words that two equal problems share. Environments may ask the same in every task."""
    return words_in(problem.id if is_foreign(problem.source) else problem.question)


def _check_size(drawn: list[Problem], wanted: _Wanted, batch: int = 1, notes: Sequence[str] = ()) -> None:
    field, specs, size = wanted.field, wanted.specs, wanted.size
    note = f" ({'; '.join(notes)})" if notes else ""
    if not drawn or (len(drawn) < batch and size is not None):  # a size that nobody named follows the data
        reason = f"the data set has {len(drawn)} problems{note}, fewer than one batch of {batch}"
        raise UserError(field, specs, reason, "Give more problems or lower training.problems_per_step.")
    if size is not None and size > len(drawn):
        reason = f"the data set has only {len(drawn)} problems{note}"
        raise UserError(f"{field}_size", size, reason, f"Set {field}_size to at most {len(drawn)}, or to null for all.")


def _pool(wanted: _Wanted, told: list[str]) -> list[Problem]:
    """All problems of the sets, checked and in the order of the draw; `size` generated ones per generated set."""
    field = wanted.field
    pool: list[Problem] = []
    for spec in wanted.specs:
        if is_foreign(spec):
            pool += _foreign(spec, wanted)
            continue
        if is_task(spec):
            pool += _generated(spec, wanted)
            continue
        name, entry = find_set(spec, wanted.data.sets, field)
        if wanted.trained_on:
            refuse_test_set(spec, entry, field)
        source = SetSource(field, spec, name, entry, wanted.data.bad_golds, wanted.v0, wanted.grader)
        found = read_problems(source)
        told += notes_on(source, found)
        pool += found.problems
    repeated = [name for name, count in Counter(problem.id for problem in pool).items() if count > 1]
    if repeated:
        raise UserError(field, wanted.specs, f"ids occur more than once: {some(repeated)}", "Make the ids unique.")
    return random.Random(f"draw/{wanted.data.seed}").sample(pool, len(pool))


def _foreign(spec: str, wanted: _Wanted) -> list[Problem]:
    """Tasks of an environment: the first ones, twice as many as are asked for, since as many may be held out."""
    environment = source(spec)
    number = environment.tasks() if wanted.size is None else min(environment.tasks(), 2 * wanted.size)
    return [environment.problem(task) for task in range(number)]


def _generated(spec: str, wanted: _Wanted) -> list[Problem]:
    task, _, split = spec.partition("/")
    if split not in signs.SPLITS:
        raise UserError(wanted.field, spec, "no such split", did_you_mean(split, signs.SPLITS))
    if wanted.v0 is not None:
        raise unrated(spec, wanted.v0)
    return TASKS[task](split, wanted.size or 0, wanted.data.seed)
