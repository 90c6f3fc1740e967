"""What token ids say, without transformers: the per-token view needs no more of a tokenizer than its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backtrack_mrt.config import ModelSection
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.files import find_model, hub_file

FILE = "tokenizer.json"


def words_of(run: Path, section: ModelSection) -> Callable[[int], str] | None:
    """The text of a token id, by the tokenizer saved with the run's model or that of the model it began with; None if
    neither can be had: then ids are shown."""
    from tokenizers import Tokenizer

    path = run / "model" / FILE
    try:
        path = path if path.is_file() else _file(section)
    except UserError:
        return None
    if not path.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(path))
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))


def _file(section: ModelSection) -> Path:
    """Of the model that a run began with."""
    found = Path(find_model(section))
    return found / FILE if found.is_dir() else hub_file(section, FILE)
