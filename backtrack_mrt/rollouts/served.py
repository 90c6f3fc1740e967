"""The parts of a run around a model that a server has: no weights are loaded here."""

from __future__ import annotations

from backtrack_mrt.config import Config
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.completions import CompletionsEngine, client, served
from backtrack_mrt.policy.models import load_tokenizer
from backtrack_mrt.rollouts.assembly import Assembly, dialogue_with, prompts_of


def assemble_served(config: Config, url: str) -> Assembly:
    """The parts around the model that is served at `url`; `config.model` says whose tokenizer it has. Raises UserError
    for a server that cannot be asked, and for one without logprobs where the meta-prover needs them."""
    tokenizer = load_tokenizer(config.model)
    dialogue = dialogue_with(tokenizer, prompts_of(config), config.model.thinking)
    engine = CompletionsEngine(
        url,
        tokenizer,
        model=_asked_for(config.model.name_or_path, url),
        max_rows=min(config.engine.max_rows, 64),
        scoring=config.prover.estimator in ("likelihood", "auto") and config.grading.listed,
    )
    return Assembly(config, None, tokenizer, dialogue, engine, config.grading.opened())


def served_name(url: str, field: str) -> str:
    """What the server's model is called where it was loaded from: a hub name or a directory. Raises UserError."""
    rows = _rows(url, field)
    if not rows:
        raise UserError(field, url, "it does not say what it serves", "Name the model: --model DIR or its hub name.")
    return str(rows[0].get("root") or rows[0]["id"])


def _asked_for(name: str, url: str) -> str | None:
    """The model that the server is asked for: `name`, or the only one that it lists, whatever it is called there."""
    bases = [row for row in _rows(url, "--server") if row.get("parent") is None]
    return name if len(bases) > 1 else None


def _rows(url: str, field: str) -> list[dict[str, object]]:
    asked = client(url, field)
    try:
        return served(asked)
    finally:
        asked.close()
