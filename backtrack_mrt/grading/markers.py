r"""Where an answer stands in a text: in a box (mathematics), on a line ``Answer: …`` (text), in a fenced block (code);
or it is the whole message.

The grader says which marker its answers have (`Grader.marker`), a protocol may say otherwise (`protocol.marker`). What
a model wrote, the prompts that ask for it, the forced answers of the meta-prover and their likelihood all follow it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from backtrack_mrt.grading.extract import extract_boxed

MarkerName = Literal["boxed", "line", "fence"]  # those that a protocol may choose

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LINE = re.compile(r"^(?:\*\*)?(?:Final )?[Aa]nswer:(?:\*\*)?[ \t]*(\S[^\n]*)$", re.MULTILINE)
_FENCE = "```"
_FENCE_END = re.compile(r"^```[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, repr=False)
class Marker:
    """One way to mark an answer.

    missing: what a text without one lacks, in words.
    opening, lead, closing: what stands before it, between that and the answer, and behind it, as a model writes it.
    find: the last complete marked answer of a text. end_in: where a text goes on behind an answer that was begun
    before it; None where it does not end there. ended_by_message: whether the end of the message ends it, too.
    Both run in linear time: the text is untrusted.
    """

    name: str
    missing: str
    opening: str
    lead: str
    closing: str
    find: Callable[[str], str | None]
    end_in: Callable[[str], int | None]
    ended_by_message: bool = False

    def __repr__(self) -> str:
        return self.name.upper()

    def around(self, answer: str) -> str:
        """The answer, marked."""
        return f"{self.opening}{self.lead}{answer}{self.closing}".rstrip("\n")


def _end_of_box(text: str) -> int | None:
    depth = 1
    for brace in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return None


def _last_line(text: str) -> str | None:
    found = None
    for match in _LINE.finditer(text):
        found = match[1].replace("**", "").strip() or found
    return found


def _end_of_line(text: str) -> int | None:
    end = text.find("\n")
    return None if end < 0 else end + 1


def _last_block(text: str) -> str | None:
    """The last block between two lines of three backticks; the first of them may name a language."""
    found, start, at = None, None, 0
    for line in text.split("\n"):
        if line.startswith(_FENCE):
            if start is None:
                start = at + len(line) + 1
            elif line.strip() == _FENCE:
                found, start = text[start:at].strip("\n"), None
        at += len(line) + 1
    return found


def _end_of_block(text: str) -> int | None:
    end = _FENCE_END.search(text)
    return None if end is None else end.end()


BOXED = Marker("boxed", r"no balanced \boxed{…}", r"\boxed{", "", "}", extract_boxed, _end_of_box)
LINE = Marker("line", "no line 'Answer: …'", "Answer:", " ", "\n", _last_line, _end_of_line, ended_by_message=True)
FENCE = Marker("fence", "no complete block of code", "```python\n", "", "\n```", _last_block, _end_of_block)
MESSAGE = Marker("message", "no text", "", "", "", lambda text: text.strip() or None, lambda text: None, True)
MARKERS: dict[str, Marker] = {marker.name: marker for marker in (BOXED, LINE, FENCE)}
