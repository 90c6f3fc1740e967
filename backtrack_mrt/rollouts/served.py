"""The parts of a run around a model that a server has: no weights are loaded here."""

from __future__ import annotations

from backtrack_mrt.config import Config
from backtrack_mrt.policy.completions import CompletionsEngine, client, served
from backtrack_mrt.policy.models import load_tokenizer
from backtrack_mrt.rollouts.assembly import Assembly, dialogue_with, prompts_of


def assemble_served(config: Config, url: str) -> Assembly:
    """The parts around the model that is served at `url`; `config.model` says whose tokenizer it has. Raises UserError
    for a server that cannot be asked."""
    tokenizer = load_tokenizer(config.model)
    dialogue = dialogue_with(tokenizer, prompts_of(config), config.model.thinking)
    engine = CompletionsEngine(url, tokenizer, max_rows=min(config.engine.max_rows, 64))
    return Assembly(config, None, tokenizer, dialogue, engine, config.grading.opened())


def served_name(url: str, field: str) -> str:
    """What the server's model is called where it was loaded from: a hub name or a directory. Raises UserError."""
    asked = client(url, field)
    row = served(asked)
    asked.close()
    return str(row.get("root") or row["id"])
