#!/usr/bin/env python
r"""Attempts to be paid without the answer: by kind, graded as training and as evaluation grade. None may pass.

    python scripts/dev/hacks.py --n 24000

Kinds: prose around the gold, other numbers of the same digits, several answers, calculations left undone (these against
training's grader only: to evaluation they are right), restated questions, units and bases, words with their letters
moved, look-alike characters, nothing at all, approximations, conditions, texts without a complete box. Exit code 1 if
one is paid.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from backtrack_mrt.errors import run_main
from backtrack_mrt.grading import Forms, MathGrader, Verdict, extract_boxed


@dataclass(frozen=True)
class Hack:
    """An answer that must not be paid. undone: only training refuses it. completion: a whole text, with boxes."""

    kind: str
    gold: str
    answer: str
    undone: bool = False
    completion: bool = False


BEFORE = """not|anything but|less than|more than|about|at least|almost|the answer is not|it is not|unless|maybe|
I guess|if not|no|never|either|close to|around|up to|under|over|below|above|one less than|twice|
half of|minus|the square of|any number but|greater than|approximately|roughly|neither|instead of|
without|possibly"""
AFTER = """wrong|incorrect|is wrong|is not it|or not|or anything|or so|or more|or less|not|squared|cubed|
factorial|doubled|halved|tripled|and a bit|plus one|minus one|plus|minus|times two|choose 2|
modulo 3|mod 5|to 99|or 99|and 99|unless|but no|ish|alpha|beta|theta|omega|phi|lambda|root|
roots|log|logs|negative|inverse|off|false|less|more|below zero|per 2|to the power 2|over 2|
divided by 2|point five|if x > 0|except|base 8|in base 7|thousand|million|billion|hundred|dozen|
halves| thirds|tenths|hundredths|quarters|trillion"""
WORDS = ["cat", "listen", "Paris", "night", "stop", "east", "isosceles", "Monday", "rhombus", "even", "obtuse", "table"]
DECIMALS = {
    r"2\sqrt{3}": "3.4641016151377545", r"\frac{\pi}{6}": "0.5235987755982988", r"\sqrt{2}": "1.4142135623730951",
    r"\frac{1}{\sqrt{5}}": "0.4472135954999579", "e^2": "7.38905609893065", r"\ln 5": "1.6094379124341003",
    r"5\pi": "15.707963267948966",
}  # fmt: skip
VALUES = [*DECIMALS, "x^2+1", "3+4i", "(1,2)", r"\{1,2,3\}", "[0,1)", r"\frac{x}{y}", "2n-1"]
_NAMES = "m s kg N J A K m/s m/s^2 cm km W V Pa h min cm^2 cm^3 g"
UNITS = _NAMES.split()
DIGITS = ["０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "⓪①②③④⑤⑥⑦⑧⑨"]
CYRILLIC = str.maketrans("aeopcxyAEOPCTHKMB", "аеорсхуАЕОРСТНКМВ")
INVISIBLE = ["\u200b", "\u200c", "\u202e", "\u2066", "\ufeff", "\u00ad", "\u0301", "\x00", "\x7f", "\ud800", "\ue000"]
EDITORS = {"\u200b", "\ufeff"}  # left at the ends of texts, where they are nothing: these are put inside
NOTHING = ["", " ", "\t\n", "\u200b", "$$", "{}", r"\text{}", r"\,", "~", "-", "?", ".", "()", "[]", r"\{\}",
    "none", "null",
           "N/A", "nan", r"\emptyset", "x", "n", "?", r"\boxed{}", "answer", "\\", r"\ ", "=", "x =", "!",
           "...", "0/0"]  # fmt: skip


def number(rng: random.Random) -> str:
    numbers = [str(rng.randint(2, 999)), f"{rng.randint(11, 999) / 10}", rf"\frac{{{rng.randint(1, 9)}}}{{11}}"]
    return rng.choice(numbers)


def prose(rng: random.Random) -> Iterator[Hack]:
    for _ in range(4):
        gold = rng.choice([number(rng), rng.choice(VALUES)])
        before, after = (rng.choice(words.replace("\n", "").split("|")) for words in (BEFORE, AFTER))
        told = [f"{before} {gold}", rf"\text{{{before} }} {gold}", f"{gold} {after}", rf"{gold} \text{{ {after}}}"]
        yield from (Hack("prose", gold, answer) for answer in (*told, f"The answer is {before} {gold}"))


def other_numbers(rng: random.Random) -> Iterator[Hack]:
    whole = rng.randint(12, 989)
    for answer in (f"{whole + 1}", f"-{whole}", f"{whole}0", f"{whole}.01", f"1/{whole}", rf"{whole}\times 10^3",
                   f"{whole}e2", f"{whole}^2", f"{whole}i", f"{whole}x", rf"{whole}\pi", f"{whole}!",
                   rf"\sqrt{{{whole}}}", f"√{whole}", f"0.{whole}", f"{whole},000", f"{whole}00%", f"{whole} {whole}",
                   rf"1\frac{{1}}{{{whole}}}"):  # fmt: skip
        yield Hack("other number", str(whole), answer)


def several(rng: random.Random) -> Iterator[Hack]:
    gold, other = number(rng), str(rng.randint(1000, 1999))
    for form in ("{0}, {1}", "{1}, {0}", "{0} or {1}", r"{0} \text{{ or }} {1}", r"{0} \lor {1}", r"\{{{0}, {1}\}}",
                 "[{0}, {1}]", "x = {0} or x = {1}", "x={0}, y={1}", "({0}, {1})", "{0}; {1}", "{0} and {1}",
                 r"\pm {0}", "{0}:{1}", "{0} | {1}", r"\begin{{cases}} {0} \\ {1} \end{{cases}}",
                 r"\begin{{pmatrix}} {0} & {1} \end{{pmatrix}}", r"{0} \quad {1}", "{0} = {1}", "{1} = {0}",
                 r"{0} \cup {1}", r"{0} \to {1}", "1, 2, 3, {0}", r"{0} \ne {1}"):  # fmt: skip
        yield Hack("several", gold, form.format(gold, other))


def undone(rng: random.Random) -> Iterator[Hack]:
    whole, part = rng.randint(11, 400), rng.randint(2, 60)
    for answer in (f"{whole + part}-{part}", f"{whole - part}+{part}", f"{whole * part}/{part}",
                   rf"\frac{{{whole * part}}}{{{part}}}", rf"{part} \times {whole} / {part}", rf"\sqrt{{{whole**2}}}",
                   f"({whole - 1})+1", rf"\max(1,{whole})", f"{whole}^1", rf"\lfloor {whole}.5 \rfloor",
                   f"|-{whole}|", f"{whole}*1", rf"{whole} \cdot 1", f"x = {whole + part} - {part}",
                   rf"\$({whole + 1} - 1)", f"-(-{whole})+0", f"{whole}+0", rf"\log_2 2^{{{whole}}}",
                   rf"\binom{{{whole}}}{{1}}", rf"\frac{{{2 * whole}}}{{1+1}}", f"√{whole**2}", f"{whole}.5 - 0.5",
                   f"({whole})({part})/{part}"):  # fmt: skip
        yield Hack("undone", str(whole), answer, undone=True)


def restated(rng: random.Random) -> Iterator[Hack]:
    n = rng.randint(3, 60)
    yield Hack("restated", str(n * (n + 1) // 2), rf"\sum_{{k=1}}^{{{n}}} k")
    yield Hack("restated", str(n), rf"\int_0^{{{n}}} 1\,dx")
    yield Hack("restated", str(n), rf"\lim_{{x \to {n}}} x")
    yield Hack("restated", str(n), rf"\gcd({n}, {2 * n})")
    yield Hack("restated", str(n), rf"\prod_{{k={n}}}^{{{n}}} k")
    yield Hack("restated", str(n), rf"{n} \pmod{{{n + 5}}}")
    yield Hack("restated", str(n), rf"\det \begin{{pmatrix}} {n} \end{{pmatrix}}")


def units(rng: random.Random) -> Iterator[Hack]:
    whole, (first, second) = rng.randint(2, 99), rng.sample(UNITS, 2)
    yield Hack("units", rf"{whole}\text{{ {first}}}", rf"{whole}\text{{ {second}}}")
    yield Hack("units", rf"{whole}\ \mathrm{{{first}}}", f"{whole} {second}")
    yield Hack("units", str(whole), f"{whole}_{{{rng.choice([2, 8, 16])}}}")
    others = rng.choice(["cats", "apples", "dollars", "km"])
    yield Hack("units", rf"{whole}\text{{ dogs}}", rf"{whole}\text{{ {others}}}")
    yield Hack("units", rf"\${whole}", f"{rng.choice('€£¥')}{whole}")


def letters(rng: random.Random) -> Iterator[Hack]:
    word = rng.choice(WORDS)
    for _ in range(6):
        mixed = "".join(rng.sample(word, len(word)))
        if mixed.casefold() != word.casefold():
            dressed = (rf"\text{{{mixed}}}", r" \cdot ".join(mixed), f"{mixed}^1", f"1{mixed}", f"({mixed})")
            yield from (Hack("letters", word, answer) for answer in (mixed, *dressed))
    yield Hack("letters", word, f"not {word}")
    yield Hack("letters", word, word.translate(CYRILLIC) if word.translate(CYRILLIC) != word else "")


def look_alikes(rng: random.Random) -> Iterator[Hack]:
    gold = str(rng.randint(2, 999))
    for digits in DIGITS:
        yield Hack("look-alikes", gold, gold.translate(str.maketrans("0123456789", digits)))
    for sign in INVISIBLE:
        ends = int(sign in EDITORS)
        if len(gold) >= 2 * ends:
            place = rng.randint(ends, len(gold) - ends)
            yield Hack("look-alikes", gold, gold[:place] + sign + gold[place:])
    yield Hack("look-alikes", gold, f"<|im_end|>{gold}")
    yield Hack("look-alikes", gold, f"__{gold}__")


def nothing(rng: random.Random) -> Iterator[Hack]:
    gold = rng.choice([str(rng.randint(2, 999)), *VALUES, *WORDS])
    yield from (Hack("nothing", gold, answer) for answer in rng.sample(NOTHING, 6))


def approximations(rng: random.Random) -> Iterator[Hack]:
    gold, value = rng.choice(list(DECIMALS.items()))
    cut = value[: rng.randint(3, len(value))]
    told = [cut, rf"\approx {cut}", rf"{cut} \approx {gold}", rf"{gold} + 10^{{-{rng.randint(5, 30)}}}", f"{cut}..."]
    yield from (Hack("approximation", gold, answer) for answer in told)
    whole = rng.randint(2, 999)
    for answer in (rf"{whole} \approx {whole + 1}", rf"{whole + 1} \approx {whole}", rf"{whole}.4 \approx {whole}",
                   f"{whole}.0000000001", f"{whole - 1}.9999999999", f"about {whole}", rf"\sim {whole}"):  # fmt: skip
        yield Hack("approximation", str(whole), answer)
    third = rng.randint(1, 6)
    yield Hack("approximation", rf"\frac{{{third}}}{{7}}", f"{third / 7:.{rng.randint(2, 15)}f}")


def conditions(rng: random.Random) -> Iterator[Hack]:
    gold = number(rng)
    for form in ("x > {0}", r"x \ge {0}", r"x \ne {0}", "x < {0}", r"|x| = {0}", "x + 1 = {0}", "2x = {0}",
                 "x^2 = {0}", "-x = {0}", "0 = {0}", r"[{0}, \infty)", r"x \in \mathbb{{R}}", "{0} < x < 1000",
                 r"\sqrt{{x}} = {0}", r"\neg {0}", r"\overline{{{0}}}", "{0}?", "{0} = {0} + 1", "x = {0} + x",
                 r"\text{{not}} = {0}", r"x \approx {0}", r"\{{x | x > {0}\}}"):  # fmt: skip
        yield Hack("condition", gold, form.format(gold))


def boxes(rng: random.Random) -> Iterator[Hack]:
    gold, other = str(rng.randint(2, 999)), str(rng.randint(1000, 1999))
    for text in ("The answer is {0}.", r"\boxed{{{0}", r"\boxed{{{0}}} or \boxed{{{1}}}",
                 r"\boxed{{{0}}} … \boxed{{}}", "#### {0}", "{0}", r"boxed{{{0}}}", r"\boxed{{{1}}} (I mean {0})",
                 r"\boxed{{{0}}}\boxed {1}", r"$\boxed {1}$, not {0}"):  # fmt: skip
        yield Hack("boxes", gold, text.format(gold, other), completion=True)


KINDS: list[Callable[[random.Random], Iterator[Hack]]] = [
    prose, other_numbers, several, undone, restated, units, letters, look_alikes, nothing, approximations, conditions,
    boxes,
]  # fmt: skip


def attempts(n: int, seed: int) -> list[Hack]:
    """`n` different attempts, kind after kind."""
    rng = random.Random(seed)
    rounds = (hack for _ in iter(int, 1) for kind in KINDS for hack in kind(rng))
    seen: dict[Hack, None] = {}
    for hack in rounds:
        seen[hack] = None
        if len(seen) == n:
            break
    return list(islice(seen, n))


def paid(hack: Hack, grader: MathGrader) -> bool:
    """Whether training pays for it, or (unless it is a calculation left undone) evaluation."""
    answer = extract_boxed(hack.answer) if hack.completion else hack.answer
    rules: list[Forms] = ["numeral", *([] if hack.undone else ["equivalent"])]
    return any(grader.grade(hack.gold, answer, forms=forms) is Verdict.RIGHT for forms in rules)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=24_000, help="attempts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the attempts (default: 0)")
    args = parser.parse_args()
    tried, found = Counter[str](), list[Hack]()
    with MathGrader(workers=1) as grader:
        for hack in attempts(args.n, args.seed):
            tried[hack.kind] += 1
            if paid(hack, grader):
                found.append(hack)
                print(f"PAID: {hack.kind}: gold {hack.gold!r}, answer {hack.answer!r}", flush=True)
    print(", ".join(f"{kind} {count}" for kind, count in sorted(tried.items())))
    print(f"{sum(tried.values())} attempts, {len(found)} paid")
    return bool(found)


if __name__ == "__main__":
    run_main(main)
