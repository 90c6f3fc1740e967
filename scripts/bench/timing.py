"""How the benchmarks measure: processor seconds, so that other programs on the machine count little (wall seconds on a
GPU); ways in turn, so that what changes in the meantime hits all alike; medians, with the lowest, the highest and n."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

import torch

from backtrack_mrt.errors import UserError


def check_steps(steps: int, warm_up: int, field: str = "training.steps") -> None:
    """Raises UserError where nothing is left to be measured behind the steps that warm up."""
    if steps <= warm_up:
        reason = "nothing is measured in the first ones, which warm up"
        raise UserError(field, steps, reason, f"Take {warm_up + 1} or more.")


class Times:
    """Seconds by way, one for every round."""

    def __init__(self, on_gpu: bool = False) -> None:
        self.on_gpu = on_gpu
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def of(self, way: str) -> Iterator[None]:
        """Time the block, and keep it for that way."""
        clock = time.perf_counter if self.on_gpu else processor_seconds
        start = clock()
        yield
        if self.on_gpu:
            torch.cuda.synchronize()
        self.seconds.setdefault(way, []).append(clock() - start)

    def in_turn(
        self, ways: Mapping[str, Callable[[], Any]], rounds: int, before: Callable[[], Any] = lambda: None
    ) -> Iterator[tuple[str, Any]]:
        """Each way `rounds` times, forwards and backwards by turns, after a round that warms up; what each gave.
        before: called before each round, not timed."""
        for number in range(rounds + 1):
            before()
            for way, work in ways.items() if number % 2 == 0 else reversed(ways.items()):
                with self.of(way):
                    found = work()
                yield way, found
            if number == 0:
                self.seconds = {way: [] for way in ways}

    @classmethod
    def of_ways(
        cls,
        ways: Mapping[str, Callable[[], Any]],
        rounds: int,
        before: Callable[[], Any] = lambda: None,
        on_gpu: bool = False,
    ) -> Times:
        """`in_turn`, whatever the ways give."""
        times = cls(on_gpu)
        for _ in times.in_turn(ways, rounds, before):
            pass
        return times

    def median(self, way: str) -> float:
        return median(self.seconds[way])

    def told(self, way: str) -> str:
        """``1.23 s [1.20, 1.31]``"""
        found = self.seconds[way]
        return f"{median(found):.3g} s [{min(found):.3g}, {max(found):.3g}]"

    def ratio(self, way: str, other: str) -> str:
        """Of the seconds of one way to the other's in the same round: ``1.43 [1.40, 1.52], n = 5``."""
        return spread([a / b for a, b in zip(self.seconds[way], self.seconds[other], strict=True)])


def processor_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def spread(ratios: list[float]) -> str:
    """Median, lowest, highest, n."""
    return f"{median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}], n = {len(ratios)}"


def count_processor_time() -> None:
    """Have `time.perf_counter`, by which the trainer measures its parts, count this process's processor time. On a GPU
    it stays the wall clock."""
    if not torch.cuda.is_available():
        time.perf_counter = time.process_time
