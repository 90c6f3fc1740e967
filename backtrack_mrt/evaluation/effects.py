"""The effects that the paper reports, each as a number with its interval over seeds and a verdict (docs/results.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from backtrack_mrt.evaluation.compared_runs import at, efficiency, gain
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.learning_curves import ratio
from backtrack_mrt.evaluation.metrics.estimates import Estimate, over_seeds
from backtrack_mrt.evaluation.tables import as_markdown
from backtrack_mrt.runs.finished import Run, mean_of

MRT, CONTROL, PENALTY, SEARCH = "mrt-rl", "grpo", "length-penalty", "rise"

Value = Callable[[Run], float]


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
        """shown, not shown, reversed or smaller; without an interval, why there is none."""
        low, high = self.estimate.low - self.null, self.estimate.high - self.null
        if not low <= high:  # NaN
            return "one seed: no interval" if self.estimate.n < 2 else "a seed has no such number"
        if low > 0 or high < 0:
            return "shown" if (low > 0) == self.claimed_above else "smaller" if self.sized else "reversed"
        return "not shown"


def effects(
    comparison: Comparison,
    warm_start: Mapping[str, Sequence[float]],
    given: Mapping[str, Sequence[float]],
) -> list[Effect]:
    """All effects. warm_start: the SFT loss by the form of the data; given: the progress of the first backtrack from
    attempts that are given to all, by algorithm. One number per seed each."""
    mrt, control, penalty = (_label(comparison, algo) for algo in (MRT, CONTROL, PENALTY))
    ours, theirs = comparison.runs[mrt], comparison.runs[control]

    def against(
        name: str, measure: str, value: Value, above: bool = True, algo: str = mrt, to: str = control
    ) -> Effect:
        return Effect(name, measure, comparison.difference(algo, value, to=to), above)

    def sized(name: str, measure: str, ratios: Sequence[float], size: float) -> Effect:
        return Effect(name, measure, over_seeds(ratios), null=size, sized=True)

    gains = [ratio(gain(one), gain(other)) for one, other in zip(ours, theirs, strict=True)]
    tokens = [efficiency(one, than=other) for one, other in zip(ours, theirs, strict=True)]
    regret, frozen = at("trained", "normalised_regret"), at("trained", "normalised_regret_frozen")
    penalised = partial(against, above=False, algo=penalty, to=mrt)
    found = [
        against("1 gain", "gain of mrt-rl − gain of grpo, as trained", gain),
        sized("1 gain, the paper's size", "gain of mrt-rl / gain of grpo (2–3)", gains, 2),
        against("1 gain, prolonged", "accuracy at twice the revisions", at("trained", "accuracy_prolonged")),
        Effect("2 token efficiency", "tokens grpo needs / tokens mrt-rl needs", over_seeds(tokens), null=1.0),
        sized("2 token efficiency, the paper's size", "the same (1.5–1.7)", tokens, 1.5),
        against("3 regret, each policy's own values", "mrt-rl − grpo, trained budget", regret, above=False),
        against("3 regret, one prover", "mrt-rl − grpo, trained budget", frozen, above=False),
        against("3 regret beyond, each policy's own values", "at twice the budget", _beyond("regret"), above=False),
        against("3 regret beyond, one prover", "at twice the budget", _beyond("regret_frozen"), above=False),
        penalised("4 length penalty: tokens", "length-penalty − mrt-rl", at("trained", "tokens")),
        penalised("4 length penalty: accuracy", "length-penalty − mrt-rl", gain),
    ]
    for lower, higher in (("backtrack", "star"), ("star", "rise")):
        if warm_start:
            found.append(
                _paired("5 warm-start loss", f"SFT loss of {lower} − {higher} data", warm_start, lower, higher, False)
            )
    for other in (control, _label(comparison, SEARCH)):
        measure = f"first backtrack from given attempts, mrt-rl − {other}"
        found.append(_paired("6 progress", measure, given, mrt, other, True))
    return found


def _label(comparison: Comparison, algo: str) -> str:
    """The first label of the algorithm: labels tell settings, too."""
    return next(label for label, runs in comparison.runs.items() if runs[0].config.algo_label == algo)


def _beyond(name: str) -> Value:
    """At the largest budget."""
    return lambda run: mean_of(run.summary["trained"][name][max(run.summary["trained"][name], key=float)])


def _paired(
    name: str, measure: str, numbers: Mapping[str, Sequence[float]], ours: str, theirs: str, above: bool
) -> Effect:
    differences = [one - other for one, other in zip(numbers[ours], numbers[theirs], strict=True)]
    return Effect(name, measure, over_seeds(differences), above)


def table(found: Sequence[Effect]) -> str:
    """As Markdown."""
    rows = [["effect", "measure", "claimed", "measured [95 %]", "verdict"]]
    for effect in found:
        claimed = f"{'above' if effect.claimed_above else 'below'} {effect.null:g}"
        rows.append([effect.name, effect.measure, claimed, effect.estimate.told(), f"**{effect.verdict}**"])
    return as_markdown(rows)
