"""Rollouts one update off: servers draw the next batch while the policy is updated on this one.

The batch of step u + 1 is begun before the updates of step u. So the policy that draws it, and values it as the
meta-prover, is one step older than the one that is updated on it; `mismatch` weighs every token by how much likelier it
has become.
When a run is resumed that older policy is gone, so a checkpoint keeps the batch that was begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import asdict, dataclass
from typing import Any

from backtrack_mrt.rollouts.collector import Collected
from backtrack_mrt.runs.processes import gathered, rank
from backtrack_mrt.runs.records import as_record, from_record
from backtrack_mrt.types import TokenLedger

_KEPT = "begun"  # in a checkpoint's record


@dataclass(frozen=True)
class StepRollouts:
    """The rollouts for an update. lag: steps that the policy is ahead of the one that drew them. waited: seconds that
    the update had to wait for rollouts drawn ahead."""

    collected: Collected
    lag: int = 0
    waited: float = 0.0

    @property
    def seconds(self) -> Mapping[str, float]:
        """What the update's step took for them, by part."""
        return {"wait": self.waited} if self.lag else self.collected.seconds

    @property
    def seconds_ahead(self) -> Mapping[str, float]:
        """What they took beside an earlier step."""
        return self.collected.seconds if self.lag else {}


class RolloutsAhead:
    """The rollouts that are drawn in a thread of their own. Nobody else may use their engine until `wait` returns."""

    def __init__(self) -> None:
        self._thread = futures.ThreadPoolExecutor(1)
        self._begun: dict[int, futures.Future[Collected]] = {}  # by update: of the one under way, and of the next
        self._waited = 0.0

    def begin(self, update: int, draw: Callable[[], Collected]) -> None:
        """Have the rollouts for an update drawn from now on."""
        self._begun[update] = self._thread.submit(draw)

    def wait(self) -> None:
        """Until all that was begun is drawn, or has failed."""
        start = time.perf_counter()
        futures.wait(self._begun.values())
        self._waited += time.perf_counter() - start

    def take(self, update: int) -> StepRollouts | None:
        """The rollouts for the update, None if they were not begun. Raises what they failed with."""
        self.wait()
        waited, self._waited = self._waited, 0.0
        self._begun = {number: begun for number, begun in self._begun.items() if number >= update}
        begun = self._begun.get(update)
        return None if begun is None else StepRollouts(begun.result(), lag=1, waited=waited)

    def recorded(self, update: int) -> dict[str, Any]:
        """What a checkpoint before that update keeps: everyone's rollouts for it, once they are drawn. Nothing where
        some failed; then all are drawn anew by the policy of the checkpoint. All processes call it."""
        begun = self._begun.get(update)
        if begun is None:
            return {}
        everyone = gathered([None if begun.exception() else _as_json(begun.result())])
        return {} if None in everyone else {_KEPT: everyone}

    def restore(self, update: int, record: Mapping[str, Any]) -> None:
        """Take this process's rollouts for that update from a checkpoint's record."""
        if _KEPT in record:
            self._begun[update] = futures.Future()
            self._begun[update].set_result(_from_json(record[_KEPT][rank()]))

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()


def _as_json(collected: Collected) -> dict[str, Any]:
    return {
        "scored": list(map(as_record, collected.scored)),
        "ledger": asdict(collected.ledger),
        "seconds": dict(collected.seconds),
    }


def _from_json(saved: Mapping[str, Any]) -> Collected:
    return Collected(list(map(from_record, saved["scored"])), TokenLedger(**saved["ledger"]), saved["seconds"])
