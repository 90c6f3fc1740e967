"""How long a row can become, in tokens, before any of it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        episode = Episode(protocol, Trajectory(start, ()) if isinstance(start, Problem) else start)
        held = len(episode.prefix_ids())
        if not held and episode.spec is not None:
            held = len(dialogue.opening(episode.problem, episode.spec))
        asked = instruction * max(protocol.max_turns - max(len(episode.turns), 1), 0)
        forced = reserve(episode.problem) if reserve else 0
        longest = max(longest, held + max(episode.budget_left, 0) + asked + forced)
    return min(longest, context_length)
