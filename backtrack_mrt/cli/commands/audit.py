"""Grade saved trajectories again, beside bare math-verify.

Tells verdicts that have changed and, for mathematics, answers on which bare math-verify says otherwise: those are for
people to read. A run stands for all trajectory files in it and is graded by its own grader; files by `--grader`. Exit
code 1 if a stored verdict no longer holds."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backtrack_mrt.cli.command import Parser, natural
from backtrack_mrt.cli.places import typed_path
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config.files import read_config
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.runs.kinds import holds_run, not_finished

if TYPE_CHECKING:
    from backtrack_mrt.evaluation.audit import Audit

EXAMPLES = """\
  backtrack-mrt audit runs/RUN
  backtrack-mrt audit runs/RUN/trajectories/step_000010.jsonl other.jsonl --show 20"""


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("places", type=typed_path, nargs="+", metavar="RUN|FILE.jsonl", help="runs or files of trajectories")
    add("--show", type=natural, default=10, help="findings of each kind to print (default: %(default)s)")
    parser.take_settings()
    add("--workers", type=natural, default=2, help="grading processes (default: %(default)s)")


def run(args: Namespace) -> int:
    from backtrack_mrt.evaluation.audit import audit
    from backtrack_mrt.runs.records import read_trajectories

    grader = grader_of(args.places, args.settings)
    scored = [member for place in args.places for path in files(place) for member in read_trajectories(path)]
    found = audit(scored, args.workers, grader=grader)
    report(found, args.show)
    return int(bool(found.changes))


def grader_of(places: Sequence[Path], settings: Sequence[str]) -> Grader:
    """The grader of the runs; the one that is named (mathematics without) for files. Raises UserError where the runs
    have different ones."""
    if settings or not all(map(holds_run, places)):
        return read_request(settings, training=False).config.grading
    configs = [read_config(str(place / "config.yaml")) for place in places]
    if any(config.grading != configs[0].grading for config in configs):
        raise UserError("RUN", str(places[0]), "the runs have different graders", "Audit them one by one.")
    return configs[0].grading


def files(place: Path) -> list[Path]:
    """The trajectory files of a run, or the file itself."""
    if not place.is_dir():
        return [place]
    found = sorted((place / "trajectories").glob("*.jsonl"))
    if not found:
        if holds_run(place):
            remedy = "Let it evaluate its base, or name a file of trajectories."
            raise UserError("RUN", str(place), "it has no trajectories", remedy)
        raise not_finished("RUN", place)
    return found


def report(found: Audit, show: int) -> None:
    from backtrack_mrt.grading import Verdict
    from backtrack_mrt.runs.trace import inline

    print(f"{found.trajectories} trajectories, {found.pairs} distinct answers to problems")
    print(f"{len(found.changes)} stored verdicts no longer hold")
    for change in found.changes[:show]:
        problem = change.trajectory.problem
        print(f"  {inline(problem.id)}, {change.what}: {change.stored} is now {change.now}", end="")
        print(f" (gold {inline(problem.answer)}, answer {inline(str(change.trajectory.answer))})")
    if not found.agreement:
        return
    print("grader / bare math-verify:")
    given = [verdict for verdict in Verdict if verdict is not Verdict.PARTIAL]
    for ours in given:
        row = ", ".join(f"{bare} {found.agreement[ours, bare]}" for bare in given)
        print(f"  {ours:<10} / {row}")
    print(f"{len(found.disagreements)} answers right for one of them only")
    for pair in found.disagreements[:show]:
        print(f"  gold {inline(pair.gold)}, answer {inline(pair.answer)}: {pair.ours}, bare {pair.bare}")
