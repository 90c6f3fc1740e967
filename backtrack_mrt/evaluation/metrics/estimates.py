"""Means over problems with 95 % bootstrap intervals: problems are resampled, each with all its samples. Means over
seeds with Student's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from backtrack_mrt.types import FloatArray, Scored, Trajectory

RESAMPLES = 2000
MIN_PROBLEMS = 5  # fewer say nothing about the spread between problems
LEVELS = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` trajectories with its 95 % interval; `low` and `high` are NaN if there are too few problems for
    one, and all is NaN if there is nothing to average (n = 0)."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        if math.isnan(self.low):
            return f"{self.mean:.3f} (too few problems for an interval)"
        return self.told()

    def told(self, sign: str = "", digits: int = 3, short: bool = False) -> str:
        """The number with its interval, as far as there are; short: with half of its width."""
        if math.isnan(self.mean):
            return "–"
        number = f"{self.mean:{sign}.{digits}f}"
        if math.isnan(self.low):
            return number
        if short:
            return f"{number} ± {self.high - self.mean:.{digits}f}"
        return f"{number} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def bootstrap(per_problem: Sequence[Sequence[float]]) -> Estimate:
    """Mean over all samples of all problems. NaN with no samples at all."""
    if not per_problem:
        return NOTHING
    sums = np.array([[float(np.sum(samples))] for samples in per_problem])
    counts = np.array([[len(samples)] for samples in per_problem])
    return ratio_estimates(sums, counts)[0]


def ratio_estimates(sums: ArrayLike, counts: ArrayLike, n: ArrayLike | None = None) -> list[Estimate]:
    """Σ sums / Σ counts over problems, for each of M columns.

    sums, counts: shape (P, M). n: trajectories behind each column, shape (M,); by default Σ counts.
    """
    sums_PM, counts_PM = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not len(sums_PM):
        return [NOTHING] * sums_PM.shape[1]
    total_M = counts_PM.sum(0)
    mean_M = np.divide(sums_PM.sum(0), total_M, out=np.full(len(total_M), np.nan), where=total_M > 0)
    # Resampled around the mean, so that single precision is exact enough.
    centred_PM = sums_PM - np.nan_to_num(mean_M) * counts_PM
    shift_RM = _resampled_ratio(centred_PM, counts_PM)
    low_M, high_M = mean_M + np.quantile(shift_RM, LEVELS, axis=0)
    few_M = np.count_nonzero(counts_PM, axis=0) < MIN_PROBLEMS
    low_M[few_M], high_M[few_M] = np.nan, np.nan
    n_M = total_M if n is None else np.asarray(n)
    return [
        Estimate(float(mean), float(low), float(high), int(count))
        for mean, low, high, count in zip(mean_M, low_M, high_M, n_M, strict=True)
    ]


@lru_cache(maxsize=2)
def draws(problems: int, seed: int = 0) -> NDArray[np.float32]:
    """How often each problem is in each resample, shape (R, P). All numbers about as many problems share their draws,
    so those of two policies on the same problems are paired."""
    rng = np.random.default_rng(seed)
    counts_RP = np.empty((RESAMPLES, problems), dtype=np.float32)
    for row in counts_RP:
        row[:] = np.bincount(rng.integers(problems, size=problems), minlength=problems)
    counts_RP.flags.writeable = False
    return counts_RP


def _resampled_ratio(sums_PM: FloatArray, counts_PM: FloatArray, seed: int = 0) -> FloatArray:
    """Ratio of the sums in every resample, shape (R, M); 0 where a resample has no samples."""
    draws_RP = draws(len(sums_PM), seed)
    sums_RM, counts_RM = (draws_RP @ table.astype(np.float32) for table in (sums_PM, counts_PM))
    ratio_RM = np.divide(sums_RM, counts_RM, out=np.zeros_like(sums_RM), where=counts_RM > 0)
    return ratio_RM.astype(np.float64)


def resampled_means(numbers: FloatArray, seed: int = 0) -> FloatArray:
    """Means over problems of numbers (P, M) in every resample, shape (R, M)."""
    mean = numbers.mean(0)
    resampled: FloatArray = mean + _resampled_ratio(numbers - mean, np.ones_like(numbers), seed)
    return resampled


def of_resamples(value: float, resampled: FloatArray, problems: int, n: int) -> Estimate:
    """`value` with the interval of its resamples (R,). NaN among them (the number does not exist there) are left out;
    with more than one in twenty there is no interval."""
    known = resampled[np.isfinite(resampled)]
    if math.isnan(value):
        return NOTHING
    if problems < MIN_PROBLEMS or len(known) < 0.95 * len(resampled):
        return Estimate(value, math.nan, math.nan, n)
    low, high = np.quantile(known, LEVELS)
    return Estimate(value, float(low), float(high), n)


class ProblemIndex:
    """Which of P problems each of N trajectories is of, to average numbers about the trajectories."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        places: dict[str, int] = {}
        rows = [places.setdefault(s.trajectory.problem.id, len(places)) for s in scored]
        self.ids, self.rows = tuple(places), np.array(rows, dtype=np.intp)

    def ratios(self, sums: ArrayLike, counts: ArrayLike) -> list[Estimate]:
        """Σ sums / Σ counts over all trajectories, both (N, M): shares of what occurs several times in one."""
        return ratio_estimates(self._summed(sums), self._summed(counts))

    def ratio(self, sums: ArrayLike, counts: ArrayLike) -> Estimate:
        """The same for one of each per trajectory, (N,)."""
        return self.ratios(*(np.asarray(each, dtype=np.float64)[:, None] for each in (sums, counts)))[0]

    def means(self, numbers: ArrayLike) -> list[Estimate]:
        """Means over the trajectories of a problem, then over problems, of numbers (N, M); NaN is left out."""
        numbers_NM = np.asarray(numbers, dtype=np.float64)
        means_PM = self.problem_means(numbers_NM)
        known = ~np.isnan(means_PM)
        return ratio_estimates(np.nan_to_num(means_PM), known, (~np.isnan(numbers_NM)).sum(0))

    def mean(self, numbers: ArrayLike) -> Estimate:
        """The same for one number per trajectory, (N,)."""
        return self.means(np.asarray(numbers, dtype=np.float64)[:, None])[0]

    def problem_means(self, numbers: ArrayLike) -> FloatArray:
        """Means over the trajectories of each problem, shape (P, M); NaN where all are NaN."""
        numbers_NM = np.asarray(numbers, dtype=np.float64)
        counts_PM = self._summed(~np.isnan(numbers_NM))
        sums_PM = self._summed(np.nan_to_num(numbers_NM))
        means: FloatArray = np.divide(sums_PM, counts_PM, out=np.full(counts_PM.shape, np.nan), where=counts_PM > 0)
        return means

    def _summed(self, numbers: ArrayLike) -> FloatArray:
        numbers_NM = np.asarray(numbers, dtype=np.float64)
        summed = np.zeros((len(self.ids), numbers_NM.shape[1]))
        np.add.at(summed, self.rows, numbers_NM)
        return summed


def per_problem(trajectories: Sequence[Trajectory], numbers: Sequence[float]) -> list[list[float]]:
    """A number of every trajectory, gathered by problem, in order of first appearance."""
    gathered: dict[str, list[float]] = defaultdict(list)
    for trajectory, number in zip(trajectories, numbers, strict=True):
        gathered[trajectory.problem.id].append(number)
    return list(gathered.values())


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean with its 95 % Student interval over seeds; NaN limits with fewer than two."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), n)
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)
