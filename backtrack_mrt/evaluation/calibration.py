"""Do values mean what they say? Estimators of V against many sampled answers on the same prefixes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.prover import LikelihoodProver, MetaProver, Prefix
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.rollouts.spelling import Speller, Spelling
from backtrack_mrt.types import FloatArray, Problem, Scored

CALIBRATION = "calibration.json"  # in a run directory
TOLERATED = 0.01  # a smaller bias is not worth a warning
CALIBRATION_STEP = 2**32  # the `step` of its seeds: no step of training or evaluation reaches it
_Z95 = 1.96


@dataclass(frozen=True)
class Bias:
    """An estimator on n prefixes. bias: mean of sampled − estimated; se: its standard error, with the problem as the
    unit; rmse: of single values, the noise of the sampled ones in it; mean: of the estimates."""

    estimator: str
    prefixes: int
    mean: float
    bias: float
    se: float
    rmse: float
    tokens: float  # per value
    seconds: float  # per value

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of the bias."""
        return self.bias - _Z95 * self.se, self.bias + _Z95 * self.se

    @property
    def off(self) -> bool:
        """Whether the estimates are wrong by more than chance, and by enough to matter."""
        low, high = self.interval
        return not low <= 0 <= high and abs(self.bias) > TOLERATED

    def as_json(self) -> dict[str, Any]:
        """Plain data for calibration.json."""
        return asdict(self) | {"interval": self.interval, "off": self.off}

    def told(self) -> list[str]:
        """At the start of a run: the bias, and what to do about it."""
        low, high = self.interval
        found = f"bias {self.bias:+.4f} [{low:+.4f}, {high:+.4f}] against sampled answers on {self.prefixes} prefixes"
        lines = [f"values by {self.estimator}: {found}"]
        if self.off:
            remedy = "auto, or monte_carlo" if self.estimator == "likelihood" else "monte_carlo"
            lines.append(
                "warning: these values miss right answers that are written in other ways. "
                f"Set prover.estimator to {remedy} (docs/method.md)."
            )
        return lines

    def line(self) -> str:
        """In a table of estimators."""
        low, high = self.interval
        cost = f"{self.tokens:.1f} tokens, {1e3 * self.seconds:.1f} ms"
        return (
            f"{self.estimator:<22} mean {self.mean:.4f}  bias {self.bias:+.4f} [{low:+.4f}, {high:+.4f}]  "
            f"{abs(self.bias) / self.se if self.se else 0:4.1f} SE  rmse {self.rmse:.4f}  {cost}"
        )


class OneTokenisation(LikelihoodProver):
    """The likelihood of one token sequence: the gold as it stands and a closing brace. For comparison."""

    def spellings(self, problem: Problem) -> tuple[Spelling, ...]:
        return (Spelling(self.dialogue.answer(problem.answer), ()),)


def calibrate(prefixes: Sequence[Prefix], provers: Mapping[str, MetaProver], sampled: FloatArray) -> list[Bias]:
    """Each prover's bias against the values of `sampled` answers, (len(prefixes),)."""
    names = [problem.id for _, problem in prefixes]
    found = []
    for name, prover in provers.items():
        spent, start = prover.tokens, time.perf_counter()
        values = prover.prefix_values(prefixes)
        seconds, tokens = time.perf_counter() - start, prover.tokens - spent
        gap, n = sampled - values, len(prefixes)
        mean, bias, rmse = float(values.mean()), float(gap.mean()), float(np.sqrt((gap**2).mean()))
        found.append(Bias(name, n, mean, bias, _clustered_se(gap, names), rmse, tokens / n, seconds / n))
    return found


def at_start(parts: Assembly, problems: Sequence[Problem]) -> Bias | None:
    """The bias of the run's estimator on the first and last prefixes of a few rollouts, by what training pays. The
    reference has the likelihood as its control variate, so a few samples show what it misses. None where nothing is
    asked for or can be found: no likelihood in use, or every gold has one spelling only. The run's random numbers stay
    as they are, and the engine's cache is left empty."""
    section, config = parts.config.prover, parts.config
    if not section.calibration or section.estimator not in ("likelihood", "auto") or not parts.grader.listed:
        return None
    prover, some = parts.prover(grader=parts.paying), problems[: ceil(section.calibration / 2)]
    speller = Speller(parts.dialogue, parts.grader.spellings)
    if all(len(s) == 1 and len(s[0].endings) == 1 for s in (speller.spellings(p) for p in some)):
        return None
    sampled = parts.sampled_prover(section, parts.paying, seed=config.seed + 1)
    collector = parts.collector(config.protocol, with_values=False, grader=parts.paying)
    with collector.synced() as synced:
        seeds = trajectory_seeds(config.seed, CALIBRATION_STEP, len(some))
        scored = synced.collect(some, seeds, config.training.temperature).scored
        ends = [prefix for each in prefixes_of(parts, scored) if each for prefix in (each[0], each[-1])]
        if not (prefixes := ends[: section.calibration]):
            return None
        (bias,) = calibrate(prefixes, {section.estimator: prover}, sampled.prefix_values(prefixes))
    return bias


def prefixes_of(parts: Assembly, scored: Sequence[Scored]) -> list[list[Prefix]]:
    """The prefixes c_0 … c_E of each trajectory behind which an answer can be sampled (see `MetaProver.prefix`)."""
    prover = parts.sampled_prover(parts.config.prover, parts.paying)
    found = []
    for trajectory in (s.trajectory for s in scored):
        asked = [prover.prefix(trajectory, j) for j in range(len(trajectory.turns) + 1)]
        found.append([prefix for prefix in asked if prefix is not None])
    return found


def _clustered_se(gap: FloatArray, names: Sequence[str]) -> float:
    """Standard error of the mean: gaps of one problem are not independent of one another."""
    _, index = np.unique(np.array(names), return_inverse=True)
    sums = np.bincount(index, weights=gap - gap.mean())
    groups = len(sums)
    return float(np.sqrt((sums**2).sum() * groups / max(groups - 1, 1)) / len(gap))
