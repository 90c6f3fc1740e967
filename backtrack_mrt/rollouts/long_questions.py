"""Questions that a model can be asked: those that its context has room for."""

from __future__ import annotations

from collections.abc import Sequence

from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.types import Problem, Trajectory


def fitting(
    problems: Sequence[Problem],
    protocol: EpisodeProtocol,
    dialogue: Dialogue,
    context_length: int,
    *,
    field: str,
    least: int = 1,
) -> tuple[list[Problem], list[str]]:
    """The problems whose prompt leaves room for a reply, and a note on those that are left out. Raises UserError,
    blaming `field`, if fewer than `least` are left."""
    kept = [problem for problem in problems if _fits(problem, protocol, dialogue, context_length)]
    if len(kept) == len(problems):
        return kept, []
    too_long = f"{len(problems) - len(kept)} of {len(problems)} questions are longer than the context"
    if len(kept) < least:
        remedy = "Shorten them, or take a model with a longer context."
        raise UserError(field, len(kept), f"{too_long} of {context_length} tokens, which leaves too few", remedy)
    return kept, [f"{field}: left out: {too_long} of {context_length} tokens"]


def _fits(problem: Problem, protocol: EpisodeProtocol, dialogue: Dialogue, context_length: int) -> bool:
    """No tokenizer makes more tokens of a text than it has bytes, so a short question need not be encoded."""
    spec = Episode(protocol, Trajectory(problem, ())).spec
    if spec is None:
        return True
    text = dialogue.prompts.opening(spec.phase, problem.question, spec.fields)
    if len(text.encode("utf-8", "replace")) < context_length // 2:  # the chat's own pieces take less than half
        return True
    return len(dialogue.opening(problem, spec)) < context_length
