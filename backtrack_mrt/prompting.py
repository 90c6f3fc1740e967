"""Prompt files: ``prompts/<protocol>/<style>/<name>.md``, one per phase and two for the forced answer.

A placeholder is ``<<name>>``, which LaTeX does not own. The final newline of a file is not part of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from backtrack_mrt.errors import UserError, did_you_mean

_PLACEHOLDER = re.compile(r"<<([a-z_]+)>>")
QUESTION, FORCE, FORCE_PREFIX = "question", "force", "force_prefix"  # files every style has, besides its phases
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one protocol in one style, by name: the protocol's phases, `force` (the meta-prover's "answer
    now" instruction), `force_prefix` (how that answer is begun for the model) and optionally `system`."""

    texts: Mapping[str, str]

    def render(self, name: str, fields: Mapping[str, str]) -> str:
        """The prompt `name` with its placeholders filled in one pass: contents are not searched for placeholders."""
        return _PLACEHOLDER.sub(lambda match: fields[match[1]], self.texts[name])

    def opening(self, name: str, question: str, fields: Mapping[str, str]) -> str:
        """The first message of a conversation: the question, then the prompt `name`."""
        return self.render(QUESTION, {"question": question, "instruction": self.render(name, fields)})

    @property
    def system(self) -> str | None:
        return self.texts.get("system")


def load_prompts(protocol: str, style: str) -> Prompts:
    """The prompt files of `protocol` (a name, or a directory of the user's) in `style`. Raises UserError if missing,
    or if a file holds a control character (a written ``\\b`` where ``\\boxed`` was meant)."""
    own = Path(protocol)
    root = own if own.is_dir() else Path(str(files("backtrack_mrt.prompts"))) / protocol.replace("-", "_")
    folder = root / style
    if not folder.is_dir():
        styles = [p.name for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
        raise UserError("prompt_style", style, f"no directory {folder}", did_you_mean(style, styles))
    texts = {}
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8").removesuffix("\n")
        if bad := _CONTROL.search(text):
            raise UserError(str(path), bad[0], "a control character in a prompt", "Write LaTeX with one backslash.")
        texts[path.stem] = text
    for name in (QUESTION, FORCE, FORCE_PREFIX):
        if name not in texts:
            raise UserError(str(folder), name, f"{name}.md is missing", "Every prompt style needs it.")
    return Prompts(texts)
