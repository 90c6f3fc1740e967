"""How well a policy judges attempts that are given to it: does it find the error, name its step, and return to the step
before? On attempts with a known first wrong step (demonstrations) or a known verdict (labelled attempts)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backtrack_mrt.data.demonstrations.attempts import Attempt
from backtrack_mrt.data.demonstrations.files import Demonstration
from backtrack_mrt.evaluation.metrics.estimates import Estimate, bootstrap
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.replay import accepted, tokenise
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.types import Trajectory


@dataclass(frozen=True, slots=True)
class Case:
    """An attempt to judge. wrong_step: the first wrong step, from 1; None where no step is wrong or it is unknown."""

    attempt: Trajectory
    right: bool
    wrong_step: int | None = None


def demonstrated(demonstrations: Iterable[Demonstration], protocol: EpisodeProtocol, dialogue: Dialogue) -> list[Case]:
    """The attempts of demonstrations; the check after one tells whether it is right, and its first wrong step."""
    cases = []
    for demonstration in demonstrations:
        trajectory = tokenise(demonstration, protocol, dialogue).trajectory
        check = trajectory.turns[1].parsed if len(trajectory.turns) > 1 else None
        if check is not None and check.verdict is not None:
            cases.append(Case(trajectory.branch(1), check.verdict, check.step))
    return cases


def labelled(attempts: Iterable[Attempt], protocol: EpisodeProtocol, dialogue: Dialogue) -> list[Case]:
    """Labelled attempts as cases; those that the protocol does not accept are left out."""
    given = [(accepted(attempt.problem, [attempt.text], protocol, dialogue), attempt.right) for attempt in attempts]
    return [Case(trajectory.branch(1), right) for trajectory, right in given if trajectory is not None]


def detection(cases: Sequence[Case], collector: Collector, temperature: float, seed: int) -> Mapping[str, Estimate]:
    """One check of each case, and one backtrack turn if it finds an error."""
    attempts, seeds = [case.attempt for case in cases], trajectory_seeds(seed, 0, len(cases))
    with progress(len(cases), "checks") as bar:
        played = collector.play(attempts, seeds, temperature, most_turns=2, on_rows=bar.update)
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))  # by problem
    for case, trajectory in zip(cases, played, strict=True):
        for name, hit in _judged(case, trajectory):
            shares[name][trajectory.problem.id].append(float(hit))
    return {name: bootstrap(list(problems.values())) for name, problems in shares.items()}


def _judged(case: Case, trajectory: Trajectory) -> Iterator[tuple[str, bool]]:
    """The shares that the case is about, and whether it counts for them."""
    check = trajectory.turns[1].parsed
    yield "checks without a violation", check is not None
    if case.right:
        yield "right attempts found right", check is not None and check.verdict is True
        return
    yield "wrong attempts found wrong", check is not None and check.verdict is False
    if case.wrong_step is None:
        return
    yield "right step named", check is not None and check.step == case.wrong_step
    targets = [turn.parsed.step for turn in trajectory.turns[2:] if turn.parsed is not None]
    yield "returned to the right step", targets == [case.wrong_step - 1]
