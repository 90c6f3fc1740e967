"""Do likelihood values mean what they say? Likelihood against monte_carlo with many samples on the same prefixes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from backtrack_mrt.rollouts.prover import MetaProver, Prefix
from backtrack_mrt.types import FloatArray


@dataclass(frozen=True)
class Calibration:
    """bias: mean of monte_carlo − likelihood, with its standard error. If likelihood is the success probability p, the
    monte_carlo share of K samples has variance p(1−p)/K: `rmse_binomial` is the rmse this predicts."""

    prefixes: int
    samples: int
    bias: float
    bias_se: float
    rmse: float
    rmse_binomial: float
    tokens_per_value: tuple[float, float]  # likelihood, monte_carlo
    seconds_per_value: tuple[float, float]

    def lines(self) -> list[str]:
        """For people."""
        inside = "within" if abs(self.bias) <= self.bias_se else f"{abs(self.bias) / self.bias_se:.1f} ×"
        cheap, dear = zip(self.tokens_per_value, self.seconds_per_value, strict=True)
        return [
            f"{self.prefixes} prefixes, monte_carlo with K = {self.samples}",
            f"bias (monte_carlo − likelihood)  {self.bias:+.5f} (standard error {self.bias_se:.5f}: {inside} it)",
            f"rmse                             {self.rmse:.5f} (binomial prediction {self.rmse_binomial:.5f})",
            f"per value, likelihood            {cheap[0]:.1f} tokens, {1e3 * cheap[1]:.3f} ms",
            f"per value, monte_carlo           {dear[0]:.1f} tokens, {1e3 * dear[1]:.3f} ms",
        ]


def calibrate(prefixes: list[Prefix], likelihood: MetaProver, monte_carlo: MetaProver, samples: int) -> Calibration:
    """Both estimates on the same prefixes. The standard error of the bias is the binomial one."""
    p, tokens_p, seconds_p = _measured(likelihood, prefixes)
    share, tokens_share, seconds_share = _measured(monte_carlo, prefixes)
    n, difference, variance = len(prefixes), share - p, p * (1 - p) / samples
    return Calibration(
        prefixes=n,
        samples=samples,
        bias=float(difference.mean()),
        bias_se=float(np.sqrt(variance.sum()) / n),
        rmse=float(np.sqrt((difference**2).mean())),
        rmse_binomial=float(np.sqrt(variance.mean())),
        tokens_per_value=(tokens_p / n, tokens_share / n),
        seconds_per_value=(seconds_p / n, seconds_share / n),
    )


def _measured(prover: MetaProver, prefixes: list[Prefix]) -> tuple[FloatArray, int, float]:
    """Values, tokens spent, seconds."""
    tokens, start = prover.tokens, time.perf_counter()
    values = prover.prefix_values(prefixes)
    return values, prover.tokens - tokens, time.perf_counter() - start
