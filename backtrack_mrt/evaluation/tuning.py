"""What was tried before a comparison, on the validation sets: tuning.json, and its table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from backtrack_mrt.evaluation.metrics.estimates import over_seeds
from backtrack_mrt.evaluation.tables import Rows
from backtrack_mrt.runs.durable import replacing
from backtrack_mrt.runs.jsonl import json_text, read_whole

TUNING = "tuning.json"


@dataclass(frozen=True)
class Tried:
    """One run. settings: what was tried, by field. run: its directory, in the comparison's. accuracy, base: held out,
    at the trained limit; None for a run that broke down. tokens: spent in training (until then). told: why it broke
    down, or its alarms."""

    algo: str
    number: int  # of the setting, for this algorithm
    settings: Mapping[str, str]
    seed: int
    run: str
    accuracy: float | None
    base: float | None
    tokens: Mapping[str, int]
    told: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """Accuracy − the base's. A run that broke down has lost all of that."""
        return -1.0 if self.accuracy is None or self.base is None else self.accuracy - self.base


@dataclass(frozen=True)
class Tuning:
    """All runs, algorithm by algorithm. sets: the problems that they were judged on."""

    sets: Sequence[str]
    tried: Sequence[Tried]

    @property
    def caption(self) -> str:
        """What the table shows."""
        seeds = ", ".join(map(str, sorted({tried.seed for tried in self.tried})))
        return f"Settings were chosen on {', '.join(self.sets)}, with as many runs for each algorithm, seeds {seeds}"

    @property
    def settings(self) -> dict[tuple[str, int], list[Tried]]:
        """The runs of each setting of each algorithm, one per seed."""
        found = defaultdict(list)
        algos = list(dict.fromkeys(tried.algo for tried in self.tried))
        for tried in sorted(self.tried, key=lambda tried: (algos.index(tried.algo), tried.number)):
            found[tried.algo, tried.number].append(tried)
        return dict(found)

    def best(self, algo: str) -> int | None:
        """The number of the setting with the highest mean accuracy over the seeds, the first of equals; None if all
        have broken down."""
        means = {
            number: sum(run.gain for run in runs) / len(runs)
            for (name, number), runs in self.settings.items()
            if name == algo and any(run.accuracy is not None for run in runs)
        }
        return max(means, key=lambda number: means[number]) if means else None

    def rows(self) -> Rows:
        """The table: a row per setting, the best of each algorithm marked."""
        table = [["algorithm", "settings", "accuracy", "gain", "sampled tokens", "kept", ""]]
        for (algo, number), runs in self.settings.items():
            whole = [run for run in runs if run.accuracy is not None and run.base is not None]
            accuracy, gain = "broke down", "broke down"
            if whole:
                accuracy = over_seeds([run.accuracy or 0.0 for run in whole]).told(short=True)
                gain = over_seeds([run.gain for run in whole]).told("+", short=True)
            if whole and len(whole) < len(runs):  # the choice counts what these numbers leave out
                of = f"{len(whole)} of {len(runs)} seeds"
                counted = sum(run.gain for run in runs) / len(runs)
                accuracy, gain = f"{accuracy} ({of})", f"{gain} ({of}); counted as {counted:+.3f}"
            sampled = sum(run.tokens.get("sampled", 0) for run in runs) / len(runs)
            table.append(
                [
                    algo,
                    ", ".join(f"{field} {value}" for field, value in runs[0].settings.items()),
                    accuracy,
                    gain,
                    f"{sampled:,.0f}",
                    "**kept**" if self.best(algo) == number else "",
                    "; ".join(dict.fromkeys(told for run in runs for told in run.told)),
                ]
            )
        return table

    def write(self, folder: Path) -> None:
        """FOLDER/tuning.json, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / TUNING) as file:
            file.write(json_text({"sets": list(self.sets), "tried": [asdict(tried) for tried in self.tried]}))


_TUNING = TypeAdapter(Tuning)


def read_tuning(folder: Path) -> Tuning | None:
    """The tuning of a comparison; None if there was none."""
    path = folder / TUNING
    if not path.exists():
        return None
    remedy = "Delete it: what was tried is gathered again from the runs."
    return read_whole(path, _TUNING.validate_python, what="the trials of a comparison", field=TUNING, remedy=remedy)
