r"""Decide without the worker what can be decided, and say what is left to ask it.

The order of the rules: same text; numbers by exact value and unit; an exact value with its rounding; names on the left
of an equals sign; choice letters; numerals of a base, ratios and times; words; sets of real numbers; tuples, matrices
and lists element by element. What remains goes to math-verify, if all of it can be read as mathematics.
"""

from __future__ import annotations

import re
from functools import lru_cache

from backtrack_mrt.grading.canonical import canonical, key
from backtrack_mrt.grading.choices import parse_choice
from backtrack_mrt.grading.exact import NEAR, Quantity, fits, parse_quantity, rounded_value, split_rounding, split_unit
from backtrack_mrt.grading.guards import SIGNS, refuse
from backtrack_mrt.grading.labels import split_label
from backtrack_mrt.grading.notations import is_clock, parse_base, proportional, split_ratio
from backtrack_mrt.grading.parts import MAX_PARTS, Parts, split_parts
from backtrack_mrt.grading.prose import is_prose, is_run, same_words
from backtrack_mrt.grading.question import Ask, all_of
from backtrack_mrt.grading.reading import is_mathematics
from backtrack_mrt.grading.regions import Region, is_told, parse_region, same_interval
from backtrack_mrt.grading.spellings import translate
from backtrack_mrt.grading.units import same_unit
from backtrack_mrt.grading.verdict import Verdict

RIGHT, WRONG, UNPARSABLE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
Result = Verdict | Ask

_MEMBER = re.compile(r"^[A-Za-z] ?\\in(?![A-Za-z]) ?")
_SINGLETON = re.compile(r"^\\\{(?!\\emptyset)((?:[^{},;()]|\{[^{}]*\}|\([^()]*\))*)\\\}$")
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in|approx)(?![A-Za-z])")
_APART = re.compile(r"\d +\.?\d")  # "1 2" is not 12, and no product either
_PRODUCT = re.compile(r"\\(?:cdot|times)(?![A-Za-z])|[*^]")


def judge(gold: str, answer: str, rel_tol: float | None) -> Result:
    """The verdict on ``answer``, or the question for the worker. Both are non-empty after stripping."""
    if SIGNS.fullmatch(gold):
        return RIGHT if answer.replace(" ", "") == gold else WRONG
    answer = translate(answer)
    if refuse(answer, gold) is not None:
        return UNPARSABLE
    return compare(plain_gold(gold), plain(answer), rel_tol)


@lru_cache(maxsize=4096)
def plain_gold(gold: str) -> str:
    """`plain` of a gold, which comes again and again."""
    return plain(translate(gold))


def plain(text: str) -> str:
    r"""The canonical text. Of an approximate gold (``\approx 8.24``) the number: it is met with the sign or without."""
    return canonical(text).removeprefix(NEAR).strip()


def compare(gold: str, answer: str, rel_tol: float | None) -> Result:
    """`judge` for canonical texts."""
    if not answer:
        return UNPARSABLE
    if key(gold) == key(answer):
        return RIGHT
    exact = parse_quantity(gold, gold=True)
    if exact is not None:
        given = parse_quantity(answer)
        if given is not None:
            return _compare_quantities(exact, given, rel_tol)
    if NEAR in answer and NEAR not in gold:
        return _compare_rounded(gold, answer, exact, rel_tol)
    for rule in (_compare_labels, _compare_choices, _compare_notations, _compare_words, _compare_regions):
        result = rule(gold, answer, rel_tol)
        if result is not None:
            return result
    if exact is not None and is_prose(answer):
        return WRONG
    return _compare_parts_or_ask(gold, answer, rel_tol)


def _compare_quantities(gold: Quantity, answer: Quantity, rel_tol: float | None) -> Verdict:
    """Exact values, and units that do not contradict each other.

    A percent sign on one side only: 9% as the gold is met by 9 and by 0.09. As the answer, 9% is 0.09 to a gold
    below one and reads as "9, in percent" otherwise, so that 700% is not 7.
    """
    if not same_unit(gold.unit, answer.unit):
        return WRONG
    values = [answer.value]
    if gold.percent and not answer.percent:
        values.append(answer.value * 100)
    elif answer.percent and not gold.percent and abs(gold.value) < 1:
        values = [answer.value / 100]
    if rel_tol is None:
        return RIGHT if gold.value in values else WRONG
    return RIGHT if any(abs(value - gold.value) <= rel_tol * abs(gold.value) for value in values) else WRONG


def _compare_rounded(gold: str, answer: str, exact: Quantity | None, rel_tol: float | None) -> Result:
    """The exact side must be the gold, the other one its rounding."""
    sides = split_rounding(answer)
    if sides is None:
        return UNPARSABLE
    stated = compare(gold, sides[0], rel_tol)
    if exact is not None or stated in (WRONG, UNPARSABLE):
        value = exact.value if exact is not None and rel_tol is None else None
        return UNPARSABLE if value is None or not fits(value, sides[1]) else stated
    read = rounded_value(sides[1])
    if read is None:
        return UNPARSABLE
    label = split_label(gold)
    near = Ask((), near=((label[1] if label else gold, str(read[0]), str(read[1])),))
    return all_of([stated, near])


def _compare_choices(gold: str, answer: str, rel_tol: float | None) -> Result | None:
    """A letter against a letter; where both give the option's text, the texts as well; the gold's text by itself."""
    wanted, given = parse_choice(gold), parse_choice(answer)
    if wanted is None:
        return compare(gold, given.text, rel_tol) if given and given.text else None
    if given is None:
        return compare(wanted.text, answer, rel_tol) if wanted.text else WRONG
    if given.letter != wanted.letter:
        return WRONG
    return compare(wanted.text, given.text, rel_tol) if wanted.text and given.text else RIGHT


def _compare_notations(gold: str, answer: str, rel_tol: float | None) -> Result | None:
    """Numerals of another base, ratios and times; 10_2 and 10:2 are not 10."""
    base, given_base = parse_base(gold), parse_base(answer)
    if base:
        return RIGHT if (base == given_base if given_base else answer.replace(" ", "") == base[0]) else WRONG
    if given_base:
        return WRONG
    terms = split_ratio(gold)
    if terms is None:
        if not re.fullmatch(r"[\d.]+(?::[\d.]+)+", answer):
            return None
        # A fraction may be told as a ratio; a whole number or a decimal (which may be a time) may not.
        quotient = "/" in gold or "\\frac" in gold
        return RIGHT if quotient and proportional([gold, "1"], answer.split(":")) else WRONG
    if is_clock(gold):
        return RIGHT if same_words(gold, answer) else WRONG
    given = split_ratio(answer)
    if given is None:
        given = [answer, "1"] if len(terms) == 2 else []
    if len(given) != len(terms):
        return WRONG
    return (
        RIGHT
        if proportional(terms, given)
        else all_of([compare(g, a, rel_tol) for g, a in zip(terms, given, strict=True)])
    )


def _compare_words(gold: str, answer: str, rel_tol: float | None) -> Verdict | None:
    """Golds that are words, as text. Two letters may be a product, where the answer writes one: xy and y·x."""
    if parse_quantity(gold, gold=True) is not None or not is_prose(gold):
        return None
    if is_run(gold) and len(gold) == 2 and gold.islower() and _PRODUCT.search(answer):
        return None
    return RIGHT if same_words(gold, answer) else WRONG


def _compare_labels(gold: str, answer: str, rel_tol: float | None) -> Result | None:
    """``x = 5`` stands for 5 where the other side gives no name; of ``3 = 5`` every side must be the gold."""
    if "=" not in gold + answer or "," in gold or ("," in answer and not answer.endswith((")", "]", "}"))):
        return None
    wanted, given = split_label(gold), split_label(answer)
    if wanted and given:
        return compare(wanted[1], given[1], rel_tol) if key(wanted[0]) == key(given[0]) else None
    if wanted and not _RELATION.search(answer):
        return compare(wanted[1], answer, rel_tol)
    if _RELATION.search(gold):
        return None
    if given:
        return compare(gold, given[1], rel_tol)
    sides = answer.split("=")
    if len(sides) < 2 or _RELATION.search("".join(sides)):
        return None
    return all_of([compare(gold, side.strip(), rel_tol) for side in sides]) if len(sides) <= MAX_PARTS else UNPARSABLE


def _compare_regions(gold: str, answer: str, rel_tol: float | None) -> Result | None:
    """Sets of real numbers, where one side is told so that it can be nothing else."""
    if not (is_told(gold) or is_told(answer)):
        return None
    wanted, given = parse_region(gold), parse_region(answer)
    if wanted is None or given is None:
        return None
    if wanted.name and given.name and wanted.name != given.name:
        return WRONG
    if wanted.rational and given.rational:
        return RIGHT if _ends(wanted) == _ends(given) else WRONG
    left = list(given.pieces)
    results: list[Result] = []
    for piece in wanted.pieces:
        match = next((other for other in left if same_interval(piece, other)), None)
        if match is None:
            return WRONG
        left.remove(match)
        results += [compare(piece.low, match.low, rel_tol), compare(piece.high, match.high, rel_tol)]
    return WRONG if left else all_of(results)


def _compare_parts_or_ask(gold: str, answer: str, rel_tol: float | None) -> Result:
    gold, answer = _SINGLETON.sub(r"\1", _MEMBER.sub("", gold)), _SINGLETON.sub(r"\1", _MEMBER.sub("", answer))
    wanted, offered = split_parts(gold), split_parts(answer)
    if wanted is not None and offered is not None:
        return _compare_parts(wanted, offered, rel_tol)
    if _RELATION.search(gold) or (_RELATION.search(answer) and offered is None):
        return _ask(gold, answer)
    if (wanted is None) != (offered is None):
        # One value against several: listing every candidate, or half of the solutions, is not an answer.
        return WRONG
    gold, percent, unit = split_unit(gold)
    answer, percent_given, unit_given = split_unit(answer)
    if not same_unit(unit, unit_given):
        return WRONG
    if not answer or "%" in answer:
        return UNPARSABLE
    if percent != percent_given:
        sides = ((gold, percent), (answer, percent_given))
        gold, answer = (rf"\frac{{{text}}}{{100}}" if sign else text for text, sign in sides)
    return _ask(gold, answer)


def _ask(gold: str, answer: str) -> Result:
    if _APART.search(answer):
        return WRONG
    return Ask(((gold, answer),)) if is_mathematics(answer, gold) else UNPARSABLE


def _compare_parts(gold: Parts, answer: Parts, rel_tol: float | None) -> Result:
    if len(gold.elements) != len(answer.elements):
        return WRONG
    if gold.ordered and answer.ordered and gold.frame != answer.frame:
        return WRONG
    if gold.ordered or answer.ordered:
        # "1, 2" is taken for the pair (1, 2), never for an interval with a closed end or a set in braces.
        frames = {gold.frame, answer.frame}
        if len(frames) > 1 and frames != {"list", "()"}:
            return WRONG
        return all_of([compare(g, a, rel_tol) for g, a in zip(gold.elements, answer.elements, strict=True)])
    if (gold.frame == "union") != (answer.frame == "union") or len(gold.elements) > MAX_PARTS:
        return WRONG
    return _match(gold.elements, answer.elements, rel_tol)


def _match(golds: tuple[str, ...], answers: tuple[str, ...], rel_tol: float | None) -> Result:
    """Whether the answers are the golds in some order; asks only about the elements that no rule can pair."""
    left = list(answers)
    unclear: list[str] = []
    for gold in golds:
        results = [compare(gold, answer, rel_tol) for answer in left]
        if RIGHT in results:
            del left[results.index(RIGHT)]
        elif all(isinstance(result, Verdict) for result in results):
            return WRONG
        else:
            unclear.append(gold)
    return Ask(tuple(zip(unclear, left, strict=True)), unordered=True) if unclear else RIGHT


def _ends(region: Region) -> list[tuple[object, ...]]:
    return [(_number(p.low), p.low_in, _number(p.high), p.high_in) for p in region.pieces]


def _number(end: str) -> object:
    quantity = parse_quantity(end)
    return end if quantity is None else quantity.value
