"""Grade answers: extraction, guards, exact arithmetic, then math-verify in a killable process.

>>> with MathGrader() as grader:
...     grader.grade("1/2", "0.5"), grader.grade("7", extract_boxed("So it is \\\\boxed{8}."))
(<Verdict.RIGHT: 'right'>, <Verdict.WRONG: 'wrong'>)
"""

from backtrack_mrt.grading.extract import extract_boxed
from backtrack_mrt.grading.forms import Forms, is_evaluated
from backtrack_mrt.grading.grader import MathGrader
from backtrack_mrt.grading.guards import check_gold
from backtrack_mrt.grading.pool import Limits
from backtrack_mrt.grading.surface import is_canonical, surface_forms
from backtrack_mrt.grading.verdict import Grade, Verdict

__all__ = [
    "Forms",
    "Grade",
    "Limits",
    "MathGrader",
    "Verdict",
    "check_gold",
    "extract_boxed",
    "is_canonical",
    "is_evaluated",
    "surface_forms",
]
