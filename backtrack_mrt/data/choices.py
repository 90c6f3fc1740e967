"""Multiple choice as data sets have it: options in one column (a list, texts with labels, a mapping) or in several, the
right one as a number, a letter, a label, a text, or marks. The question then shows all, one a line ("A) …"), and the
gold is the right one's letter.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from backtrack_mrt.graders.base import Grader

OPTION_COLUMNS = ("choices", "options", "endings")
RIGHT_COLUMNS = ("answerKey", "answer_idx", "answer_index", "answer", "label", "cop", "correct", "correct_answer")

# Columns with an option each, by how their names end and how they begin (opa, opb, …; A, B, …; ending0, …).
_SERIES = {
    "abcdefghij": ("op", "option_", "choice_"),
    "ABCDEFGHIJ": ("", "option", "option_", "choice", "choice_", "answer"),
    "0123456789": ("option", "option_", "choice", "choice_", "ending"),
    "12": ("sol",),  # of PIQA, which counts from 0
    "123456789": ("option", "option_", "choice", "choice_"),
}
_TEXTS, _LABELS = ("text", "texts", "choices", "options"), ("label", "labels")
_LETTERED = re.compile(r"\(?([A-Z])[).:]\s*(?=\S)")
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


@dataclass(frozen=True)
class Options:
    """Texts of the options, and what the data set calls each, if it does."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def posed(self, asked: str, right: int, grader: Grader) -> tuple[str, str]:
        """The question with all options behind it, one a line, and its gold: the letter of the right one, or its text
        where the grader wants no letters."""
        lines = [f"{letter}) {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False)]
        letter = ascii_uppercase[right]
        return "\n".join([asked, *lines]), letter if grader.refusal(letter) is None else self.texts[right]

    def right(self, value: Any, first: int) -> int | str:
        """Which one the value names: its place, or why it is none. `first` is the number of the first option. Raises
        ValueError where the options seem to be counted from 1."""
        if isinstance(value, list):  # marks: one for each
            marked = [place for place, mark in enumerate(value) if mark in (1, True)]
            return marked[0] if len(marked) == 1 and len(value) == len(self.texts) else f"marks no single one: {value}"
        if isinstance(value, bool) or not isinstance(value, (int, float, str)) or not str(value).strip():
            return "names none of its options" if value in (None, "") else f"names none of its options: {value!r}"
        said = str(int(value)) if isinstance(value, float) and value.is_integer() else _line(str(value))
        letters = ascii_uppercase[: len(self.texts)]
        written = [place for place, text in enumerate(self.texts) if text == said]
        if isinstance(value, str):
            if said in self.labels:
                return self.labels.index(said)
            if (letter := _LETTER.fullmatch(said)) and letter[1].upper() in letters:
                return letters.index(letter[1].upper())
            if len(written) == 1:
                return written[0]
        if said.isdecimal() and 0 <= int(said) - first < len(self.texts):
            return int(said) - first
        if said == str(len(self.texts)):
            raise ValueError(f"counts its options from 1, it seems: the right one of {said} is {said}")
        return f"is none of its {len(self.texts)} options: {said[:60]}"

    def shuffled(self, asked: str, right: int) -> tuple[Options, int]:
        """In another order, the same for the same question. Where rows say none, the right one stands first."""
        order = random.Random(f"options/{asked}").sample(range(len(self.texts)), len(self.texts))
        return Options(tuple(self.texts[k] for k in order)), order.index(right)


def count_from_1(columns: Sequence[str]) -> bool:
    """Whether these columns are numbered from 1, so that a right one's number may count from there, too."""
    return any(columns[:1] == [f"{beginning}1"] for beginning in _SERIES["123456789"])


def option_columns(row: Mapping[str, Any]) -> list[str]:
    """The columns that hold options, by a file's first row: one with all of them, or one each, or none."""
    for name in OPTION_COLUMNS:
        if name in row and (row[name] is None or isinstance(_read(row[name]), (list, Mapping))):
            return [name]
    for ends, beginnings in _SERIES.items():
        for beginning in beginnings:
            names = list(takewhile(row.__contains__, (beginning + end for end in ends)))
            if len(names) > 1:
                return names
    return []


def options_in(cells: Sequence[Any]) -> Options | None:
    """The options of a row, by its cells of the columns that hold them; None where there are not two. Raises ValueError
    for what cannot be read."""
    found = [_read(cell) for cell in cells]
    last = max((place for place, text in enumerate(found, 1) if text not in (None, "")), default=0)
    given = found[0] if len(found) == 1 else found[:last]
    labels: Sequence[Any] = ()
    if isinstance(given, Mapping):
        texts = next((given[name] for name in _TEXTS if isinstance(given.get(name), list)), None)
        labels = next((given[name] for name in _LABELS if isinstance(given.get(name), list)), ())
        given, labels = (list(given.values()), list(given)) if texts is None else (texts, labels)
    if given in (None, "", []):
        return None
    if not isinstance(given, list) or not all(isinstance(text, (str, int, float)) for text in given):
        raise ValueError(f"is no list of options: {str(given)[:60]}")
    texts = [_line(str(text)) for text in given]
    if not 2 <= len(texts) <= len(ascii_uppercase) or not all(texts):
        raise ValueError(f"has {len([text for text in texts if text])} options")
    marks = [_LETTERED.match(text) for text in texts]
    if all(mark and mark[1] == letter for mark, letter in zip(marks, ascii_uppercase, strict=False)):
        texts = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]  # "A) a cat"
    named = tuple(map(str, labels))
    return Options(tuple(texts), named if len(set(named)) == len(texts) else ())


def _read(cell: Any) -> Any:
    """A cell of a column, also where it is written as JSON or as Python writes a list."""
    if isinstance(cell, str) and cell[:1] in ("[", "{"):
        try:
            return ast.literal_eval(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return cell
    return cell


def _line(text: str) -> str:
    return " ".join(text.split())
