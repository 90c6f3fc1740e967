"""The card of a model that was merged into one folder: what is known of it, without paths of the machine it was made
on."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from backtrack_mrt.config import ModelSection
from backtrack_mrt.policy.files import find_model
from backtrack_mrt.reports.model_card import ADAPTER, STACKED, WHOLE, code, hub_base
from backtrack_mrt.runs.durable import CARD

UNKNOWN = f"""\
# {{name}}

Written by `backtrack-mrt export`. Nothing was said about the model that it was made of.

## Loading

```python
{WHOLE}```
"""
PATH = re.compile(r"(?<![\w/:.~$)\]-])(?:~?/[\w.@+~-]+){2,}/?")  # absolute, of two parts or more; no address


def exported_card(sources: Sequence[ModelSection], name: str) -> str:
    """The card of the exported model `name`. sources: the model, and below an adapter the model that it is merged into,
    and so on. The card beside the model is kept where there is one."""
    own = Path(find_model(sources[0])) / CARD
    text = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else UNKNOWN.format(name=code(name))
    if not text.startswith("---\n"):
        text = f"---\nlibrary_name: transformers\n---\n\n{text}"
    text = text.replace(ADAPTER, WHOLE).replace(STACKED, WHOLE)
    text = text.replace("\nA LoRA adapter of ", "\nA LoRA adapter, merged into ")
    card = ModelCard(without_paths(text, [source.name_or_path for source in sources]), ignore_metadata_errors=True)
    data: Any = card.data
    data.library_name, data.base_model = "transformers", hub_base(sources[0])
    data.tags = [tag for tag in data.get("tags") or () if tag != "lora"] or None
    return str(card)


def without_paths(text: str, known: Sequence[str] = ()) -> str:
    """The text with the last part of every absolute path in it alone; `known` are paths that may look otherwise."""
    for path in sorted((path for path in known if Path(os.path.expanduser(path)).is_absolute()), key=len, reverse=True):
        text = text.replace(path, Path(path).name)
    return PATH.sub(lambda match: Path(match[0]).name, text)
