"""Demonstrations of backtracking search, written as the one message of the `inline` protocol."""

from __future__ import annotations

import re
from dataclasses import replace

from backtrack_mrt.data.demonstrations.files import Demonstration, Span

_ERROR = re.compile(r"^Error in step [0-9]", re.MULTILINE)
_TARGET = re.compile(r"^Backtrack to step ([0-9]{1,3})", re.MULTILINE)


def in_one_message(demonstration: Demonstration) -> Demonstration:
    """The same turns in one message, each on lines of its own, returning to lines instead of steps. What was not learnt
    is not learnt in it. A last check that finds an error is left out: nothing comes of it."""
    turns, spans = list(demonstration.turns), list[Span]()
    if any(_ERROR.search(span.text) for span in turns[-1]):
        turns.pop()
    for number, turn in enumerate(turns):
        if number:
            spans.append(Span("\n"))
        spans += [replace(span, text=inline_text(span.text)) for span in turn]
    return replace(demonstration, turns=(tuple(spans),))


def inline_text(text: str) -> str:
    """A text of the `backtrack` protocol in the words of `inline`."""
    return _TARGET.sub(lambda found: f"Backtrack to {f'line {found[1]}' if int(found[1]) else 'the beginning'}", text)
