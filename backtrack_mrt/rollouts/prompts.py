"""Prompt files: ``prompts/<protocol>/<style>/<name>.md``, one per phase and two for the forced answer.

A placeholder is ``<<name>>``, which LaTeX does not own. The final newline of a file is not part of the prompt. A
third-party wheel names the package that holds its styles by an entry point: group ``backtrack_mrt.prompts``, the
protocol's name. In place of a style stands the path of a folder of the user's own: ``./my_prompts``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from backtrack_mrt import plugins
from backtrack_mrt.errors import NO_VALUE, UserError, did_you_mean
from backtrack_mrt.grading.markers import BOXED, Marker

_PLACEHOLDER = re.compile(r"<<([a-z_]+)>>")
_SHOWN = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")  # an answer as a prompt shows it
QUESTION, FORCE, FORCE_PREFIX = "question", "force", "force_prefix"  # files every style has, besides its phases
HINT = "hint"  # optional: what follows the first instruction when the gold answer is given away (`<<answer>>`)
CLOSE = "close"  # optional, for one free stream: closes the model's thought before a forced answer in its own message
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PACKAGE = "backtrack_mrt.prompts"
_FIXED = {QUESTION: {"question", "instruction"}, FORCE: set[str](), FORCE_PREFIX: set[str]()}  # their placeholders
_OPTIONAL = {HINT: {"answer"}, CLOSE: set[str]()}


@dataclass(frozen=True)
class Prompts:
    """The prompts of one protocol in one style, by name: the protocol's phases, `force` (the meta-prover's "answer
    now" instruction), `force_prefix` (how that answer is begun for the model), optionally `hint`, `close`, `system`."""

    texts: Mapping[str, str]
    marker: Marker = BOXED

    def marked(self, marker: Marker) -> Prompts:
        r"""The same with answers marked in another way: what a prompt shows in ``\boxed{}`` takes that form, and the
        forced answer begins with it. Prompts that show no box are left as they are."""
        if marker is BOXED:
            return self
        texts = {name: _SHOWN.sub(lambda box: marker.around(box[1]), text) for name, text in self.texts.items()}
        if texts[FORCE_PREFIX].endswith(BOXED.opening):
            texts[FORCE_PREFIX] = marker.opening
        return Prompts(texts, marker)

    @property
    def phases(self) -> set[str]:
        """Names of the prompts that ask for a turn."""
        return set(self.texts) - {QUESTION, FORCE, FORCE_PREFIX, HINT, CLOSE, "system"}

    @property
    def begins_answer(self) -> bool:
        """Whether a forced answer is begun for the model: if not, it writes its solution first."""
        return self.texts[FORCE_PREFIX].endswith(self.marker.opening)

    def render(self, name: str, fields: Mapping[str, str]) -> str:
        """The prompt `name` with its placeholders filled in one pass: contents are not searched for placeholders.
        Raises UserError if there is no such prompt, or a placeholder in it that `fields` does not fill."""
        if name not in self.texts:
            raise UserError("prompt", name, "there is no such prompt file", did_you_mean(name, self.texts))
        for placeholder in self.placeholders(name) - set(fields):
            raise UserError(f"{name}.md", placeholder, "unknown placeholder", did_you_mean(placeholder, fields))
        return _PLACEHOLDER.sub(lambda match: fields[match[1]], self.texts[name])

    def placeholders(self, name: str) -> set[str]:
        """Names of the placeholders in the prompt `name`."""
        return set(_PLACEHOLDER.findall(self.texts[name]))

    def opening(self, name: str, question: str, fields: Mapping[str, str]) -> str:
        """The first message of a conversation: the question, then the prompt `name`."""
        return self.render(QUESTION, {"question": question, "instruction": self.render(name, fields)})

    def asking(self, suffix: str | None) -> Prompts:
        """The same with other words that ask for the answer now (None: the same). In a thought they stand before its
        end. Raises UserError for a placeholder in them."""
        if suffix is None:
            return self
        if "<<" in suffix:
            raise UserError("prover.suffix", suffix, "nothing is filled in here", "Write it without << and >>.")
        ended = {CLOSE: f"\n\n{suffix}{self.texts[CLOSE]}"} if CLOSE in self.texts else {}
        return Prompts({**self.texts, FORCE: suffix, **ended}, self.marker)

    @property
    def system(self) -> str | None:
        return self.texts.get("system")


def load_prompts(protocol: str, chosen: str) -> Prompts:
    """The prompt files of `protocol` in the style `chosen`, or those in the folder at that path.

    Raises UserError for a missing folder or file, a control character (a written ``\\b`` where ``\\boxed`` was meant),
    a placeholder that is misspelt or not filled in the files common to all protocols, and a `force_prefix` that opens
    a box and goes on.
    """
    folder = _folder(protocol, chosen)
    source = plugins.read_source(str(folder), "prompts")
    texts = {name.removesuffix(".md"): _checked(text, folder / name) for name, text in source.contents.items()}
    for name, placeholders in (_FIXED | {name: _OPTIONAL[name] for name in _OPTIONAL if name in texts}).items():
        if name not in texts:
            raise UserError(str(folder), name, f"{name}.md is missing", "Every folder of prompts needs it.")
        if (found := Prompts(texts).placeholders(name)) != placeholders:
            wanted = ", ".join(f"<<{p}>>" for p in sorted(placeholders)) or "none"
            raise UserError(str(folder / f"{name}.md"), sorted(found), "other placeholders", f"It must hold: {wanted}.")
    if "\\boxed" in texts[FORCE_PREFIX] and not texts[FORCE_PREFIX].endswith(BOXED.opening):
        path, remedy = folder / f"{FORCE_PREFIX}.md", "End it with \\boxed{ and no space, or open no box."
        raise UserError(str(path), texts[FORCE_PREFIX], "it does not end where its box opens", remedy)
    return Prompts(texts)


def styles(protocol: str) -> list[str]:
    """The styles of a protocol. Raises UserError if there is none."""
    if plugins.is_path(protocol):
        return [str(_folder(protocol, ""))]
    root = _root(protocol)
    found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not found:
        raise UserError("prompts", NO_VALUE, f"no prompts in {root}", "Write a folder with a .md file for each phase.")
    return found


def _folder(protocol: str, chosen: str) -> Path:
    """The folder at the path `chosen`, or of that style of the protocol."""
    if plugins.is_path(chosen):
        if not Path(chosen).is_dir():
            raise UserError("prompts", chosen, "no such folder", "Name a folder with a .md file for each phase.")
        return Path(chosen)
    if plugins.is_path(protocol):
        reason = f"the protocol {protocol} is your own file, which has no styles"
        raise UserError("prompts", chosen, reason, "Name the folder of its prompts: --prompts ./FOLDER.")
    root = _root(protocol)
    if not (root / chosen).is_dir():
        remedy = did_you_mean(chosen, styles(protocol)) + " A folder of your own is named by its path: ./FOLDER."
        raise UserError("prompts", chosen, f"no directory {root / chosen}", remedy)
    return root / chosen


def _root(protocol: str) -> Path:
    """The directory of the protocol's styles."""
    if plugins.is_foreign(protocol):
        return Path(str(files("backtrack_mrt.foreign"))) / "prompts"
    for entry in plugins.entry_points(_PACKAGE):
        if plugins.dashed(entry.name) == plugins.dashed(protocol):
            return Path(str(files(entry.value)))
    return Path(str(files(_PACKAGE))) / protocol.replace("-", "_")


def _checked(content: bytes, path: Path) -> str:
    """The text of a prompt file."""
    try:
        text = content.decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError(str(path), error.object[error.start], "not UTF-8", "Save the file as UTF-8.") from error
    if bad := _CONTROL.search(text):
        raise UserError(str(path), bad[0], "a control character in a prompt", "Write LaTeX with one backslash.")
    if "<<" in (rest := _PLACEHOLDER.sub("", text)):
        raise UserError(str(path), rest[rest.index("<<") :][:20], "not a placeholder", "Write <<lower_case_name>>.")
    return text
