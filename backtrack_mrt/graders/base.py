"""The grader seam: what is an answer worth? One file per grader; a user's own needs `judge` and nothing else."""

from __future__ import annotations

import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self, final

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from backtrack_mrt.errors import UserError
from backtrack_mrt.grading.markers import BOXED, Marker
from backtrack_mrt.grading.verdict import Grade, Verdict, grade_of
from backtrack_mrt.hooks import of_its_kind
from backtrack_mrt.types import Problem, Turn

Asked = tuple[Problem, str | None]
_ALWAYS_COUNTED = (Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE, Verdict.TIMEOUT)
NOTHING = Grade(Verdict.UNPARSABLE, 0.0)  # the grade of no answer


class Grader(BaseModel, ABC):
    """Judges answers to problems. Instances are frozen settings; training, evaluation, the Gymnasium environment,
    `grade` and `audit` use the same one. It serves any number of threads, if `judge` does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: ClassVar[str] = ""
    marker: ClassVar[Marker] = BOXED  # where its answers stand in a text: BOXED, LINE or FENCE
    listed: ClassVar[bool] = False  # whether `spellings` lists the right answers: without, values need sampled answers
    golds_are_answers: ClassVar[bool] = True  # whether a problem's gold is itself a right answer, to be read off a text
    gold_columns: ClassVar[tuple[tuple[str, ...], ...]] = ()  # where data sets keep its golds: those there, joined, of
    # the first whose last column is there; without, the columns of answers
    _counts: Counter[Verdict] = PrivateAttr(default_factory=Counter)
    _told: list[str] = PrivateAttr(default_factory=list)

    @abstractmethod
    def judge(self, problem: Problem, answer: str) -> Verdict | float:
        """A reward from 0 to 1 (True and False are 1 and 0), or a verdict. The answer is untrusted text."""

    def judge_many(self, asked: Sequence[tuple[Problem, str]]) -> list[Verdict | float]:
        """`judge` for several, all different. For graders that are faster at many."""
        return [self._judged(problem, answer) for problem, answer in asked]

    def check_gold(self, gold: str) -> str | None:
        """Why a gold cannot be used ("is empty"), None if it can; asked when problems are read."""
        return None if gold.strip() else "is empty"

    def check_system(self) -> None:
        """Raises UserError where it cannot grade on this system; asked before a model is loaded."""

    def spellings(self, problem: Problem) -> tuple[str, ...]:
        """How right answers are likely to be written, the usual way first; every one must be right. The likelihood of
        an answer sums over them. Only for graders that are `listed`."""
        return (problem.answer,)

    def is_canonical(self, problem: Problem) -> bool:
        """Whether a right answer has one usual spelling, so that its likelihood is the chance of a right answer."""
        return False

    def standing(self, problem: Problem, turns: Sequence[Turn]) -> Problem:
        """What a forced answer after the turns is an answer to. By default the problem, whatever was said since."""
        return problem

    @final
    def opened(self) -> Self:
        """The same settings, with counts and processes of its own. Raises UserError where it cannot grade here."""
        self.check_system()
        return type(self).model_validate(self.model_dump())

    def evaluating(self) -> Grader:
        """The grader by which evaluation counts, where training pays for less."""
        return self

    def close(self) -> None:
        """End what was started; a later grade starts it again."""

    @final
    def refusal(self, gold: str) -> str | None:
        """What `check_gold` says. Raises UserError where that is neither a text nor None."""
        return of_its_kind("grader", self, "check_gold", self.check_gold(gold))

    @final
    def counting(self) -> Grader:
        """What `evaluating` gives. Raises UserError where that is no grader."""
        return of_its_kind("grader", self, "evaluating", self.evaluating())

    @final
    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """The grade of one answer; no answer is UNPARSABLE. Never raises for any text.

        Raises UserError where a `judge` returns what is neither a verdict nor a reward."""
        return self.grade_many([(problem, answer)])[0]

    @final
    def grade_many(self, asked: Sequence[Asked]) -> list[Grade]:
        """`grade` for each, in order; each distinct answer is judged once."""
        distinct = list(dict.fromkeys((p, a) for p, a in asked if isinstance(a, str)))
        grades = dict(zip(distinct, map(self._checked, self._all_judged(distinct)), strict=True))
        given = [grades[p, a] if isinstance(a, str) else NOTHING for p, a in asked]
        self._counts.update(grade.verdict for grade in given)
        return given

    @property
    def counts(self) -> dict[Verdict, int]:
        """How often each verdict was given."""
        counted = self._counts.copy()
        return {verdict: counted[verdict] for verdict in Verdict if verdict in _ALWAYS_COUNTED or counted[verdict]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all_judged(self, asked: Sequence[tuple[Problem, str]]) -> list[Verdict | float]:
        given: object = self.judge_many(asked)
        judged = list(given) if isinstance(given, Iterable) else []
        if len(judged) != len(asked):
            reason = f"its judge_many gave {' '.join(str(given).split())[:60]} for {len(asked)} answers"
            raise UserError("grader", type(self).__name__, reason, "Return a list with what each is worth.")
        return judged

    def _judged(self, problem: Problem, answer: str) -> Verdict | float:
        """A grader that fails on what a model wrote must not end the run; it is told once for each kind of failure."""
        try:
            return self.judge(problem, answer)
        except Exception as error:
            failure = " ".join(f"{type(error).__name__}: {error}".split())
            if type(error).__name__ not in self._told:
                self._told.append(type(error).__name__)
                told = f"the grader {type(self).__name__} failed on the answer {answer[:60]!r} ({failure})"
                place = traceback.extract_tb(error.__traceback__)[1:2]  # behind this one: in `judge`
                where = "".join(f" See {frame.filename}, line {frame.lineno}." for frame in place)
                if isinstance(error, ValidationError) and "frozen" in failure:
                    where += " An instance is frozen: what it keeps is a pydantic.PrivateAttr."
                warnings.warn(f"{told}: such answers earn nothing.{where}", stacklevel=2)
            return Verdict.UNPARSABLE

    def _checked(self, judged: Verdict | float) -> Grade:
        try:
            return grade_of(judged)
        except (TypeError, ValueError) as error:
            remedy = "Return a number from 0 to 1, True, False, or a Verdict."
            raise UserError("grader", type(self).__name__, f"its judge gave {judged!r}", remedy) from error
