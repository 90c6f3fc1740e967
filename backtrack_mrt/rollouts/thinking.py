"""How chat templates have a model think before it answers, or not: the switches of published ones, and their marks.

Hybrid models think or not as a switch of their template says. Off, most templates begin the reply with an empty thought
(Qwen3, SmolLM3, Nemotron-3), on, some with an opened one. In earlier replies many cut thoughts out, unless told not to.
"""

from __future__ import annotations

import re

_SWITCHES = ("enable_thinking", "thinking")  # most models'; DeepSeek's and Granite's
_KEEP = {  # earlier thoughts are kept: what was said once must not read otherwise later
    "keep_past_thinking": True,  # LFM2.5
    "preserve_thinking": True,  # Qwen3.6
    "truncate_history_thinking": False,  # Nemotron-3
    "clear_thinking": False,  # GLM
}
_EMPTY = re.compile(r"(?:<think>\s*)?</think>\s*\Z")
_OPENED = re.compile(r"<think>\s*\Z")


def template_switches(thinking: bool) -> dict[str, bool]:
    """What a template is told. One that knows none of the words takes no notice."""
    return dict.fromkeys(_SWITCHES, thinking) | _KEEP


def without_empty_thought(begun: str) -> str | None:
    """How a reply is begun, but for the empty thought at the end; None if there is none."""
    found = _EMPTY.search(begun)
    return begun[: found.start()] if found else None


def opened_thought(begun: str) -> str:
    """The end of it that opens a thought; empty if none is opened."""
    found = _OPENED.search(begun)
    return found[0] if found else ""


def closed_thought(begun: str) -> str:
    """How a reply is begun, with an opened thought closed at once."""
    return f"{begun.rstrip()}\n\n</think>\n\n" if opened_thought(begun) else begun
