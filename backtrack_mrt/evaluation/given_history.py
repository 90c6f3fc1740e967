"""What a policy makes of a history that is given to it: played to the end from a wrong attempt, and from the backtrack
that a demonstration makes of it. The difference is what finding the way back by itself costs. Given the same attempts,
policies can be compared in what their moves do to V; of their own attempts each keeps other ones to mend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backtrack_mrt.data.demonstrations.files import Demonstration
from backtrack_mrt.evaluation.metrics.estimates import Estimate, bootstrap, per_problem
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.dialogue import Dialogue
from backtrack_mrt.rollouts.prover import MetaProver
from backtrack_mrt.rollouts.replay import tokenise
from backtrack_mrt.rollouts.rollout import grade, trajectory_seeds
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.types import Trajectory

Histories = Mapping[str, list[Trajectory]]  # by what is given


def histories(demonstrations: Iterable[Demonstration], protocol: EpisodeProtocol, dialogue: Dialogue) -> Histories:
    """The starts that demonstrations with a backtrack give: up to the answer before the first one, and up to it."""
    found: dict[str, list[Trajectory]] = {"given attempt": [], "given backtrack": []}
    for demonstration in demonstrations:
        trajectory = tokenise(demonstration, protocol, dialogue).trajectory
        back = next((j for j, turn in enumerate(trajectory.turns) if turn.target is not None), None)
        if back is not None:
            answered = [j for j, turn in enumerate(trajectory.turns[:back]) if turn.answer is not None]
            found["given attempt"].append(trajectory.branch(answered[-1] + 1 if answered else 0))
            found["given backtrack"].append(trajectory.branch(back + 1))
    return found


def right_from(starts: Sequence[Trajectory], collector: Collector, temperature: float, seed: int) -> Estimate:
    """Share of trajectories that end right from these starts on."""
    played = _played(starts, collector, temperature, seed)
    return bootstrap(per_problem(played, [trajectory.outcome for trajectory in played]))


def progress_from(
    starts: Sequence[Trajectory], collector: Collector, prover: MetaProver, temperature: float, seed: int
) -> Estimate:
    """What the first move from these starts on does to the prover's V; 0 where the policy makes none."""
    played = _played(starts, collector, temperature, seed)
    gains = list[float]()
    for start, trajectory, values in zip(starts, played, prover.values(played), strict=True):
        moves = [move for ranges in collector.protocol.moves(trajectory).values() for move in ranges]
        first = min((m for m in moves if m.start >= len(start.turns)), key=lambda m: m.start, default=range(0))
        gains.append(float(values[first.stop] - values[first.start]))
    return bootstrap(per_problem(played, gains))


def _played(starts: Sequence[Trajectory], collector: Collector, temperature: float, seed: int) -> list[Trajectory]:
    """The starts played to the end, graded."""
    seeds = trajectory_seeds(seed, 0, len(starts))
    with collector.synced(), progress(len(starts), "played on") as bar:
        played = collector.play(starts, seeds, temperature, on_rows=bar.update)
    return grade(played, collector.grader)
