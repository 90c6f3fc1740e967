"""The order in which a run meets its problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np

from backtrack_mrt.config import Config
from backtrack_mrt.types import Problem


def endless(problems: Sequence[Problem], seed: int) -> Iterator[Problem]:
    """The problems again and again, each pass in an order of its own. Fixed by the seed, so that a resumed run and
    every algorithm see the same."""
    for start in count(step=len(problems)):
        yield from (problems[i] for i in np.random.default_rng((seed, start)).permutation(len(problems)))


def training_order(problems: Sequence[Problem], config: Config) -> list[Problem]:
    """The problems of every step, one after the other."""
    rows = config.training.most_steps * config.training.problems_per_step
    return list(islice(endless(problems, config.seed), rows))
