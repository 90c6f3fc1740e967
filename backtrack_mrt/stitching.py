"""Warm-start data out of a model's own rollouts (MRT 2503.07572, fig. 14 and 15; METHOD: warm start).

`backtrack`  a wrong attempt, where it goes wrong, the step to return to, and the rest of a right attempt that shares
             the steps before that: the wrong part carries no loss
`rise`       a wrong attempt and any right one after it, for the protocol `retry`
`star`       a right attempt, for the protocol `single`
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from backtrack_mrt.data.signs_demo import Span
from backtrack_mrt.types import Group, Parsed, Phase, Problem, Trajectory

DemoTurns = list[tuple[str, tuple[Span, ...]]]


def stitch_backtrack(group: Group, rng: random.Random) -> DemoTurns | None:
    """The pair of a wrong and a right attempt that shares the most steps; None if there is no such pair. The model's
    own check is kept where it names the step at which they part."""
    pairs = [
        (shared_steps(wrong, right), wrong, right) for wrong in attempts(group, False) for right in attempts(group)
    ]
    pairs = [pair for pair in pairs if pair[0] < min(len(_parsed(t).steps) for t in pair[1:])]
    if not pairs:
        return None
    most = max(shared for shared, _, _ in pairs)
    shared, wrong, right = rng.choice([pair for pair in pairs if pair[0] == most])
    check = wrong.turns[1] if len(wrong.turns) > 1 else None
    own = check is not None and check.parsed is not None and check.parsed.step == shared + 1
    found = check.text if own and check is not None else f"Error in step {shared + 1}"
    return [
        (Phase.ATTEMPT, (Span(wrong.turns[0].text, learn=False),)),
        (Phase.DETECT, (Span(found),)),
        (Phase.BACKTRACK, (Span(f"Backtrack to step {shared}"),)),
        (Phase.REVISE, (Span("\n".join(_parsed(right).steps[shared:])),)),
    ]


def stitch_rise(group: Group, rng: random.Random) -> DemoTurns | None:
    """A wrong attempt and a right one, whatever they have in common."""
    wrong, right = attempts(group, False), attempts(group)
    if not wrong or not right:
        return None
    return [
        (Phase.ATTEMPT, (Span(rng.choice(wrong).turns[0].text, learn=False),)),
        ("retry", (Span(rng.choice(right).turns[0].text),)),
    ]


def stitch_star(group: Group, rng: random.Random) -> DemoTurns | None:
    """A right attempt."""
    right = attempts(group)
    return [(Phase.ATTEMPT, (Span(rng.choice(right).turns[0].text),))] if right else None


FORMS: Mapping[str, tuple[str, Callable[[Group, random.Random], DemoTurns | None]]] = {  # with the protocol of each
    "backtrack": ("backtrack", stitch_backtrack),
    "star": ("single", stitch_star),
    "rise": ("retry", stitch_rise),
}


def stitched(groups: Sequence[Group], seed: int) -> dict[str, list[tuple[Problem, DemoTurns]]]:
    """By form, one demonstration of every group that has what it takes for all of them: the same problems in each."""
    found: dict[str, list[tuple[Problem, DemoTurns]]] = {form: [] for form in FORMS}
    for group in groups:
        rng = random.Random(f"{seed}/{group.problem.id}")
        made = {form: stitch(group, rng) for form, (_, stitch) in FORMS.items()}
        for form, turns in made.items():
            if turns is not None and None not in made.values():
                found[form].append((group.problem, turns))
    return found


def attempts(group: Group, right: bool = True) -> list[Trajectory]:
    """The members whose attempt was accepted and is right, or wrong."""
    trajectories = [member.trajectory for member in group.members]
    return [t for t in trajectories if t.turns and t.turns[0].parsed is not None and t.turns[0].right is right]


def shared_steps(one: Trajectory, other: Trajectory) -> int:
    """Leading steps of the attempts with the same text."""
    shared = 0
    for ours, theirs in zip(_parsed(one).steps, _parsed(other).steps, strict=False):
        if ours != theirs:
            break
        shared += 1
    return shared


def _parsed(trajectory: Trajectory) -> Parsed:
    parsed = trajectory.turns[0].parsed
    assert parsed is not None
    return parsed
