"""Text: the same words as the gold, on a line ``Answer: …``.

Blanks, capitals, quotes around the answer, a full stop behind it and the several codes of one character do not count.
"""

from __future__ import annotations

import re
import unicodedata
from typing import ClassVar

from pydantic import Field

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading.markers import LINE, Marker
from backtrack_mrt.types import Problem

_AROUND = " \t\n.,;:!?\"'`*_«»„“”‘’"
_DECIMAL = re.compile(r"\.\d")  # whose point is no stop: .5 is not 5


class Exact(Grader):
    """The gold's text, whatever its blanks and capitals."""

    summary: ClassVar[str] = "text: the same words as the gold"
    marker: ClassVar[Marker] = LINE
    listed: ClassVar[bool] = True
    capitals: bool = Field(False, description="whether capitals count: paris is not Paris")

    def judge(self, problem: Problem, answer: str) -> float:
        return float(self._normal(answer) == self._normal(problem.answer))

    def check_gold(self, gold: str) -> str | None:
        return None if self._normal(gold) else "holds no word"

    def spellings(self, problem: Problem) -> tuple[str, ...]:
        gold = problem.answer.strip()
        others = () if self.capitals else (gold.lower(), gold[:1].upper() + gold[1:])
        return tuple(dict.fromkeys((gold, *others)))

    def _normal(self, text: str) -> str:
        text = " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())
        bare = (text if _DECIMAL.match(text) else text.lstrip(_AROUND)).rstrip(_AROUND) or text
        return bare if self.capitals else bare.casefold()
