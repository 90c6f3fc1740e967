"""What is in a directory, where something else is wanted: a run, a comparison, a part of one, a model; and what to type
in its place."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.durable import replacing

COMMAND = "command.json"  # of a comparison: the words behind `backtrack-mrt`
_OF_COMPARISONS = (COMMAND, "comparison.json", "tuning.json")
_OF_MODELS = ("config.json", "adapter_config.json")
_TRAIN = "backtrack-mrt train"
_NAME_A_RUN = "Name the directory of a run: what its --output-dir was."


@dataclass(frozen=True)
class Kind:
    """what: in a few words. runs: those that it holds, or that it belongs to. go_on: the command that goes on with it,
    where one does."""

    what: str
    runs: tuple[Path, ...] = ()
    go_on: str | None = None


def kind_of(path: Path) -> Kind:
    """What is at `path`."""
    if not path.is_dir():
        return Kind("a file, and no directory" if path.exists() else "no such directory")
    if holds_run(path):
        return Kind("a run", (path,), f"{_TRAIN} --resume {shlex.quote(str(path))}")
    if holds_comparison(path):
        return _comparison(path, "a comparison")
    for above in (*path.parents, *path.absolute().parents):
        if holds_run(above):
            whole = kind_of(above)
            what = "a checkpoint" if path.name.startswith("step_") else "a part"
            return Kind(f"{what} of the run {above}", whole.runs, whole.go_on)
        if holds_comparison(above):
            return _comparison(above, f"a part of the comparison {above}")
    if any((path / name).is_file() for name in _OF_MODELS):
        return Kind("a model", (), f"{_TRAIN} --model.name_or_path {shlex.quote(str(path))}")
    if runs := runs_in(path):
        return Kind("a folder of runs", runs)
    if (path / "config.yaml").is_file():
        return Kind("a folder of demonstrations")
    return Kind("a directory with no config.yaml" if any(path.iterdir()) else "an empty directory")


def holds_run(path: Path) -> bool:
    """Whether a run has begun there. (`warm-start` leaves a config.yaml, too, and rollouts.)"""
    return (path / "config.yaml").is_file() and not (path / "rollouts").is_dir()


def holds_comparison(path: Path) -> bool:
    """Whether a comparison has begun there."""
    return not holds_run(path) and any((path / name).is_file() for name in _OF_COMPARISONS)


def not_to_resume(field: str, path: Path) -> UserError:
    """Refuses what is no run to go on with."""
    kind = kind_of(path)
    if kind.go_on:
        remedy = f"Type: {kind.go_on}"
    elif kind.runs:
        remedy = f"Repeat the command that began it, or go on with one: {kind_of(kind.runs[0]).go_on}"
    else:
        remedy = f"{_NAME_A_RUN} To begin one, leave --resume out."
    return UserError(field, str(path), _told(kind, "run"), remedy)


def not_finished(field: str, path: Path) -> UserError:
    """Refuses what is no finished run."""
    kind = kind_of(path)
    if kind.what == "a run":
        return UserError(field, str(path), "it has not finished (no summary.json)", f"Let it finish: {kind.go_on}")
    return UserError(field, str(path), _told(kind, "run"), _in_its_place(kind.runs) or _NAME_A_RUN)


def not_trained(field: str, path: Path) -> UserError:
    """Refuses what is no run with a trained model."""
    found = in_place_of_a_model(path)
    return UserError(field, str(path), *found) if found else not_finished(field, path)


def not_to_write_into(field: str, path: Path) -> UserError:
    """Refuses the directory of a run for what else is to be written."""
    return UserError(field, str(path), f"it is {kind_of(path).what}", "Name a directory of its own.")


def no_file_of_trajectories(field: str, path: Path) -> UserError:
    """Refuses a directory where a file of trajectories is wanted."""
    files = sorted(path.glob("**/evaluation_*.jsonl")) or sorted(path.glob("**/*.jsonl"))
    remedy = f"Give a file, such as {files[0]}." if files else "Give a file, such as one in RUN/trajectories."
    return UserError(field, str(path), _told(kind_of(path), "file"), remedy)


def in_place_of_a_model(path: Path, within: str = "") -> tuple[str, str] | None:
    """Why the directory is no model, and what to give: the runs that are meant, or what is `within` them. None where
    nothing is known of it."""
    kind = kind_of(path)
    trained = [run / within for run in kind.runs if (run / "model").is_dir()]
    if trained:
        return _told(kind, "model"), _in_its_place(trained)
    if kind.runs:
        again = kind.go_on or kind_of(kind.runs[0]).go_on
        return f"it is {kind.what}, and has no trained model yet", f"Let it finish: {again}"
    return None


def write_command(folder: Path, arguments: Sequence[str]) -> None:
    """Note by which command a comparison was begun."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / COMMAND) as file:
        json.dump(list(arguments), file)


def _comparison(path: Path, what: str) -> Kind:
    """The comparison at `path`; `what` is asked about is that, or a part of it."""
    try:
        arguments = json.loads((path / COMMAND).read_text(encoding="utf-8"))
        go_on = shlex.join(["backtrack-mrt", *arguments, "--output-dir", str(path)])
    except (OSError, ValueError, TypeError):  # of `compare`, or damaged
        go_on = None
    return Kind(what, runs_in(path), go_on)


def runs_in(path: Path) -> tuple[Path, ...]:
    """The runs in a folder; none where it is no folder."""
    places = path.iterdir() if path.is_dir() else ()
    return tuple(sorted(place for place in places if place.is_dir() and holds_run(place)))


def _told(kind: Kind, wanted: str) -> str:
    missing = kind.what.startswith(("no such", "a file"))
    return kind.what if missing else f"it is {kind.what}, and no {wanted}"


def _in_its_place(places: Sequence[Path]) -> str:
    """Some of the places, to be copied."""
    shown = shlex.join(str(place) for place in places[:8])
    return f"Give {shown}{' or others there' if len(places) > 8 else ''}." if places else ""
