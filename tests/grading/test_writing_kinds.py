"""Held-out cases by kind, written before the rules: names, functions, sets, intervals, matrices, choices, words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtrack_mrt.grading import Grader, Verdict, extract_boxed


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as made:
        yield made


# kind → (what is right, what is not); each pair is gold, answer
KINDS: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "labels": (
        [
            ("6", "|CD| = 6"), ("30", r"\angle BAC = 30^\circ"), ("30^\\circ", r"m\angle B = 30"),
            ("4", r"\overline{PQ} = 4"), ("12", "[ABCD] = 12"),
            (r"\frac{1}{6}", r"P(A \cup B) = \frac{1}{6}"), (r"\frac{dx}{dt}=3t", "3t"),
            ("9", r"S_{\triangle PQR} = 9"), ("(1,2)", r"\vec{v} = (1,2)"),
            ("5", r"\text{Area} = 5"), ("3", r"f(2) = 3"), ("2x", "f'(x) = 2x"),
            (r"\frac{3}{5}", r"\sin A = \frac{3}{5}"), ("7", r"a_{10} = 7"),
            ("7", r"|\vec{AB}| = 7"), ("7", r"\triangle ABC = 7"), ("12", "m+n = 12"), ("8", "AB + BC = 8"),
            ("0.5", r"E[X] = 0.5"), ("5", r"n = 5"),
        ],
        [
            ("6", "|CD| = 7"), ("6", "|x| = 6"), ("6", "2x = 6"), ("3", "x^2 = 3"), ("9", r"\sqrt{x} = 9"), ("6",
            "|CD| > 6"), ("6", "AB = 6 = 7"),
            ("5", "-x = 5"), ("5", "0 = 5"), ("5", r"x \ne 5"), ("5", r"\text{not} = 5"), ("5", "x = 5, 6"), ("5",
            "x = y = 6"), ("5", "x - 5 = 0 = 5"),
        ],
    ),
    "names of functions": (
        [
            (r"\mathrm{e}^{3}", "e^3"), (r"3+2\mathrm{i}", "3+2i"), (r"\tan 2x", r"\operatorname{tg} 2x"),
            (r"\operatorname{ctg} x", r"\frac{1}{\tan x}"),
            (r"\arctan 2", r"\operatorname{arctg} 2"), (r"\arctan 2", "arctan(2)"), (r"\lg 20", r"1+\lg 2"),
            (r"\log_{10} 7", r"\lg 7"), (r"\ln 5", r"\log_e 5"),
            (r"\cos x", r"\mathrm{cos}\, x"), (r"\cos 3x", "cos(3x)"), ("x^3", "x**3"), (r"\frac{\pi}{4}", "pi/4"),
            (r"3\pi", "3*pi"), (r"\frac{\sqrt{3}}{2}", "sqrt(3)/2"),
            (r"\ln 6", "ln 6"), (r"\ln 6", "ln(2)+ln(3)"), (r"\log_3 5", "log_3(5)"), (r"-\infty", "-infinity"),
            (r"\theta", "theta"), (r"2\sin\theta", "2 sin(theta)"),
            (r"\arcsin \frac{1}{3}", r"\operatorname{arcsin}\frac13"), ("x^{12}", "x^12"), (r"e^{-x}", "e^(-x)"),
            (r"x \ge 2", "x >= 2"), (r"\sinh x", r"\operatorname{sh} x"),
        ],
        [
            (r"\mathrm{e}^{3}", "e^2"), (r"\tan x", r"\operatorname{ctg} x"), (r"\lg 20", r"\ln 20"), (r"\cos 3x",
            "cos(x)"), (r"\frac{\pi}{4}", "pi/3"), ("x^3", "x**2"),
            (r"\ln 6", "ln(5)"), (r"\sin x", "sin(y)"), ("3", "sin(3)"), (r"\pi", "pie"), (r"2\pi", "pi2pi"),
            (r"x^{12}", "x^1"),
        ],
    ),
    "intervals": (
        [
            ("(2,5)", "2 < x < 5"), ("[2,5)", r"2 \le t < 5"), ("(2,5)", "5 > x > 2"), (r"[3,\infty)", r"x \ge 3"),
            (r"x \le -1", r"(-\infty,-1]"), (r"(-\infty,-3)\cup(3,\infty)", "|x| > 3"),
            ("[-3,3]", r"|x| \le 3"), (r"\mathbb{R}", r"x \in \mathbb{R}"),
            (r"\text{all real numbers}", r"(-\infty,\infty)"), (r"\mathbb{R}", "all reals"),
            ("ℝ", r"(-\infty,+\infty)"),
            (r"(-\infty,2)\cup(2,\infty)", r"x \neq 2"), (r"x \ne 2", r"\mathbb{R}\setminus\{2\}"),
            (r"(-\infty,0)\cup(1,\infty)", r"x<0 \text{ or } x>1"), (r"x<0 \text{ or } x>1", "x>1, x<0"),
            ("(0,1)", r"\left]0,1\right["), ("[0,1)", "[0;1["), (r"[\sqrt{2},3]", r"\sqrt{2} \le x \le 3"),
            ("[1,4]", r"\{x \mid 1 \le x \le 4\}"), (r"x \in (1,4)", r"1<x<4"),
            (r"(1,4)", r"x > 1 \text{ and } x < 4"),
            (r"(-\infty,0) \cup (1,\infty)", r"x \in (-\infty,0) \text{ or } x \in (1,\infty)"), (r"(0, 2]", "x∈(0,2]"),
        ],
        [
            ("(2,5)", r"2 \le x < 5"), ("[2,5)", "2<x<5"), (r"[3,\infty)", "x>3"), (r"[3,\infty)", r"x \le 3"),
            (r"(-\infty,-3)\cup(3,\infty)", "|x| < 3"), (r"\mathbb{R}", "x>0"),
            (r"\mathbb{R}", r"(0,\infty)"), (r"x \ne 2", r"x \ne 3"), (r"(-\infty,0)\cup(1,\infty)", "x>1"),
            (r"(-\infty,0)\cup(1,\infty)", r"x<0 \text{ and } x>1"), ("(0,1)", "[0,1["),
            ("(2,5)", "2 < x, y < 5"), ("x>3", "a>3"), (r"(1,4)", r"x>1 \text{ or } x<4"), ("[1,4]", r"\{1,4\}"),
            ("(5,2)", "2<x<5"), (r"\mathbb{R}", r"\mathbb{Z}"), ("7", r"x \in \mathbb{R}"),
        ],
    ),
    "empty": (
        [(r"\emptyset", "∅"), (r"\emptyset", "no solution"), (r"\text{no solution}", r"\varnothing"),
        (r"\text{No real solutions}", r"\emptyset"), (r"\varnothing", r"\{\}"),
         (r"\{ \}", r"\text{empty set}"), (r"\text{no solutions}", "No solution."), (r"x \in \emptyset", r"\emptyset")],
        [(r"\emptyset", "0"), (r"\emptyset", r"\{0\}"), ("0", r"\emptyset"),
        (r"\emptyset", r"\text{one solution}"), ("7", "no solution"), (r"\text{no solution}", r"\mathbb{R}")],
    ),
    "ratios": (
        [("2:5", "2 to 5"), ("2:5", r"2\text{ to }5"), ("2:5", r"2 : 5"), (r"1:\sqrt{3}", r"1 : \sqrt{3}"),
        ("1:2:3", "1 : 2 : 3"), ("2:5", "2∶5"), ("5:3", "10:6")],
        [("2:5", "5:2"), ("2:5", "2 to 6"), ("2", "2:5"), ("2:5", "25"), ("1:2:3", "1:2"), ("10:30", "1:3"),
        ("12:05", "12:5"), (r"\frac{2}{7}", "2:7 or 3:7")],
    ),
    "matrices": (
        [
            (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
             r"\left[\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right]"),
            (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}"),
            (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\left(\begin{array}{r} 1 \\ 2 \end{array}\right)"),
            (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\left(\begin{smallmatrix} 1 \\ 2 \end{smallmatrix}\right)"),
            (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{matrix} 1 & 2 \end{matrix}"),
        ],
        [
            (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
             r"\left(\begin{array}{cc} 1 & 3 \\ 2 & 4 \end{array}\right)"),
            (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
            (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}"),
            ("3", r"\left(\begin{array}{cc} 3 & 3 \end{array}\right)"),
        ],
    ),
    "bases": (
        [("1011_2", r"1011_{\text{two}}"), ("1011_2", r"1011 \text{ base } 2"), ("24_5", r"24_{\text{five}}"),
        ("24_5", "24 (base 5)"), ("A3_{16}", r"A3_{\text{sixteen}}"), ("24_{5}", "(24)_5")],
        [("1011_2", r"1011_{\text{three}}"), ("1011_2", "1011 base 8"), ("1011", r"1011_{\text{two}}"),
        ("24_5", r"42_{\text{five}}"), ("24", "24 base 5")],
    ),
    "choices": (
        [("C", "(C) 15"), ("C", r"\textbf{(C)}~15"), ("C", "C. 15"), ("C", "C) fifteen"), ("C",
        "C: the third one"), (r"\textbf{(C)}\ 15", "C"), (r"\textbf{(C)}\ 15", "15"),
        (r"\textbf{(C)}\ 15", r"\text{(C) }15"),
         ("C", "Option C"), ("C", "Answer: C"), (r"\text{(A), (D)}", "A, D"), ("B", r"\mathbf{B}"),
         (r"(D)\ \frac{1}{2}", "0.5")],
        [("C", "(D) 15"), ("C", "C or D"), ("C", "(C) or (D)"), ("C", "C. or D."), ("C", "A) 3 C) 5"), ("C",
        "C, D"), (r"\textbf{(C)}\ 15", r"\textbf{(C)}\ 16"), (r"\textbf{(C)}\ 15", r"\textbf{(D)}\ 15"),
         ("A", "A cat"), ("C", "not C"), ("C", "C: no, D"), ("C", "CD"), ("C", "Any of A, B, C"),
         (r"\text{(A), (D)}", "A")],
    ),
    "words": (
        [("Paris", "paris"), ("east", "East"), ("blue whale", "Blue Whale"), (r"\text{odd}", "odd"),
        ("abc", r"\text{abc}"), ("Monday", r"\textbf{Monday}"), ("isosceles", "Isosceles."), ("cat", "the cat"),
         ("6ab", "6ba"), ("ab+bc", "b(a+c)"), ("2xy", r"2y \cdot x"), ("yes", "Yes")],
        [("cat", "act"), ("rat", "tar"), ("abc", "cba"), ("listen", "silent"), ("night", "thing"), ("ab", "ba"),
        ("Paris", "pairs"), ("dog", "god"), ("cat", "cta"), ("yes", "no"), ("eat", r"t \cdot e \cdot a"),
         (r"\text{stop}", "pots"), ("cat, dog", "act, god"), ("(cat, 1)", "(act, 1)"), ("5", "five cats or dogs"),
         ("x", "an x is not here")],
    ),
    "prose around the gold": (
        [("7", "x = 7"), ("7", "7."), ("7", "$7$"), ("7", r"\text{7}"), (r"\frac{3}{4}", r"$\frac{3}{4}$")],
        [
            (r"\frac{3}{4}", r"\text{It is not } \frac{3}{4}"), (r"\frac{3}{4}", r"\frac{1}{4} \lor \frac{3}{4}"),
            (r"\frac{3}{4}", r"\begin{cases} \frac{1}{4} \\ \frac{3}{4} \end{cases}"), (r"\frac{3}{4}", r"not \frac34"),
            ("7", "anything but 7"), ("7", r"7 \text{ is not it}"), ("7", "7 unless 8"), ("7", r"7 \lor 8"), ("7",
            "7 or 8"), (r"\sqrt{2}", r"\sqrt{2} \text{ or less}"), (r"\sqrt{2}", r"about \sqrt{2}"), ("7", "7?"),
            ("7", "7 | 8"),
            ("7", r"7 \to 8"), (r"x+1", r"x+1 maybe"), ("7", r"\text{if } x > 0, 7"), ("7", "7; 8"),
            ("7", r"7 \quad 8"), (r"\pi", r"\pi \text{ (not } e)"), ("7", r"\neg 7"), ("7", r"\sim 7"),
            ("7", r"\overline{7}"),
        ],
    ),
    "several signs": (
        [(r"\pm 2 \pm \sqrt{3}", r"2+\sqrt3, 2-\sqrt3, -2+\sqrt3, -2-\sqrt3"), ("3or4", "4, 3"),
        (r"x=1 \text{ or } x=-1", r"\pm 1"), ("2,3", "2，3"), ("2,3", "2、3"), ("(1,2)", "（1，2）"),
        ("3, 5", r"3 \text{ and } 5"), ("1, 2", r"\{1; 2\}")],
        [(r"\pm 2 \pm \sqrt{3}", r"2+\sqrt3, -2-\sqrt3"), ("3or4", "34"), ("3or4", "3"), ("2,3", "2、4"),
        (r"\pm 1", r"\pm 1, 2")],
    ),
    "layout": (
        [("17", r"\color{blue}{17}"), ("17", r"\color{red} 17"), ("17", r"\textcolor{red}{17}"),
        ("5", r"\begin{aligned} x &= 5 \end{aligned}"), ("12", r"\begin{aligned} x &= 3+9 \\ &= 12 \end{aligned}"),
        (r"x=1, y=2", r"\begin{cases} x=1 \\ y=2 \end{cases}"),
         ("5", r"\mathbf{5}"), ("5", r"\underline{5}"), ("5", r"\displaystyle 5"),
         (r"\frac{1}{2}", r"{1 \over 2}"), ("5", r"\bm{5}"), ("x>3", "x＞3"), ("5", r"\text{\textbf{5}}"),
         (r"[0,1]", r"\lbrack 0,1 \rbrack")],
        [("17", r"\color{blue}{18}"), ("12", r"\begin{aligned} x &= 12 \\ &= 13 \end{aligned}"),
        ("5", r"\begin{aligned} x &= 5 \\ y &= 6 \end{aligned}"), ("blue", r"\color{blue}{17}"), ("7", r"\phantom{8}")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_paid(grader: Grader, kind: str) -> None:
    right, _ = KINDS[kind]
    verdicts = grader.grade_many(right)
    refused = [pair for pair, verdict in zip(right, verdicts, strict=True) if verdict is not Verdict.RIGHT]
    assert not refused


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_answers_are_not(grader: Grader, kind: str) -> None:
    _, wrong = KINDS[kind]
    verdicts = grader.grade_many(wrong)
    paid = [pair for pair, verdict in zip(wrong, verdicts, strict=True) if verdict is Verdict.RIGHT]
    assert not paid


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"The answer is $\boxed 9$.", "9"), (r"$\boxed 42$", "42"), (r"\boxed -3.5, so", "-3.5"),
        (r"\boxed \frac{1}{2}.", r"\frac{1}{2}"),
        (r"\boxed{8} no, \boxed 9", "9"), (r"\boxed 9 no, \boxed{8}", "8"), (r"\boxed x", "x"),
        (r"\boxed{7", None), (r"\boxed", None),
        (r"\boxed and", None), (r"\boxedx", None),
    ],
)  # fmt: skip
def test_a_box_of_one_token(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content
