r"""Decide without the worker what can be decided, and say what is left to ask it.

The order of the rules: same text; numbers by exact value; words, choice letters, clock times and sign patterns as
text; equations with a name on the left by their right side; tuples, intervals, matrices element by element; lists and
sets in any order. What remains goes to math-verify.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from backtrack_mrt.grading.canonical import canonical, key, translate, words
from backtrack_mrt.grading.exact import Quantity, parse_quantity, same_unit, split_unit
from backtrack_mrt.grading.guards import SIGNS, refuse
from backtrack_mrt.grading.parts import NAMED, Parts, split_parts
from backtrack_mrt.grading.verdict import Verdict

RIGHT, WRONG, UNPARSABLE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE
MAX_PARTS = 16  # elements of a list or matrix that are compared one by one


@dataclass(frozen=True)
class Ask:
    """What the worker must answer: all ``pairs`` equal, or (``unordered``) equal after reordering the right sides."""

    pairs: tuple[tuple[str, str], ...]
    unordered: bool = False


_MEMBER = re.compile(r"^[A-Za-z] ?\\in(?![A-Za-z]) ?")
_SINGLETON = re.compile(r"^\\\{([^{},;]*(?:\{[^{}]*\}[^{},;]*)*)\\\}$")
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in|approx)(?![A-Za-z])")
_CHOICE = re.compile(r"\(?(?:\\text\{ ?)?\(?([A-Z])\)?(?: ?\})?\)?")
_LETTERS = re.compile(r"[A-Z](?:, ?[A-Z])+")
_CLOCK = re.compile(r"\d+(?::\d+)+(?: ?[ap]\.? ?m\.?)?", re.IGNORECASE)
_BASE = re.compile(r"(-?[0-9][0-9A-Z]*)_\{?(?:\\text\{)?(\d+)\}*")
_ONLY_TEXT = re.compile(r"\(?\\text\{([^{}]*)\}(?:_\{?\d+\}?)?\)?")
_PROSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.:;'\"&-]*")
_WORD = re.compile(r"[A-Z][a-z]+|[A-Za-z]{4,}|(?:yes|no|odd|even)\b|\d+(?:st|nd|rd|th)\b")
_FUNCTIONS = re.compile(r"\b(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infty)\b")


def judge(gold: str, answer: str, rel_tol: float | None) -> Verdict | Ask:
    """The verdict on ``answer``, or the question for the worker. Both are non-empty after stripping."""
    if SIGNS.fullmatch(gold):
        return RIGHT if answer.replace(" ", "") == gold else WRONG
    answer = translate(answer)
    if refuse(answer, gold) is not None:
        return UNPARSABLE
    return compare(_canonical_gold(gold), _plain(answer), rel_tol)


@lru_cache(maxsize=4096)
def _canonical_gold(gold: str) -> str:
    return _plain(translate(gold))


def _plain(text: str) -> str:
    # An approximate gold ("\\approx 8.24") is met by its number, with the sign (which `refuse` lets pass) or without.
    return canonical(text).removeprefix("\\approx").strip()


def compare(gold: str, answer: str, rel_tol: float | None) -> Verdict | Ask:
    """`judge` for canonical texts."""
    if not answer:
        return UNPARSABLE
    if key(gold) == key(answer):
        return RIGHT
    exact = parse_quantity(gold)
    if exact is not None:
        given = parse_quantity(answer)
        if given is not None:
            return _compare_quantities(exact, given, rel_tol)
    named = NAMED.match(answer)
    bare = answer[named.end() :] if named and "=" not in gold else answer
    spelled = _compare_text(gold, bare) if exact is None else None
    if spelled is not None:
        return spelled
    related = _compare_equations(gold, answer, rel_tol)
    if related is not None:
        return related
    if _BASE.fullmatch(bare):
        return WRONG  # 10_2 is not 10
    gold, answer = _SINGLETON.sub(r"\1", _MEMBER.sub("", gold)), _SINGLETON.sub(r"\1", _MEMBER.sub("", answer))
    if exact is not None and is_prose(answer):
        return WRONG
    wanted, offered = split_parts(gold), split_parts(answer)
    if wanted is not None and offered is not None:
        return _compare_parts(wanted, offered, rel_tol)
    if _RELATION.search(gold) or (_RELATION.search(answer) and offered is None):
        return Ask(((gold, answer),))
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
        gold, answer = (_hundredth(text) if sign else text for text, sign in ((gold, percent), (answer, percent_given)))
    return Ask(((gold, answer),))


def _hundredth(text: str) -> str:
    return rf"\frac{{{text}}}{{100}}"


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
    return RIGHT if any(_equal(gold.value, value, rel_tol) for value in values) else WRONG


def _equal(gold: Fraction, value: Fraction, rel_tol: float | None) -> bool:
    return gold == value if rel_tol is None else abs(value - gold) <= Fraction(rel_tol) * abs(gold)


def _compare_text(gold: str, answer: str) -> Verdict | None:
    """Golds that are words, letters, times, ratios or numerals of another base, compared as text; None for the rest."""
    choice = _CHOICE.fullmatch(gold)
    if choice:
        given = _CHOICE.fullmatch(answer)
        return RIGHT if given and given[1] == choice[1] else WRONG
    base = _BASE.fullmatch(gold)
    if base:
        bare = answer.replace(" ", "")
        given = _BASE.fullmatch(bare)
        return RIGHT if (given.groups() == base.groups() if given else bare == base[1]) else WRONG
    if not is_prose(gold):
        return None
    plain, given_plain = words(gold), words(answer)
    letters = _ONLY_TEXT.sub(r"\1", gold).strip()
    if _LETTERS.fullmatch(letters):
        return RIGHT if sorted(plain.split(",")) == sorted(given_plain.split(",")) else WRONG
    return RIGHT if plain == given_plain else WRONG


def is_prose(gold: str) -> bool:
    """Whether a canonical gold is read as words (or a time or ratio) and never as mathematics."""
    if _ONLY_TEXT.fullmatch(gold) or _CLOCK.match(gold):
        return True
    return bool(_PROSE.fullmatch(gold) and _WORD.search(gold)) and not _FUNCTIONS.search(gold) and "=" not in gold


def _compare_equations(gold: str, answer: str, rel_tol: float | None) -> Verdict | Ask | None:
    """``x = 5`` stands for 5 where the other side gives no name; of ``3 = 5`` every side must be the gold."""
    if "," in gold or "," in answer:
        return None
    gold_name, answer_name = NAMED.match(gold), NAMED.match(answer)
    if gold_name and answer_name:
        same = key(gold_name[0]).replace(" ", "") == key(answer_name[0]).replace(" ", "")
        return compare(gold[gold_name.end() :], answer[answer_name.end() :], rel_tol) if same else None
    if gold_name and not _RELATION.search(answer):
        return compare(gold[gold_name.end() :], answer, rel_tol)
    if _RELATION.search(gold):
        return None
    if answer_name:
        return compare(gold, answer[answer_name.end() :], rel_tol)
    sides = answer.split("=")
    if len(sides) < 2 or _RELATION.search("".join(sides)):
        return None
    if len(sides) > MAX_PARTS:
        return UNPARSABLE
    return _all([compare(gold, side.strip(), rel_tol) for side in sides])


def _all(results: list[Verdict | Ask]) -> Verdict | Ask:
    """Right if all are; otherwise the first that is not, before asking anything."""
    pairs: list[tuple[str, str]] = []
    for result in results:
        if isinstance(result, Verdict):
            if result is not RIGHT:
                return result
        elif result.unordered:
            return UNPARSABLE  # a list in a list with unclear elements: nobody's answer
        else:
            pairs += result.pairs
    return Ask(tuple(pairs)) if pairs else RIGHT


def _compare_parts(gold: Parts, answer: Parts, rel_tol: float | None) -> Verdict | Ask:
    if len(gold.elements) != len(answer.elements):
        return WRONG
    if gold.ordered and answer.ordered and gold.frame != answer.frame:
        return WRONG
    if gold.ordered or answer.ordered:
        # "1, 2" is taken for the pair (1, 2), never for an interval with a closed end or a set in braces.
        frames = {gold.frame, answer.frame}
        if len(frames) > 1 and frames != {"list", "()"}:
            return WRONG
        return _all([compare(g, a, rel_tol) for g, a in zip(gold.elements, answer.elements, strict=True)])
    if (gold.frame == "union") != (answer.frame == "union") or len(gold.elements) > MAX_PARTS:
        return WRONG
    return _match(gold.elements, answer.elements, rel_tol)


def _match(golds: tuple[str, ...], answers: tuple[str, ...], rel_tol: float | None) -> Verdict | Ask:
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
