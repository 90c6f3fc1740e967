"""Texts as if a policy had written them: demonstrations and given attempts as trajectories of a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backtrack_mrt.data.demonstrations.files import Demonstration, Span
from backtrack_mrt.errors import UserError
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.rollouts.rollout import cut, instruct, take
from backtrack_mrt.types import Completion, Finish, Problem, Trajectory


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A demonstration as a trajectory of the protocol, with the learnt flag of every token after the prompt (T,)."""

    trajectory: Trajectory
    learn: tuple[bool, ...]


def tokenise(demonstration: Demonstration, protocol: EpisodeProtocol, dialogue: Dialogue) -> Tokenised:
    """Run the demonstration through the protocol, as if a policy had written it. Raises UserError for a turn that the
    protocol does not accept."""
    episode = Episode(protocol, demonstration.problem)
    learn: list[bool] = []
    for spans in demonstration.turns:
        if episode.spec is None:
            break
        instruction_ids = instruct(episode, dialogue)
        pieces = [(dialogue.chat.encode(span.text), span.learn) for span in spans] + [((dialogue.chat.eos_id,), True)]
        ids = tuple(token for piece, _ in pieces for token in piece)
        learn += [False] * len(instruction_ids) + [flag for piece, flag in pieces for _ in piece]
        text = "".join(span.text for span in spans)
        if len(ids) > episode.spec.max_new_tokens:
            raise UserError(
                f"demonstration of {demonstration.problem.id}, turn {len(episode.turns) + 1} ({episode.spec.phase})",
                text,
                f"it has {len(ids)} tokens where the protocol leaves room for {episode.spec.max_new_tokens}",
                "Raise the protocol's token limits, or leave the demonstration out.",
            )
        completion = Completion(ids, (0.0,) * len(ids), Finish.STOP)
        turns = cut(completion, protocol, dialogue, protocol.turns_left(episode.turns))
        take(episode, dialogue, turns, instruction_ids)
        turn = episode.turns[-1]
        if turn.parsed is None:
            raise UserError(
                f"demonstration of {demonstration.problem.id}, turn {len(episode.turns)} ({turn.spec.phase})",
                text,
                f"the protocol does not accept it ({turn.violation or episode.stop})",
                "Write the turn in the protocol's grammar, or raise its token limits.",
            )
    trajectory = episode.trajectory()
    return Tokenised(trajectory, tuple(learn[: len(trajectory.turn_index())]))  # what came after its end is left out


def retold(problem: Problem, texts: Sequence[str], protocol: EpisodeProtocol, dialogue: Dialogue) -> Trajectory:
    """One message that some model wrote, as a trajectory of the protocol, not graded: its pieces are the turns; a
    single text is cut as the protocol cuts. No budget ends it. Raises UserError where a message is not a trajectory."""
    if not protocol.one_message:
        reason = "a stored trace is one message, and this protocol is several"
        raise UserError("env", type(protocol).__name__, reason, "Take --env open-ended.")
    ends = "\n".join(dialogue.chat.begun.split("\n")[-2:]).strip()
    first = texts[0].lstrip()
    if ends and first.startswith(ends):  # the template has begun the thought already
        texts = [first.removeprefix(ends).lstrip("\n"), *texts[1:]]
    pieces = [dialogue.chat.encode(text) for text in texts]
    pieces[-1] += (dialogue.chat.eos_id,)
    longest = protocol.model_copy(update={"token_budget": sum(map(len, pieces)) + 1})
    episode = Episode(longest, problem)
    instruct(episode, dialogue)
    completions = [Completion(ids, (float("nan"),) * len(ids), Finish.CUT) for ids in pieces]
    completions[-1] = replace(completions[-1], finish=Finish.STOP)
    if len(pieces) == 1:
        completions = cut(completions[0], longest, dialogue, longest.turns_left([]))
    take(episode, dialogue, completions)
    return episode.trajectory()


def accepted(
    problem: Problem, texts: Sequence[str], protocol: EpisodeProtocol, dialogue: Dialogue
) -> Trajectory | None:
    """The trajectory of turns with these texts, to branch from; None if the protocol does not accept them, or they are
    too long for it."""
    try:
        return tokenise(Demonstration(problem, tuple((Span(text),) for text in texts)), protocol, dialogue).trajectory
    except UserError:
        return None
