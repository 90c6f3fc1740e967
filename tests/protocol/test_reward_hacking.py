"""What a policy might do for reward instead of solving the problem, each beside an honest trajectory in one group.

What a turn's weight does is make what the turn said more likely where it was said. So a hack *pays* if it weighs more
than the honest turn at the point where the two part; turns before are the same, turns after have another state. As a
reward, α·progress sums to α·(V_E − V_0) whatever was done in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtrack_mrt import plugins
from backtrack_mrt.algos.base import Algorithm, SelfTraining
from backtrack_mrt.algos.brpo import Brpo
from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.algos.igpo import Igpo
from backtrack_mrt.algos.length_penalty import LengthPenalty
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.algos.mrt_star import MrtStar
from backtrack_mrt.algos.rise import Rise
from backtrack_mrt.algos.star import Star
from backtrack_mrt.algos.star_shortest import StarShortest
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.grading.verdict import grade_of
from backtrack_mrt.protocol import EpisodeProtocol
from backtrack_mrt.rollouts.episode import Episode, graded
from backtrack_mrt.types import Completion, Finish, Group, Problem, Scored, StopReason, Trajectory

PROBLEM = Problem("p", "What is 2 + 2?", "4")
RIGHT, WRONG = "## Step 1: x\n\\boxed{4}", "## Step 1: x\n\\boxed{5}"
LAZY = "## Step 1: y\n\\boxed{0}"
ERROR, BACK, FINE = "Error in step 1", "Backtrack to step 0", "No error"
V_0 = 0.3


def played(*texts: str, protocol: EpisodeProtocol | None = None) -> Trajectory:
    """A graded trajectory of these turns; as many tokens as characters, from one id per text on."""
    episode = Episode(protocol or Backtrack(token_budget=4096), Trajectory(PROBLEM, (0,)))
    for j, text in enumerate(texts):
        ids = tuple(range(1000 * j, 1000 * j + len(text)))
        episode.advance(text, Completion(ids, (-1.0,) * len(ids), Finish.STOP), (7,) if j else ())
    return graded(episode.trajectory(), lambda answer: grade_of(float(answer == "4")))


def valued(trajectory: Trajectory) -> Scored:
    """With the values of a sensible meta-prover: high where a right answer stands, lower where it is doubted, 0 after a
    violation."""
    values, v = [V_0], V_0
    for turn in trajectory.turns:
        if turn.violation:
            v = 0.0
        elif turn.right is not None:
            v = 0.9 if turn.right else 0.1
        elif turn.spec.phase == BacktrackPhase.BACKTRACK:
            v = 0.4
        elif turn.parsed is not None and turn.parsed.verdict is False:
            v = 0.6 if v > 0.5 else 0.2
        values.append(v)
    return Scored(trajectory, np.array(values))


@dataclass(frozen=True)
class Hack:
    """Two trajectories that are the same up to the turn `parts` (0-based)."""

    honest: Trajectory
    hacked: Trajectory
    parts: int


HACKS = {
    "an answer in every turn": Hack(
        played(RIGHT, FINE),
        played(RIGHT, f"\\boxed{{4}}\n{ERROR}", f"\\boxed{{4}}\n{BACK}", RIGHT, f"\\boxed{{4}}\n{FINE}"),
        parts=1,
    ),
    "a sandbagged first attempt": Hack(played(RIGHT, FINE), played(LAZY, ERROR, BACK, RIGHT, FINE), parts=0),
    "the old attempt again": Hack(
        played(WRONG, ERROR, BACK, RIGHT, FINE), played(WRONG, ERROR, BACK, WRONG, FINE), parts=3
    ),
    "back from a right answer": Hack(played(RIGHT, FINE), played(RIGHT, ERROR, BACK, RIGHT, FINE), parts=1),
    "endless revisions": Hack(played(RIGHT, FINE), played(RIGHT, *[ERROR, BACK, RIGHT] * 3), parts=1),
}
ALGORITHMS: dict[str, Algorithm] = {
    "mrt-rl, turn": MrtRl(),
    "mrt-rl, return_to_go": MrtRl(credit="return_to_go"),
    "mrt-rl, prefix": MrtRl(credit="prefix"),
    "grpo": Grpo(),
    "length-penalty": LengthPenalty(),
    "brpo": Brpo(),
    "igpo": Igpo(),
    "mrt-star": MrtStar(keep=1),
    "star-shortest": StarShortest(keep=1),
    "star": Star(),
}
STRICT = {
    "mrt-rl, turn",
    "length-penalty",
    "brpo",
    "igpo",
    "mrt-star",
    "star-shortest",
}  # the others are indifferent to how a right answer came about


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("name", HACKS)
def test_no_hack_pays(name: str, algo: str) -> None:
    hack, bystander = HACKS[name], played(WRONG, FINE)
    members = (valued(hack.hacked), valued(hack.honest), valued(bystander))  # the first wins where both are as good
    hacked, honest, _ = ALGORITHMS[algo].turn_weights(Group(PROBLEM, members))
    np.testing.assert_array_equal(
        [t.text for t in hack.honest.turns[: hack.parts]], [t.text for t in hack.hacked.turns[: hack.parts]]
    )
    # An algorithm that ranks whole trajectories weighs the turns before the parting, too.
    assert hacked[hack.parts] <= honest[hack.parts] + 1e-12
    if algo in STRICT or name == "the old attempt again":
        assert hacked[hack.parts] < honest[hack.parts]


@pytest.mark.parametrize("name", HACKS)
def test_the_sum_of_progress_is_that_of_the_honest_one(name: str) -> None:
    honest, hacked = valued(HACKS[name].honest), valued(HACKS[name].hacked)
    assert hacked.progress.sum() <= honest.progress.sum() + 1e-12
    assert hacked.trajectory.outcome <= honest.trajectory.outcome


@given(
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["turn", "return_to_go"]),
    st.floats(0, 4),
)
def test_lowering_the_own_value_first_is_never_worth_it(
    inner: list[float], low: float, end: float, credit: str, alpha: float
) -> None:
    """For any values in between: if both end alike, the sandbagging turn weighs at most what the honest one does."""
    hack = HACKS["a sandbagged first attempt"]
    low = min(low, end)
    honest = Scored(hack.honest, np.array([V_0, end, end]))
    hacked = Scored(hack.hacked, np.array([V_0, low, *inner[:3], end]))
    members = Group(PROBLEM, (honest, hacked))
    first, second = MrtRl(credit=credit, alpha=alpha).turn_weights(members)  # type: ignore[arg-type]
    assert second[0] <= first[0] + 1e-9
    assert hacked.progress.sum() == pytest.approx(honest.progress.sum())


def answers_of(trajectory: Trajectory) -> list[Trajectory]:
    """A member per answer, as RISE's collection has them."""
    ends = [j + 1 for j, turn in enumerate(trajectory.turns) if turn.right is not None]
    return [replace(trajectory.branch(end), given=start) for start, end in zip([0, *ends], ends, strict=False)]


def rise_credit(trajectory: Trajectory, criterion: str) -> list[float]:
    """What each answer of a trajectory weighs in all, beside a wrong bystander."""
    own = answers_of(trajectory)
    members = tuple(Scored(t) for t in (*own, *answers_of(played(WRONG, FINE))))
    rows = Rise(criterion=criterion).turn_weights(Group(PROBLEM, members))  # type: ignore[arg-type]
    return [float(row.max()) for row in rows[: len(own)]]


@pytest.mark.parametrize("criterion", ["all", "better", "best", "success"])
@pytest.mark.parametrize("name", HACKS)
def test_no_hack_pays_in_rise(name: str, criterion: str) -> None:
    hack = HACKS[name]
    honest, hacked = (rise_credit(t, criterion) for t in (hack.honest, hack.hacked))
    if name == "a sandbagged first attempt":  # the attempt itself is what would have to pay
        assert hacked[0] < honest[0]
    elif name == "the old attempt again":
        assert hacked[-1] < honest[-1]
    else:  # the right answer counts once, however often it is taken back and given again
        assert sum(hacked) == sum(honest)


def test_a_box_in_a_check_or_a_backtrack_turn_is_no_answer() -> None:
    trajectory = played(WRONG, f"\\boxed{{4}}\n{ERROR}", f"{BACK}\n\\boxed{{4}}", WRONG, FINE)
    assert [turn.right for turn in trajectory.turns] == [False, None, None, False, None]
    assert trajectory.outcome == 0.0


@pytest.mark.parametrize(
    ("texts", "stop"),
    [
        ((RIGHT, ERROR, BACK, "## Step 1: x"), StopReason.VIOLATION),  # no new answer
        ((RIGHT, "7" * 200), StopReason.VIOLATION),
        ((RIGHT, ERROR, BACK, WRONG, FINE), StopReason.FINISHED),  # the last answer stands
    ],
)
def test_an_early_right_answer_earns_nothing_later(texts: Sequence[str], stop: StopReason) -> None:
    trajectory = played(*texts)
    assert (trajectory.stop, trajectory.outcome) == (stop, 0.0)
    values = valued(trajectory).values
    assert values is not None
    assert values[-1] <= 0.1


def test_every_algorithm_with_credit_is_tried() -> None:
    tried = {type(algorithm) for algorithm in ALGORITHMS.values()} | {Rise}
    for name in plugins.names("backtrack_mrt.algos"):
        algorithm = plugins.load("backtrack_mrt.algos", name, Algorithm, "algo")  # type: ignore[type-abstract]
        own_rollouts = issubclass(algorithm, SelfTraining) or algorithm.loss == "rl"
        assert not own_rollouts or algorithm in tried
