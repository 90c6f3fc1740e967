r"""Words: answers that are compared as a reader hears them, and never as products of letters."""

from __future__ import annotations

import re

from backtrack_mrt.grading.canonical import words

_ONLY_TEXT = re.compile(r"\(?\\text\{([^{}]*)\}(?:_\{?\d+\}?)?\)?")
_PROSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.:;'\"&-]*")
_WORD = re.compile(r"[A-Z][a-z]+|[A-Za-z]{4,}|(?:yes|no|odd|even)\b|\d+(?:st|nd|rd|th)\b")
_RUN = re.compile(r"(?:(?:the|an?) )?[A-Za-z]{2,}")
_LETTERS = re.compile(r"\(?[A-Z]\)?(?:, ?\(?[A-Z]\)?)+")


def is_prose(text: str) -> bool:
    """Whether a canonical text is read as words and never as mathematics: several letters that name no function (those
    have a backslash by now), or a sentence."""
    if _ONLY_TEXT.fullmatch(text) or _RUN.fullmatch(text):
        return True
    return bool(_PROSE.fullmatch(text) and _WORD.search(text)) and "=" not in text


def is_run(text: str) -> bool:
    """Whether a text is nothing but several letters."""
    return len(text) > 1 and text.isalpha() and text.isascii()


def same_words(gold: str, answer: str) -> bool:
    """Whether two texts say the same; letters of several choices in any order."""
    plain, given = words(gold), words(answer)
    if _LETTERS.fullmatch(_ONLY_TEXT.sub(r"\1", gold).strip()):
        bare = [text.replace("(", "").replace(")", "") for text in (plain, given)]
        return sorted(bare[0].split(",")) == sorted(bare[1].split(","))
    return plain == given
