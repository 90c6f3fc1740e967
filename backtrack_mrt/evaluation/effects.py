"""The effects that the paper reports, each as a number with its interval over seeds and a verdict (METHOD §6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.evaluation.compared_runs import at, efficiency, gain
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.metrics.estimates import Estimate, over_seeds
from backtrack_mrt.evaluation.tables import as_markdown
from backtrack_mrt.runs.finished import Run, mean_of

MRT, CONTROL, PENALTY = "mrt-rl", "grpo", "length-penalty"


@dataclass(frozen=True)
class Effect:
    """`estimate` against `null`: the effect is shown if the whole interval lies on the claimed side of it, reversed if
    it lies on the other, else not shown. sized: `null` is the paper's size and not the absence of an effect, so that
    what lies on the other side is smaller, not reversed."""

    name: str
    measure: str
    estimate: Estimate
    claimed_above: bool = True
    null: float = 0.0
    sized: bool = False

    @property
    def verdict(self) -> str:
        """shown, not shown, reversed or smaller; "one seed" without an interval."""
        low, high = self.estimate.low - self.null, self.estimate.high - self.null
        if not low <= high:  # NaN
            return "one seed: no interval"
        if low > 0 or high < 0:
            return "shown" if (low > 0) == self.claimed_above else "smaller" if self.sized else "reversed"
        return "not shown"


def effects(comparison: Comparison, warm_start: Mapping[str, Sequence[float]]) -> list[Effect]:
    """All effects. `warm_start`: the final SFT loss by the form of the data, one number per seed."""

    def against_control(name: str, measure: str, *place: str | int, algo: str = MRT, above: bool = True) -> Effect:
        return Effect(name, measure, comparison.difference(algo, at(*place), to=CONTROL), above)

    def beyond(name: str) -> Callable[[Run], float]:
        """At the largest budget."""
        return lambda run: mean_of(run.summary["trained"][name][max(run.summary["trained"][name], key=float)])

    mrt, control = comparison.runs[MRT], comparison.runs[CONTROL]
    ratios = [efficiency(ours, than=theirs) for ours, theirs in zip(mrt, control, strict=True)]
    gains = [float(np.divide(gain(ours), gain(theirs))) for ours, theirs in zip(mrt, control, strict=True)]
    found = [
        Effect("1 gain", "gain of mrt-rl − gain of grpo, as trained", comparison.difference(MRT, gain, to=CONTROL)),
        Effect(
            "1 gain, the paper's size", "gain of mrt-rl / gain of grpo (2–3)", over_seeds(gains), null=2, sized=True
        ),
        against_control("1 gain, prolonged", "accuracy at twice the revisions", "trained", "accuracy_prolonged"),
        Effect("2 token efficiency", "tokens grpo needs / tokens mrt-rl needs", over_seeds(ratios), null=1.0),
        Effect("2 token efficiency, the paper's size", "the same (1.5–1.7)", over_seeds(ratios), null=1.5, sized=True),
        against_control("3 regret", "mrt-rl − grpo, trained budget", "trained", "normalised_regret", above=False),
        Effect("3 regret beyond", "twice the budget", comparison.difference(MRT, beyond("regret"), to=CONTROL), False),
        against_control(
            "3 regret, one prover", "by the frozen base's values", "trained", "normalised_regret_frozen", above=False
        ),
        Effect(
            "3 regret beyond, one prover",
            "twice the budget, by the frozen base's values",
            comparison.difference(MRT, beyond("regret_frozen"), to=CONTROL),
            False,
        ),
        against_control(
            "4 length penalty: tokens", "length-penalty − grpo", "trained", "tokens", algo=PENALTY, above=False
        ),
        against_control(
            "4 length penalty: accuracy", "length-penalty − grpo", "trained", "accuracy", algo=PENALTY, above=False
        ),
    ]
    for lower, higher in (("backtrack", "star"), ("star", "rise")):
        if warm_start:
            pairs = zip(warm_start[lower], warm_start[higher], strict=True)
            estimate = over_seeds([ours - theirs for ours, theirs in pairs])
            found.append(Effect("5 warm-start loss", f"SFT loss of {lower} − {higher} data", estimate, False))
    found.append(
        against_control("6 progress", "mean progress of a backtrack", "trained", "moves", "backtrack", "progress")
    )
    return found


def table(found: Sequence[Effect]) -> str:
    """As Markdown."""
    rows = [["effect", "measure", "claimed", "measured [95 %]", "verdict"]]
    for effect in found:
        claimed = f"{'above' if effect.claimed_above else 'below'} {effect.null:g}"
        rows.append([effect.name, effect.measure, claimed, str(effect.estimate), f"**{effect.verdict}**"])
    return as_markdown(rows)
