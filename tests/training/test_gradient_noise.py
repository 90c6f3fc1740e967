"""Signal and noise of a gradient, from its parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.training.gradient_noise import GradientNoise, parts_together
from backtrack_mrt.training.safety import _gradient_noise


def parameters(*sizes: int) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(size)) for size in sizes]


def update(noise: GradientNoise, parts: torch.Tensor) -> dict[str, float]:
    """One update whose parts are the rows, spread over two parameters, the second of which may get none at first."""
    for p in noise.parameters:
        p.grad = None
    for part in parts:
        for p, piece in zip(noise.parameters, torch.split(part, [len(p) for p in noise.parameters]), strict=True):
            p.grad = piece.clone() if p.grad is None else p.grad + piece
        noise.see()
    return noise.taken()


def test_it_is_the_variance_of_the_sum() -> None:
    parts = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    found = update(GradientNoise(parameters(3, 4)), parts)
    mean = parts.mean(0)
    noise = 5 * ((parts - mean) ** 2).sum() / 4
    assert found["gradient/noise"] == pytest.approx(float(noise), rel=1e-5)
    assert found["gradient/signal"] == pytest.approx(float((parts.sum(0) ** 2).sum() - noise), rel=1e-5)


def test_equal_parts_have_no_noise() -> None:
    found = update(GradientNoise(parameters(2)), torch.tensor([[3.0, 4.0]] * 4))
    assert found == pytest.approx({"gradient/noise": 0.0, "gradient/signal": 400.0})


def test_there_is_no_bias() -> None:
    """Over many updates the means are the truth: 16 parts of mean m and deviation s have signal (16 m)² and noise
    16 s² per number."""
    generator = torch.Generator().manual_seed(1)
    noise = GradientNoise(parameters(50))
    found = [update(noise, 0.1 + 0.5 * torch.randn(16, 50, generator=generator)) for _ in range(200)]
    means = {name: np.mean([f[name] for f in found]) for name in found[0]}
    assert means["gradient/noise"] == pytest.approx(50 * 16 * 0.25, rel=0.03)
    assert means["gradient/signal"] == pytest.approx(50 * 1.6**2, rel=0.1)


@pytest.mark.parametrize(("together", "rows"), [(1, 1), (2, 3), (4, 4)])
def test_one_part_says_nothing(together: int, rows: int) -> None:
    assert update(GradientNoise(parameters(2), together), torch.randn(rows, 2)) == {}


def test_a_problem_that_spans_micro_batches_is_one_part() -> None:
    parts = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    whole = update(GradientNoise(parameters(3)), parts.reshape(3, 2, 3).sum(1))
    assert update(GradientNoise(parameters(3), 2), parts) == pytest.approx(whole, rel=1e-5)
    assert [parts_together(*sizes) for sizes in ((8, 64), (8, 4), (6, 4), (1, 4), (8, 8))] == [1, 2, 3, 1, 1]


@pytest.mark.parametrize(
    ("algo", "micro_batch", "looks"), [("grpo", 8, True), ("grpo", 32, False), ("star", 16, False), ("star", 2, True)]
)
def test_nothing_is_looked_at_where_an_update_is_one_part(algo: str, micro_batch: int, looks: bool) -> None:
    line = ["--algo", algo, "--training.problems_per_step", "4", "--training.group_size", "8"]
    config = read_request([*line, "--training.micro_batch_size", str(micro_batch)]).config
    setup: Any = SimpleNamespace(config=config, model=torch.nn.Linear(2, 2))
    assert (_gradient_noise(setup) is not None) is looks
