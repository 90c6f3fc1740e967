"""What documents show, taken out of them: files of code, JSON lines, and the tables that name fields."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
_FILE = re.compile(r"`(\w+\.py)`[^`]*:\n\n```python\n(.*?)```", re.DOTALL)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)


def files_in(document: str) -> dict[str, str]:
    """Python files that are shown whole, by their names."""
    return dict(_FILE.findall(text_of(document)))


def section(document: str, heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(document), re.DOTALL | re.MULTILINE)
    assert found, f"{document} has no heading {heading!r}"
    return found[1]


def first_cells(text: str) -> set[str]:
    """The names in code that stand in the first column of the tables of a text."""
    rows = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def commands_of(document: str) -> list[str]:
    """Command lines: those of its `sh` blocks, and those in code between the words. What is left open ("…") is none."""
    text = text_of(document)
    shown = re.sub(r"\\\n\s*", "", "".join(blocks(document, "sh"))).splitlines()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    told = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    known = ("backtrack-mrt ", "python ", "make ", "pip install ", "accelerate launch ")
    lines = [*shown, *(code for code in told if code.startswith(known))]
    return [line for line in lines if "…" not in line and "COMMAND" not in line]


def words_of(line: str) -> list[str]:
    """The words of a command line up to a redirection, without variables set for it. `S` stands for a seed."""
    words = shlex.split(line.replace("--seed S", "--seed 0"), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words[: next((i for i, word in enumerate(words) if word in ("<", ">", "|", "&&")), None)]


def arguments_of(line: str) -> list[str] | None:
    """What `backtrack-mrt` is given by a command line; None for one of another program."""
    words = words_of(line)
    if words[:1] == ["backtrack-mrt"]:
        return words[1:]
    if words[:2] == ["python", "scripts/train_backtrack.py"]:
        return ["train", *words[2:]]
    return words[words.index("backtrack_mrt") + 1 :] if "backtrack_mrt" in words else None


def our_commands() -> dict[str, list[str]]:
    """What `backtrack-mrt` is given by each command line of all documents that is one of it."""
    lines = sorted({line for path in DOCUMENTS for line in commands_of(str(path.relative_to(ROOT)))})
    return {line: arguments for line in lines if (arguments := arguments_of(line))}
