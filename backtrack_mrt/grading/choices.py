r"""Answers of multiple choice: a letter, in whatever dress (``\textbf{(E)}\ 12``, "E.", "Option E"), with its text or
without."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LEAD = r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? ?)?"
_BARE = re.compile(rf"(?i:{_LEAD})\(?(?:\\text\{{ ?)?\(?([A-Z])\)?[.:]?(?: ?\}})?\)?")
_DRESSED = re.compile(rf"(?i:{_LEAD})(?:\\text\{{ ?)?(?:\(([A-J])\)|([A-J])[).:])(\}}?) ?(.+)", re.DOTALL)
_ANOTHER = re.compile(
    r"(?<![A-Za-z\\])[A-J](?![A-Za-z])|(?<![A-Za-z])(?:or|not|no|nor|but|maybe|wrong|false)(?![A-Za-z])|\\lor"
)


@dataclass(frozen=True)
class Choice:
    """The letter and the text of the option ("" if it is not given)."""

    letter: str
    text: str = ""


def parse_choice(text: str) -> Choice | None:
    """The choice that a canonical text makes, None if it is none or more than one."""
    bare = _BARE.fullmatch(text)
    if bare:
        return Choice(bare[1])
    dressed = _DRESSED.fullmatch(text)
    if dressed is None or _ANOTHER.search(dressed[4]):
        return None
    rest = dressed[4]
    if text.startswith("\\text{") and not dressed[3]:  # \text{(E) twelve}
        rest = rest.removesuffix("}") if rest.count("}") > rest.count("{") else rest
    return Choice(dressed[1] or dressed[2], rest.strip())
