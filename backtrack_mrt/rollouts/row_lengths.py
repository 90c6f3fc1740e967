"""How long rows become, and which questions the model's context has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.types import Problem, Trajectory

Reserve = Callable[[Problem], int]  # tokens of the context that an answer forced from a trajectory needs


def longest_row(
    starts: Sequence[Problem | Trajectory],
    protocol: EpisodeProtocol,
    dialogue: Dialogue,
    context_length: int,
    reserve: Reserve | None = None,
) -> int:
    """Tokens of the longest row that any of the starts can become: its prompt or history, what is left of its budget,
    the instructions of as many turns as there may be, and the `reserve` for a forced answer."""
    longest, instruction = 1, dialogue.instruction_tokens
    for start in starts:
        episode = Episode(protocol, start)
        held = len(episode.prefix_ids())
        if not held and episode.spec is not None:
            held = len(dialogue.opening(episode.problem, episode.spec))
        asked = instruction * max(protocol.max_turns - max(len(episode.turns), 1), 0)
        forced = reserve(episode.problem) if reserve else 0
        longest = max(longest, held + max(episode.budget_left, 0) + asked + forced)
    return min(longest, context_length)


def fitting(
    problems: Sequence[Problem],
    protocol: EpisodeProtocol,
    dialogue: Dialogue,
    context_length: int,
    *,
    field: str,
    least: int = 1,
    reserve: Reserve | None = None,
) -> tuple[list[Problem], list[str]]:
    """The problems whose prompt leaves room for a reply, beside the `reserve` of a meta-prover, and a note on those
    that are left out. Raises UserError, blaming `field`, if fewer than `least` are left."""
    rooms = [context_length - (reserve(problem) if reserve else 0) for problem in problems]
    kept = [p for p, room in zip(problems, rooms, strict=True) if _fits(p, protocol, dialogue, room)]
    if len(kept) == len(problems):
        return kept, []
    left_free = f", less {context_length - min(rooms)} for a forced answer," if reserve else ""
    too_long = f"{len(problems) - len(kept)} of {len(problems)} questions are longer than the context{left_free}"
    if len(kept) < least:
        remedy = "Shorten them, or take a model with a longer context."
        raise UserError(field, len(kept), f"{too_long} of {context_length} tokens, which leaves too few", remedy)
    return kept, [f"{field}: left out: {too_long} of {context_length} tokens"]


def _fits(problem: Problem, protocol: EpisodeProtocol, dialogue: Dialogue, room: int) -> bool:
    """No tokenizer makes more tokens of a text than it has bytes, so a short question need not be encoded."""
    spec = Episode(protocol, problem).spec
    if spec is None:
        return True
    text = dialogue.prompts.opening(spec.phase, problem.question, spec.fields)
    if len(text.encode("utf-8", "replace")) < room // 2:  # the chat's own pieces take less than half
        return True
    return len(dialogue.opening(problem, spec)) < room
