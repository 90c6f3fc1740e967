"""Batched rollouts, turn by turn, in token space."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import inf

import numpy as np

from backtrack_mrt.graders.base import Grader
from backtrack_mrt.policy.engine import Answered, Continuous, Sampler
from backtrack_mrt.protocol import EpisodeProtocol, merged
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode, graded
from backtrack_mrt.rollouts.row_lengths import Reserve
from backtrack_mrt.runs.interrupts import safe_point
from backtrack_mrt.types import (
    Completion,
    Finish,
    Parsed,
    Phase,
    Problem,
    Request,
    Sampling,
    StopReason,
    TokenIds,
    Trajectory,
    Turn,
    TurnSpec,
)


def trajectory_seeds(seed: int, step: int, rows: int, first_row: int = 0) -> list[int]:
    """One seed per row, the same however rows are split over batches or processes."""
    return [
        int(np.random.SeedSequence((seed, step, row)).generate_state(1, np.uint32)[0])
        for row in range(first_row, first_row + rows)
    ]


def rollout(
    starts: Sequence[Problem | Trajectory],
    seeds: Sequence[int],
    protocol: EpisodeProtocol,
    dialogue: Dialogue,
    engine: Sampler,
    sampling: Sampling,
    window: int | None = None,
    most_turns: int | None = None,
    reserve: Reserve | None = None,
) -> list[Trajectory]:
    """One trajectory per start, not graded: from a problem, or from a prefix on (`Trajectory.branch`; a prompt of its
    own is kept). Repeat a start for a group. After `most_turns` new turns a trajectory is left as it is (stop: None).

    All rows take their turn together, so the engine computes every token once: a turn's prefix extends the cached
    prefix of the turn before. In a `Continuous` engine each row goes on by itself. With a `window` the model sees the
    prompt and the last `window` turns only (docs/evaluation.md), so turns may go on beyond its context. Else
    a trajectory ends with `budget` where the context does, less the `reserve` that its meta-prover needs.
    """
    episodes = [Episode(protocol, start) for start in starts]
    left = [inf if most_turns is None else most_turns] * len(episodes)  # turns
    instructions: list[TokenIds] = [()] * len(episodes)  # of the turn that is under way
    reserved = [reserve(episode.problem) if reserve else 0 for episode in episodes]

    def asked(row: int) -> Request | None:
        """What is to be sampled next in this row, if it goes on."""
        safe_point()
        episode, seed = episodes[row], seeds[row]
        if episode.spec is None or left[row] == 0:
            return None
        instructions[row] = instruct(episode, dialogue)
        prefix_ids = episode.prefix_ids(window) + instructions[row]
        room = engine.context_length - len(prefix_ids) - reserved[row]
        if room < 1:
            episode.end(StopReason.BUDGET)
            return None
        # The engine hashes the seed with the position, so neighbouring seeds are independent.
        return Request(prefix_ids, min(episode.spec.max_new_tokens, room), (seed << 16) + len(episode.turns))

    def answered(row: int, completion: Completion) -> Request | None:
        """The turn, taken; what is to be sampled next."""
        pieces = cut(completion, protocol, dialogue, protocol.turns_left(episodes[row].turns))
        take(episodes[row], dialogue, pieces, instructions[row])
        left[row] -= 1
        return asked(row)

    converse(engine, {row: asked(row) for row in range(len(episodes))}, sampling, answered)
    return [episode.trajectory() for episode in episodes]


def instruct(episode: Episode, dialogue: Dialogue) -> TokenIds:
    """Instruction tokens (I,) of the next turn. Those of the first one are in the prompt, which is written here unless
    the episode has one."""
    if episode.spec is not None and episode.turns:
        return dialogue.following(episode.spec, episode.turns[-1].completion)
    if episode.spec is not None and not episode.prompt_ids:
        episode.prompt_ids = dialogue.opening(episode.problem, episode.spec)
    return ()


def take(episode: Episode, dialogue: Dialogue, pieces: Sequence[Completion], instruction_ids: TokenIds = ()) -> None:
    """Take the turns that a completion was cut into, the first one behind the instruction, until the episode ends."""
    for piece in pieces:
        if episode.stop is None:
            episode.advance(dialogue.chat.decode(piece.token_ids), piece, instruction_ids)
            instruction_ids = ()


def converse(engine: Sampler, requests: Mapping[int, Request | None], sampling: Sampling, answered: Answered) -> None:
    """Ask what each row asks, and what it asks then, until no row does. See `Continuous.converse`."""
    going = {row: request for row, request in requests.items() if request is not None}
    if isinstance(engine, Continuous):
        engine.converse(going, sampling, answered)
        return
    while going:
        completions = engine.generate(list(going.values()), sampling)
        after = {row: answered(row, completion) for row, completion in zip(going, completions, strict=True)}
        going = {row: request for row, request in after.items() if request is not None}


def cut(completion: Completion, protocol: EpisodeProtocol, dialogue: Dialogue, most: int) -> list[Completion]:
    """The completion in the pieces that the protocol takes for turns, merged evenly into at most so many: a cut is made
    before the token that holds the character at its offset."""
    ids = completion.token_ids
    offsets = merged(protocol.cuts(dialogue.chat.decode(ids)), most)
    starts = [0, *token_starts(ids, offsets, dialogue.chat.decode)]
    return [
        Completion(ids[a:b], completion.logprobs[a:b], Finish.CUT if b < len(ids) else completion.finish)
        for a, b in pairwise([*starts, len(ids)])
        if a < b
    ]


def token_starts(ids: TokenIds, offsets: Sequence[int], decode: Callable[[TokenIds], str]) -> list[int]:
    """For increasing character offsets, the index of the token that holds the character there."""
    ends = cache(lambda token: len(decode(ids[: token + 1])))  # characters up to a token's end: no sum
    starts = [0]
    for offset in offsets:
        starts.append(bisect_right(range(len(ids)), offset, lo=starts[-1], key=ends))
    return starts[1:]


def force_answers(
    starts: Sequence[Problem | Trajectory],
    seeds: Sequence[int],
    dialogue: Dialogue,
    engine: Sampler,
    sampling: Sampling,
    max_new_tokens: int,
) -> list[Trajectory]:
    """Each start ended by an answer forced now, as one more turn (phase `force`); not graded. This is what the
    meta-prover samples, here as a trajectory that can be trained on. Where the model's context has no room for it, the
    start ends as it is, with `budget`."""
    trajectories = [Trajectory(s) if isinstance(s, Problem) else dialogue.unanswered(s) for s in starts]
    forced = [dialogue.forced(trajectory, len(trajectory.turns)) for trajectory in trajectories]
    fitting = [row for row, ids in enumerate(forced) if len(ids) < engine.context_length]
    requests = [
        Request(forced[row], max_new_tokens, (seeds[row] << 16) + len(trajectories[row].turns)) for row in fitting
    ]
    ended = [replace(t, stop=StopReason.BUDGET, given=len(t.turns)) for t in trajectories]
    for row, completion in zip(fitting, engine.generate(requests, sampling) if requests else (), strict=True):
        start, ids = trajectories[row], forced[row]
        text = dialogue.force_prefix + dialogue.chat.decode(completion.token_ids)
        answer = dialogue.forced_answer(completion.token_ids)
        instruction_ids = ids[len(start.token_ids) :] if start.turns else ()
        turn = Turn(TurnSpec(Phase.FORCE, max_new_tokens), text, Parsed(answer=answer), instruction_ids, completion)
        prompt_ids = start.prompt_ids if start.turns else ids
        turns = (*start.turns, turn)
        ended[row] = Trajectory(start.problem, prompt_ids, turns, StopReason.FINISHED, answer, given=len(start.turns))
    return ended


def grade(trajectories: Sequence[Trajectory], grader: Grader) -> list[Trajectory]:
    """The trajectories with the grade of every answer given, and their outcomes. Each distinct answer to a problem is
    graded once."""
    asked = {
        (trajectory.problem, answer): None
        for trajectory in trajectories
        for answer in (trajectory.answer, *(turn.answer for turn in trajectory.turns if turn.parsed))
    }
    grades = dict(zip(asked, grader.grade_many(list(asked)), strict=True))
    return [graded(t, lambda answer, p=t.problem: grades[p, answer]) for t in trajectories]  # type: ignore[misc]
