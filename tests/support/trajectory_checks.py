"""What must hold of every trajectory, whatever a policy wrote."""

from __future__ import annotations

from itertools import compress

from backtrack_mrt.env import EpisodeEnv
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.chat import Chat
from backtrack_mrt.types import Finish, StopReason, Trajectory, Turn


def check_step(env: EpisodeEnv, reward: float, terminated: bool, truncated: bool, chat: Chat) -> None:
    """The budget is kept, the end and the reward are told, and masks and text agree with the tokens."""
    trajectory = env.trajectory
    assert trajectory.sampled_tokens <= env.protocol.token_budget
    assert len(trajectory.turns) <= env.protocol.max_turns
    assert truncated == (trajectory.stop is StopReason.BUDGET)
    assert terminated == (trajectory.stop not in (None, StopReason.BUDGET))
    assert reward == (0.0 if trajectory.stop is None else trajectory.outcome)
    check_masks(trajectory, env.protocol, chat)


def check_masks(trajectory: Trajectory, protocol: EpisodeProtocol, chat: Chat) -> None:
    """Masks cover exactly the model's tokens, prefixes grow turn by turn, and the tokens say what was parsed."""
    ids, index = trajectory.token_ids, trajectory.turn_index()
    rest = ids[len(trajectory.prompt_ids) :]
    assert len(rest) == len(index)
    assert len(ids) == trajectory.sampled_tokens + trajectory.env_tokens
    for j, turn in enumerate(trajectory.turns):
        own = tuple(compress(rest, map(j.__eq__, index)))
        assert own == turn.completion.token_ids
        start, end = trajectory.prefix_ids(j), trajectory.prefix_ids(j + 1)
        assert end[: len(start)] == start
        assert end[len(start) :] == turn.instruction_ids + turn.completion.token_ids
        assert chat.decode(own) == turn.text
        goes_on = j > 0 and trajectory.turns[j - 1].completion.finish is Finish.CUT
        assert (turn.instruction_ids == ()) == (j == 0 or goes_on)
        check_turn(trajectory.turns[:j], turn, protocol)


def check_turn(before: tuple[Turn, ...], turn: Turn, protocol: EpisodeProtocol) -> None:
    """An accepted turn claims what its own text says; only the last one may be refused."""
    assert all(earlier.parsed is not None for earlier in before)
    if turn.parsed is not None:
        parse = protocol.parse_piece if turn.completion.finish is Finish.CUT else protocol.parse
        assert turn.parsed == parse(turn.spec.phase, turn.text, before)
