"""Multiple choice: the letter of the right option, with its text or without, or the text alone.

The gold is a letter, "B) a dog", or an option's text; the options are read off the question ("A) a cat B) a dog", one
per line or in a row). A letter with the text of another option is wrong, and so are two letters. The answer stands on
a line ``Answer: …``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import ClassVar

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading.canonical import canonical, words
from backtrack_mrt.grading.choices import Choice, parse_choice
from backtrack_mrt.grading.guards import MAX_CHARS
from backtrack_mrt.grading.markers import LINE, Marker
from backtrack_mrt.grading.verdict import Verdict
from backtrack_mrt.types import Problem

_MARK = r"(?:\(([A-Z])\)|([A-Z])[).:])[ \t]+"
_OPTION, _LINE_OPTION = re.compile(rf"(?:^|(?<=\s)){_MARK}"), re.compile(rf"^\s*{_MARK}", re.MULTILINE)
_SMALL = re.compile(r"(\(?)([a-z])([).:]*)")


class MultipleChoice(Grader):
    """The letter of the right option, with its text or without."""

    summary: ClassVar[str] = "multiple choice: the option's letter, its text, or both"
    marker: ClassVar[Marker] = LINE
    listed: ClassVar[bool] = True

    def judge(self, problem: Problem, answer: str) -> Verdict | float:
        options = options_of(problem.question)
        gold, given = (_chosen(text, options) for text in (problem.answer, answer))
        if given is None or gold is None:
            return Verdict.UNPARSABLE if given is None and not options else Verdict.WRONG
        if gold.letter and given.letter and gold.letter != given.letter:
            return Verdict.WRONG
        texts = [choice.text or options.get(choice.letter, "") for choice in (gold, given)]
        if not (gold.letter and given.letter) and not all(texts):
            return Verdict.WRONG
        return float(not all(texts) or _plain(texts[0]) == _plain(texts[1]))

    def spellings(self, problem: Problem) -> tuple[str, ...]:
        options = options_of(problem.question)
        gold = _chosen(problem.answer, options)
        if gold is None or not gold.letter:
            return (problem.answer.strip(),)
        text = gold.text or options.get(gold.letter, "")
        with_text = (f"{gold.letter}) {text}", f"{gold.letter}. {text}", text) if text else ()
        return (gold.letter, f"({gold.letter})", f"{gold.letter})", f"{gold.letter}.", *with_text)


@lru_cache(maxsize=1024)
def options_of(question: str) -> dict[str, str]:
    """The options' texts by letter, A first and in order; empty where there are not two of them. The last ones that
    stand each on a line of its own go before those in a row ("take vitamin A. today")."""
    lines = list(_LINE_OPTION.finditer(question))
    start = max((place for place, mark in enumerate(lines) if _letter(mark) == "A"), default=0)
    return _options(question, lines[start:]) or _options(question, list(_OPTION.finditer(question)))


def _options(question: str, marks: list[re.Match[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, mark in enumerate(marks):
        following = marks[place + 1] if place + 1 < len(marks) else None
        if _letter(mark) == chr(ord("A") + len(found)):
            text = question[mark.end() : following.start() if following else None]
            found[_letter(mark)] = text.split("\n")[0].strip(" ;,")
    return found if len(found) > 1 else {}


def _letter(mark: re.Match[str]) -> str:
    return mark[1] or mark[2]


def _chosen(text: str, options: dict[str, str]) -> Choice | None:
    """The choice that a text makes: a letter (with a text), or an option's text."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        return None
    small = _SMALL.fullmatch(text)
    choice = parse_choice(f"{small[1]}{small[2].upper()}{small[3]}" if small else canonical(text))
    if choice is not None:
        return choice
    named = [letter for letter, option in options.items() if _plain(option) == _plain(text)]
    return Choice(named[0], text) if len(named) == 1 else None if options else Choice("", text)


def _plain(text: str) -> str:
    return words(canonical(text)).strip(" .").casefold()
