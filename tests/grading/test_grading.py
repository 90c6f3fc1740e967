"""The rules of grading that need no worker process, and those that do, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtrack_mrt.grading import MathGrader, Verdict, check_gold, extract_boxed
from backtrack_mrt.grading.guards import refuse
from backtrack_mrt.grading.judge import judge

RIGHT, WRONG, UNPARSABLE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=1) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{7}", "7"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{x = \boxed{7}}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"{ open \boxed{7}", "7"),
        (r"} closed \boxed{7}", "7"),
        (r"\boxed{}", ""),
        (r"\boxed{7", None),
        (r"\boxed{\frac{7}{1}", None),
        (r"\boxed{7\}", None),
        ("boxed{7}", None),
        ("", None),
        ("\\", None),
    ],
)
def test_the_last_complete_box_counts(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


@pytest.mark.parametrize("filler", [r"\boxed{", "{", "}", "\\", r"\boxed   ", r"\{", "x", r"\boxed{a}"])
def test_extraction_is_linear(filler: str) -> None:
    text = filler * (1_000_000 // len(filler))  # a quadratic scan would take hours here
    assert extract_boxed(text + r" \boxed{7}") == "7"


EQUAL = [
    ("42", "42."), ("42", "042"), ("0", "-0.0"), ("-7", "−7"), ("1234567", "1,234,567"),
    ("1234567", r"1\,234\,567"),
    ("1234567", "1{,}234{,}567"), (r"125,\!000", "125000"), (r"\frac{1}{2}", "0.5"), (r"\frac12", "1/2"),
    (r"\frac{3}{2}", r"1\frac{1}{2}"), ("3/2", "1 1/2"), (r"\frac{1}{3}", r"0.\overline{3}"),
    ("1", r"0.\overline{9}"),
    ("-1./3", r"-\frac{1}{3}"), (r"-\frac{3}{4}", r"\frac{-3}{4}"), ("8.7e8", r"8.7\times 10^{8}"),
    ("300000000", "3e8"),
    ("1000000", "10^6"), (str(2**100), "2^{100}"), ("18", r"\$18.00"), ("18", "18 dollars"),
    ("5", r"5\text{ cm}"),
    (r"5\text{ cm}", "5 centimeters"), (r"15\mbox{ cm}^2", "15 square centimeters"), (r"90^\circ", "90"),
    ("5", "five"),
    (r"9\%", "0.09"), ("0.09", r"9\%"), (r"9\%", "9"), ("9", r"9\%"), ("5", "x = 5"), ("x=5", "5"),
    (r"\text{(A)}", "A"), (r"\text{east}", "East."), ("3:30 p.m.", "3:30 PM"),
    ("Mrs. Hilt", r"\text{mrs. hilt}"),
    ("The 60th caller.", "60th caller"), (r"\text{A, B}", "B, A"), ("2516_8", "2516_{8}"), ("2516_8", "2516"),
    ("(1,2)", r"\left( 1,\, 2 \right)"), (r"(\frac12, 3)", "(0.5, 3.0)"), ("1,2,3", "3, 2, 1"),
    ("1,2", "x=1 or x=2"),
    (r"\{1,2\}", r"\{2,1\}"), (r"\pm 7", "7, -7"), (r"(-\infty, 3]", r"(-\infty,3.0]"),
    (r"-2 \text{ or } 4", "4, -2"),
    (r"(0,1)\cup(2,3)", r"(2,3)\cup(0,1)"), (r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}",
    r"\begin{bmatrix} 1&2 \\ 3&\frac{8}{2} \end{bmatrix}"), ("+-+,++-", "+-+, ++-"), (r"\approx 8.24", "8.24"),
    ("7" * 5000, "7" * 5000),
]  # fmt: skip
DIFFERENT = [
    ("42", "43"), ("42", "-42"), ("12", "1 2"), (r"\frac{1}{3}", "0.33"), ("1", "0.9999999"), (str(2**100 + 1),
    "2^{100}"),
    (r"6.626\times10^{-34}", "0.0"), ("0.0000003", "0.0000001"), (r"9\%", "0.9"), ("7", r"700\%"),
    ("1", r"1\frac{1}{2}"),
    ("11/2", "1 1/2"), (r"5\text{ m}", r"5\text{ cm}"), (r"\$7", r"7\text{ cents}"), ("5", "3 = 5"),
    ("5", "5 = 3"),
    ("5", "x = 3 = 5"), ("7", r"7 \text{ or } 8"), ("7", r"7 \text{ or anything}"), ("7", "7, 8"),
    ("7", r"\{7, 8\}"),
    ("7", "[0, 1000]"), ("7", r"\pm 7"), (r"\pm 7", "7"), ("1,2", "1,2,3"), ("1,2", "1,2,2"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "[1,2)"), ("(1,2)", r"\{1,2\}"), ("A", "A, B, C, D"), ("A", r"A \text{ or } B"), ("A", "B"),
    (r"\text{cab}", "abc"), ("10:30", "10:31"), ("1.2", "12:10"), ("3", "Mrs. Hilt"),
    ("+-+,++-", "+-+,+++"), ("+-", "-+"), ("2516_8", "2516_9"),
    ("10", "10_2"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    (r"(0,1)\cup(2,3)", "(0,1)"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_in_another_spelling(gold: str, answer: str) -> None:
    assert _without_worker(gold, answer) is RIGHT


@pytest.mark.parametrize(("gold", "answer"), [pair for pair in DIFFERENT if pair not in [("12", "1 2")]])
def test_not_equal(grader: MathGrader, gold: str, answer: str) -> None:
    assert grader.grade(gold, answer) is WRONG


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}", RIGHT), (r"2\sqrt{2}", "2.83", WRONG),
        (r"\sqrt{2}", r"\sqrt{2}+10^{-20}", WRONG),
        ("x^2+2x+1", "(x+1)^2", RIGHT), ("0.5x", r"\frac{x}{2}", RIGHT), ("-1", r"e^{i\pi}", RIGHT),
        ("2ab", "2ba", RIGHT), ("5", "2+3=5", RIGHT), ("5", "2+4=5", WRONG), ("3+4i", "4i+3", RIGHT),
        ("y=2x+3", "2x-y=-3", RIGHT), ("y=2x+3", "y=2x+4", WRONG),
        ("x^2+1=0", "x^2+2=0", WRONG), ("x^2+1=0", "x=x+1", WRONG), ("x=5", "y=5", WRONG),
        ("x>3", "3<x", RIGHT),
        ("x>3", r"x\ge 3", WRONG), ("1<x<2", "(1,2)", RIGHT), (r"(\frac12, \sqrt{2})", r"(0.5, \sqrt2)", RIGHT),
        (r"1\pm\sqrt{5}", r"1-\sqrt5, \frac{2+\sqrt{20}}{2}", RIGHT), (r"\pi", r"\frac{22}{7}", WRONG),
        (r"4\sqrt3\text{ cm}", r"\sqrt{48}\text{ m}", WRONG), ("7", "x", WRONG), ("7", r"\frac{1}{0}", WRONG),
        (r"\infty", r"-\infty", WRONG), ("12", "1 2", WRONG), ("n", "n+0", RIGHT),
        ("(x+y+z)^{60}", "(x+y+z+w)^{60}", WRONG),
    ],
)  # fmt: skip
def test_what_needs_algebra(grader: MathGrader, gold: str, answer: str, verdict: Verdict) -> None:
    assert grader.grade(gold, answer) is verdict


@pytest.mark.parametrize(
    "answer",
    [None, "", " ", "７", "٧", "7\x00", "\ud800", "\u202e7", "7}", "}{", "10^{10^{10}}", "9**9**9", "2^{100000000}",
     "8!!!", "1000000!", "((((5!)!)!)!)!", "1e99999", r"\sum_{k=1}^{3} k", r"7 \approx 8", "<|im_end|>",
     "__import__('os')",
     "(" * 30 + "7" + ")" * 30, "7" * 401, "7" * 1_000_000, "{" * 100_000, "\x00" * 1_000_000, 7, ["7"], b"7", 7.0],
)  # fmt: skip
def test_what_is_not_read(answer: str | None) -> None:
    assert _without_worker("7", answer) is UNPARSABLE


@pytest.mark.parametrize(
    "piece", [r"two \cdot ", r"\sin a\cdot ", "a = ", "a+", r"\text{m}/", "1 ", r"\sqrt(", "x<", "A or ", r"\pm 1"]
)
@pytest.mark.parametrize("gold", ["7", "x=5", r"(0,1)\cup(2,3)"])
def test_no_rule_takes_for_ever(gold: str, piece: str) -> None:
    text = (piece * 300)[:505] + " = 8"  # a pattern that reads it in two ways a piece would never come back
    assert judge(gold, text, None) is not RIGHT


def test_what_the_gold_has_is_allowed() -> None:
    assert refuse(r"\sum_{k=1}^{n} k", gold="7") is not None
    assert refuse(r"\sum_{k=1}^{n} k", gold=r"\sum_{j=1}^{n} j") is None
    assert refuse("e^{e^{e^x}}", gold="7") is not None
    assert refuse("e^{e^{e^x}}", gold="e^{e^{e^x}}+1") is None
    assert refuse("e^{-x^2}", gold="7") is None


@pytest.mark.parametrize(
    "gold", ["7", r"\frac{1}{2}", "+-,-+", "Yes", r"\infty", "A", r"\begin{pmatrix}1\\2\end{pmatrix}"]
)
def test_usable_golds(gold: str) -> None:
    assert check_gold(gold) is None


@pytest.mark.parametrize("gold", ["", " ", "-", "?", "$$", "7}", r"\frac{1}{2", "7\x00", "\ud800", "7" * 513, None, 7])
def test_unusable_golds_have_a_reason(gold: str) -> None:
    assert check_gold(gold)


@pytest.mark.parametrize("answer", ["", " ", "7", "None"])
def test_an_empty_gold_earns_nothing(answer: str) -> None:
    assert _without_worker("", answer) is UNPARSABLE


def test_tolerance_is_relative_and_only_on_request(grader: MathGrader) -> None:
    assert grader.grade("4.5e33", "4.52e33") is WRONG
    assert grader.grade("4.5e33", "4.52e33", rel_tol=0.01) is RIGHT
    assert grader.grade("4.5e33", "4.6e33", rel_tol=0.01) is WRONG
    assert grader.grade("1.2e-9", "0", rel_tol=0.01) is WRONG
    assert grader.grade("0", "1e-9", rel_tol=0.01) is WRONG
    assert grader.grade("0.264", r"\frac{\sqrt{7}}{10}", rel_tol=0.01) is RIGHT
    assert grader.grade("0.264", r"\frac{\sqrt{7}}{10}") is WRONG


def test_completions() -> None:
    with MathGrader() as grader:
        assert grader.grade("7", extract_boxed(r"the final answer is $7$. \boxed{8}")) is WRONG
        assert grader.grade("7", extract_boxed(r"\boxed{8} no, \boxed{7}")) is RIGHT
        assert grader.grade("7", extract_boxed("the answer is 7")) is UNPARSABLE
        assert grader.grade("7", extract_boxed(r"\boxed{7")) is UNPARSABLE
        assert grader.grade("7", None) is UNPARSABLE


def test_many_equals_one_by_one() -> None:
    pairs: list[tuple[str, str | None]] = [
        ("7", "7"),
        (r"\sqrt2", r"\frac{2}{\sqrt2}"),
        ("7", "8"),
        ("7", None),
        ("7", "7}"),
    ]
    with MathGrader(workers=2) as one, MathGrader(workers=2) as many:
        expected = [one.grade(gold, answer) for gold, answer in pairs * 3]
        assert many.grade_many(pairs * 3) == expected
        assert expected[:5] == [RIGHT, RIGHT, WRONG, UNPARSABLE, UNPARSABLE]
        assert many.grade_many([("3.09", "3.1")] * 3, rel_tol=[None, 0.01, 0.001]) == [WRONG, RIGHT, WRONG]


def test_the_cache_is_bounded() -> None:
    grader = MathGrader(cache_size=10)
    for number in range(100):
        grader.grade("1/3", f"{number}/7")
    assert len(grader._cache) == 10


def _without_worker(gold: str, answer: object) -> Verdict:
    """The verdict, where asking a worker would be a mistake."""
    grader = MathGrader()
    verdict = grader.grade(gold, answer)  # type: ignore[arg-type]  # the wrong types are part of the tests
    assert all(worker._process is None for worker in grader._pool._workers), "a worker was started"
    return verdict
