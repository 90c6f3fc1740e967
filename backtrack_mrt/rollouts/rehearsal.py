"""A protocol played through without a model: scripted replies, every prompt read on the way.

Replies are tried in every phase. Where none is accepted, what a turn may claim is made up, so that the phases behind it
are asked for too; only what happens on the way there with real replies is a mistake.
"""

from __future__ import annotations

import inspect
import random
import re
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from numbers import Real
from typing import Any

from backtrack_mrt import plugins
from backtrack_mrt.errors import UserError, in_words
from backtrack_mrt.grading.verdict import grade_of
from backtrack_mrt.protocol import EpisodeProtocol, ProtocolViolation, Share, merged, standing_steps
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.episode import graded
from backtrack_mrt.rollouts.prompts import Prompts
from backtrack_mrt.rollouts.scripted_replies import CLAIMS, HOSTILE, likely_replies
from backtrack_mrt.types import Completion, Finish, Parsed, Problem, StopReason, Trajectory, Turn, TurnSpec

PROBLEM = Problem("rehearsal", "What is 1 + 1?", "2")
WALKS, FEW_WALKS = 60, 6
SECONDS = 5.0  # that one call of the protocol may take
MOST_TURNS = 1_000
LARGEST_BOUND = 10_000  # of turns: there are results for each
NAME = "[a-z][a-z0-9_]*"


@dataclass
class Rehearsal:
    """What was seen: turns accepted by phase, trajectories by how they stopped, refused replies by violation."""

    phases: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    unanswered: set[str] = field(default_factory=set)  # phases that were asked for, in which no reply was accepted
    longest: int = 0  # turns


def rehearse_own(protocol: EpisodeProtocol, prompts: Prompts, problem: Problem) -> None:
    """What a run of a protocol that is not ours begins with: a short rehearsal, with a problem of the run."""
    if plugins.is_own(type(protocol)):
        rehearse(protocol, prompts, problem=problem, walks=FEW_WALKS)


def rehearse(
    protocol: EpisodeProtocol,
    prompts: Prompts,
    replies: Sequence[str] = (),
    *,
    problem: Problem = PROBLEM,
    walks: int = WALKS,
) -> Rehearsal:
    """Play `protocol` with `replies` of the user's and our own. Raises UserError for the first mistake: a call that
    raises, never comes back or returns something else than it must; a trajectory without end; a prompt that is missing,
    empty, or has a placeholder that the protocol does not fill."""
    return _Player(protocol, Dialogue(ByteChat(), prompts), replies, problem).play(walks)


class _Player:
    def __init__(self, protocol: EpisodeProtocol, dialogue: Dialogue, replies: Sequence[str], problem: Problem) -> None:
        self.protocol, self.dialogue, self.replies, self.problem = protocol, dialogue, tuple(replies), problem
        self.name = type(protocol).__name__
        self.seen = Rehearsal()

    def play(self, walks: int) -> Rehearsal:
        self._check_bounds()
        for walk in range(walks):
            self._walk(random.Random(walk), keep_going=walk % 2 == 0)
        return self.seen

    def _check_bounds(self) -> None:
        for name in ("max_turns", "max_answers"):
            bound = self._call(name)
            if not isinstance(bound, int) or not 1 <= bound <= LARGEST_BOUND:
                raise self._wrong(name, bound, f"it is not a whole number of at least 1 and at most {LARGEST_BOUND:,}")
        for name, argument in (("with_answers", 1), ("prolonged", 2.0), ("persistent", 2)):
            found = self._call(name, argument)
            if not isinstance(found, type(self.protocol)) and (found is not None or name != "persistent"):
                raise self._wrong(name, found, f"it is not a {self.name}")

    def _walk(self, rng: random.Random, keep_going: bool) -> None:
        """One trajectory of random replies. keep_going: of those that do not end it, if there are any."""
        turns: list[Turn] = []
        real = True  # no claim was made up so far
        while not isinstance(spec := self._asked(turns, real), StopReason):
            if len(turns) >= min(self.protocol.max_turns, MOST_TURNS):
                if not real:
                    return
                reason = f"another turn is asked for after {len(turns)}, and max_turns is {self.protocol.max_turns}"
                raise self._wrong("next_turn", spec.phase, reason)
            self._read(spec, turns)
            found = self._accepted(spec, turns) if real else []
            if not found:
                if real:
                    self.seen.unanswered.add(spec.phase)
                real = False
                found = [[_turn(spec, "", claim)] for claim in CLAIMS]
            elif keep_going:
                on = [new for new in found if isinstance(self._next([*turns, *new]), TurnSpec)]
                found = on or found
            turns += rng.choice(found)
        if real:
            self.seen.stops[spec] += 1
            self.seen.phases.update(turn.spec.phase for turn in turns)
            self.seen.longest = max(self.seen.longest, len(turns))
            self._measured(turns, spec)

    def _measured(self, turns: Sequence[Turn], stop: StopReason) -> None:
        """The protocol's own numbers about a trajectory that has ended, right or wrong."""
        answer = self._call("final_answer", tuple(turns))
        ended = graded(Trajectory(self.problem, (), tuple(turns), stop, answer), lambda a: grade_of(float(a == "2")))
        for name, value in self._named("metrics", ended):
            sound = isinstance(value, Share) or (isinstance(value, Real) and isfinite(value))
            if not re.fullmatch(NAME, name) or not sound:
                raise self._wrong("metrics", {name: value}, "it is not a snake_case name with a number or a Share")
        for name, moves in self._named("moves", ended):
            if not all(isinstance(move, range) and set(move) <= set(range(len(turns))) for move in moves):
                raise self._wrong("moves", {name: moves}, f"these are not ranges of the {len(turns)} turns")

    def _named(self, hook: str, ended: Trajectory) -> Iterable[tuple[str, Any]]:
        found = self._call(hook, ended)
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise self._wrong(hook, found, "it is no mapping from names")
        return found.items()

    def _asked(self, turns: Sequence[Turn], real: bool) -> TurnSpec | StopReason:
        """What comes next. After claims that were made up, whatever goes wrong is the end."""
        try:
            return self._next(turns)
        except UserError:
            if real:
                raise
            return StopReason.VIOLATION

    def _next(self, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        asked, again = (self._call("next_turn", self.problem, tuple(turns)) for _ in range(2))
        if not isinstance(asked, TurnSpec | StopReason):
            raise self._wrong("next_turn", asked, "it is neither a TurnSpec nor a StopReason")
        if asked != again:
            raise self._wrong("next_turn", again, f"the same turns led to {asked!r} before")
        if isinstance(asked, StopReason):
            if asked not in (StopReason.FINISHED, StopReason.TURN_LIMIT) or not turns:
                raise self._wrong("next_turn", str(asked), "a trajectory has a turn, and ends FINISHED or TURN_LIMIT")
            return asked
        if not isinstance(asked.max_new_tokens, int) or asked.max_new_tokens < 1:
            raise self._wrong("next_turn", asked, "a turn needs at least 1 token, a whole number (int)")
        if not isinstance(asked.fields, Mapping) or not all(isinstance(text, str) for text in asked.fields.values()):
            raise self._wrong("next_turn", asked, "its fields are not texts by their names")
        return asked

    def _read(self, spec: TurnSpec, turns: Sequence[Turn]) -> None:
        """Render what is said before the turn, and the forced answer in its place."""
        render = self.dialogue.prompts.render
        if not render(spec.phase, spec.fields).strip():
            raise UserError(f"{spec.phase}.md", "", "the phase has no instruction", "Write what the model is to do.")
        opening = self.dialogue.opening(self.problem, spec) if not turns else ()
        trajectory = Trajectory(self.problem, opening, tuple(turns))
        self.dialogue.forced(trajectory, len(turns))

    def _accepted(self, spec: TurnSpec, turns: Sequence[Turn]) -> list[list[Turn]]:
        """The turns that replies make which are accepted, one reply for each thing that is claimed."""
        found: dict[tuple[Parsed | None, ...], list[Turn]] = {}
        for text in (*self.replies, *likely_replies(len(standing_steps(turns))), *HOSTILE):
            if new := self._taken(spec, turns, text):
                found.setdefault(tuple(turn.parsed for turn in new), new)
        return list(found.values())

    def _taken(self, spec: TurnSpec, turns: Sequence[Turn], text: str) -> list[Turn]:
        """The turns that a reply is cut into; none if it breaks the protocol."""
        offsets = self._call("cuts", text)
        if not isinstance(offsets, Iterable):
            raise self._wrong("cuts", offsets, "it is no list of offsets into the text")
        offsets = list(offsets)
        if any(not isinstance(at, int) or not 0 < at < len(text) for at in offsets) or offsets != sorted(set(offsets)):
            raise self._wrong("cuts", offsets, "they are not increasing offsets into the text")
        new: list[Turn] = []
        left = self._call("turns_left", tuple(turns))
        if not isinstance(left, int) or left < 1:
            raise self._wrong("turns_left", left, "it is not a whole number of at least 1")
        places = merged(offsets, left)
        pieces = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
        for number, piece in enumerate(pieces, start=1):
            goes_on = number < len(pieces)
            name = "parse_piece" if goes_on else "parse"
            before = (*turns, *new)
            try:
                parsed = self._call(name, spec.phase, piece, before)
            except ProtocolViolation as violation:
                if not re.fullmatch(NAME, violation.name):
                    raise self._wrong(name, violation.name, "the violation's name is no snake_case word") from violation
                self.seen.violations[violation.name] += 1
                return []
            if not isinstance(parsed, Parsed) or not isinstance(parsed.answer, str | None):
                raise self._wrong(name, parsed, "it is not a Parsed with a text, or None, as its answer")
            if not isinstance(parsed.steps, tuple) or not all(isinstance(step, str) for step in parsed.steps):
                raise self._wrong(name, parsed, "its steps are no tuple of texts")
            new.append(_turn(spec, piece, parsed, Finish.CUT if goes_on else Finish.STOP))
            answer = self._call("final_answer", (*before, new[-1]))
            if not isinstance(answer, str | None):
                raise self._wrong("final_answer", answer, "it is neither a text nor None")
            following = self._next((*before, new[-1])) if goes_on else None
            if not isinstance(following, TurnSpec):
                break
            spec = following
        return new

    def _call(self, name: str, *arguments: object) -> Any:
        """The protocol's property `name`, or what its method returns. Whatever that raises but a violation is told,
        with the text that was given to it, and the place."""
        text = next((a for a in reversed(arguments) if isinstance(a, str)), None)
        try:
            with _at_most(SECONDS):
                found = getattr(self.protocol, name)
                return found(*arguments) if callable(found) else found
        except ProtocolViolation:
            if name in ("parse", "parse_piece"):
                raise
            raise self._wrong(name, text, "it raised ProtocolViolation, which only parse may") from None
        except Exception as error:
            own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == _file(self.protocol)]
            where = f"See {own[-1].filename}, line {own[-1].lineno}." if own else "See the protocol's file."
            shown = text if text is None or len(text) <= 60 else f"{text[:60]}…"
            raise UserError(f"{self.name}.{name}", shown, f"it raised {in_words(error)}", where) from error

    def _wrong(self, name: str, value: object, reason: str) -> UserError:
        return UserError(f"{self.name}.{name}", value, reason, f"See {_file(self.protocol)}.")


def _turn(spec: TurnSpec, text: str, parsed: Parsed, finish: Finish = Finish.STOP) -> Turn:
    chat = ByteChat()
    ids = chat.encode(text) + ((chat.eos_id,) if finish is Finish.STOP else ())
    return Turn(spec, text, parsed, (), Completion(ids, (0.0,) * len(ids), finish))


def _file(protocol: EpisodeProtocol) -> str:
    return inspect.getfile(inspect.unwrap(type(protocol).next_turn))


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the block takes longer. (Only the main thread of a Unix process can be interrupted.)"""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: Any) -> None:
        raise TimeoutError(f"no end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
