"""The reports: of a run, of a comparison, and the viewer of traces by itself."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from backtrack_mrt import __version__
from backtrack_mrt.config.yaml_text import as_yaml
from backtrack_mrt.errors import RunError, UserError, in_words
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.evaluation.evaluate import read_graded
from backtrack_mrt.evaluation.tables import outcome_table, phase_table
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.reports import rendering
from backtrack_mrt.reports.archive import Archive, TraceSource, archive, shared_out
from backtrack_mrt.reports.curves import training_charts
from backtrack_mrt.reports.headline import headline
from backtrack_mrt.reports.inputs import any_run, policies, sources
from backtrack_mrt.reports.outcomes import headline_charts, outcome_charts
from backtrack_mrt.reports.trace_html import trace_html
from backtrack_mrt.reports.trace_view import TraceView
from backtrack_mrt.runs.alarms import alarms_of, raised_at_start
from backtrack_mrt.runs.durable import replacing
from backtrack_mrt.runs.finished import Run
from backtrack_mrt.runs.processes import main_only
from backtrack_mrt.runs.trace import visible

REPORT, FIGURES = "report.html", "figures"
MOST_TRACES = 10_000  # in one file
NOTABLE = 3  # best and worst traces that are shown without scripts
LIBRARIES = ("torch", "transformers", "trl", "peft", "vllm", "numpy")


def report_run(path: Path, figures: bool = True, folder: Path | None = None) -> Path:
    """Write report.html and figures of a run, finished or not, into its directory or into `folder`. figures: False
    leaves out the files for papers. Raises UserError if there is none."""
    run = any_run(path)
    label = run.config.algo_label
    title = f"{label} on {', '.join(run.config.data.eval)}"
    state = "" if "trained" in run.summary else " Still training: this report is rebuilt at each evaluation."
    lines = [f"{path.name}: seed {run.config.seed}, {run.config.env_label}, {run.config.model.name_or_path}.{state}"]
    alarms = [*raised_at_start(path), *alarms_of(run.history, run.evaluations)]
    lines += [f"Alarm{f' at step {alarm.step}' if alarm.step else ''}: {alarm.told}." for alarm in alarms]
    content, found = _results({label: [run]}, {label: run}), sources([run])
    if "trained" in run.summary:
        content |= headline(run, found)
    if figures:
        _save_figures(folder or path, content)
    return _write(folder or path, title, lines, content, found, [run])


@main_only
def rebuild(path: Path, figures: bool = False) -> None:
    """`report_run` while training: whatever goes wrong with it is told, and costs no training."""
    try:
        report_run(path, figures)
    except Exception as error:
        told = str(error) if isinstance(error, (UserError, RunError)) else in_words(error)
        print(f"no report: {told.rstrip('.')}; `backtrack-mrt report {path}` tries again", file=sys.stderr)


def report_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write FOLDER/report.html and FOLDER/figures of finished runs side by side."""
    runs = [run for members in comparison.runs.values() for run in members]
    title = " · ".join(comparison.runs)
    interval = "Student intervals over seeds" if len(comparison.seeds) > 1 else "bootstrap intervals over problems"
    lines = [
        f"{runs[0].config.env_label} on {', '.join(runs[0].config.data.eval)}, {runs[0].config.model.name_or_path}; "
        f"seeds {', '.join(map(str, comparison.seeds))}; 95 % {interval}."
    ]
    content = _results(comparison.runs, {label: members[0] for label, members in comparison.runs.items()})
    content |= {"headline": comparison.headline(), "headline_charts": headline_charts(comparison)}
    content["outcomes"].append((comparison.rows(), "Algorithms side by side, means over seeds"))
    if comparison.sets:
        content["outcomes"].append((comparison.set_rows(), "Accuracy by problem set"))
    content["outcomes"].append((comparison.ledger_rows(), "What was gained for which tokens"))
    if comparison.tuning is not None:
        content["outcomes"].append((comparison.tuning.rows(), comparison.tuning.caption))
    _save_figures(folder, content)
    return _write(folder, title, lines, content, sources(runs), runs)


def report_traces(paths: Sequence[Path], out: Path, grader: Grader = MATH) -> Path:
    """Write the viewer of trajectory files to `out`; `grader` grades answers that have no grade. Raises UserError for a
    file that holds no trajectories."""
    stems = [path.stem for path in paths]
    labels = stems if len(set(stems)) == len(stems) else [f"{path.parent.name}/{path.stem}" for path in paths]
    found = [
        TraceSource(visible(label), label, read_graded(path, grader)) for path, label in zip(paths, labels, strict=True)
    ]
    with replacing(out) as file:
        file.write(page("Traces", [", ".join(path.name for path in paths)], {}, found, []))
    return out


def _results(runs: Mapping[str, Sequence[Run]], first: Mapping[str, Run]) -> dict[str, Any]:
    """Tables and charts."""
    evaluated = policies(runs)
    outcomes = [(outcome_table(evaluated), "Held-out problems, 95 % intervals")] if evaluated else []
    if len(phases := phase_table(evaluated)) > 1:
        outcomes.append((phases, "Held-out problems by phase, at the prolonged limit"))
    return {
        "outcomes": outcomes,
        "outcome_charts": outcome_charts(evaluated) if evaluated else [],
        "training_charts": training_charts(first),
    }


def _save_figures(folder: Path, content: Mapping[str, Any]) -> None:
    (folder / FIGURES).mkdir(exist_ok=True)
    for chart in (*content.get("headline_charts", ()), *content["outcome_charts"], *content["training_charts"]):
        chart.save(folder / FIGURES)


def _write(
    folder: Path, title: str, lines: list[str], content: dict[str, Any], found: list[TraceSource], runs: Sequence[Run]
) -> Path:
    with replacing(folder / REPORT) as file:  # a reader never meets half a page
        file.write(page(title, lines, content, found, runs))
    return folder / REPORT


def page(title: str, lines: list[str], content: dict[str, Any], found: list[TraceSource], runs: Sequence[Run]) -> str:
    """One file: tables and charts (`outcomes`, `outcome_charts`, `training_charts`), traces, what was run."""
    kept = shared_out(found, MOST_TRACES)
    nothing = {"headline": "", "headline_charts": [], "outcomes": [], "outcome_charts": [], "training_charts": []}
    content = nothing | content
    packed = archive(kept, trace_html)
    notable = _notable(kept, packed)
    sections = [
        ("results", "Results", content["outcomes"]),
        ("training", "Over training", content["training_charts"]),
        ("examples", "Best and worst traces", notable),
        ("traces", "All traces", True),
        ("setup", "What was run", runs),
    ]
    cut = [f"{s.label}: the first {len(s.scored):,} of {s.total:,}." for s in kept if len(s.scored) < s.total]
    return rendering.render_page(
        title=title,
        lines=lines,
        notes=cut,
        sections=[(name, heading) for name, heading, there in sections if there],
        notable=notable,
        archive=packed,
        drawn=lambda chart: Markup(chart.svg()),  # matplotlib's, which escapes the labels
        setup=_setup(runs),
        config=[(f"config.yaml of {run.path.name}", as_yaml(run.config.resolved())) for run in runs],
        version=__version__,
        **content,
    )


def _notable(found: Sequence[TraceSource], packed: Archive) -> list[tuple[str, list[TraceView]]]:
    """The traces to look at first, of the trained policies, or of the base as long as there is nothing else: those that
    corrected themselves and those that spoiled a right answer, most progress and least progress first; shorter ones
    first where that is equal."""
    outlined = list(zip(found, packed.outlines, strict=True))
    evaluations = [both for both in outlined if not both[0].label.rpartition(", ")[2].startswith("step ")]
    trained = [both for both in evaluations if "evaluation_base" not in both[0].name] or evaluations
    of_first_seed = [both for both in trained if both[0].seed == trained[0][0].seed]
    each = max(NOTABLE // max(len(of_first_seed), 1), 1)
    orders = {"Best": (("fixed", "right"), 1), "Worst": (("spoiled", "violation", "wrong"), -1)}
    picked = []
    for heading, (kinds, sign) in orders.items():
        best: list[TraceView] = []
        for source, outlines in of_first_seed:
            of_kind = [outline for outline in outlines if outline.kind in kinds]
            of_kind.sort(key=lambda o: (kinds.index(o.kind), -sign * o.progress, o.tokens))
            best += [source.view(outline.line) for outline in of_kind[:each]]
        if best:
            picked.append((heading, best))
    return picked


def _setup(runs: Sequence[Run]) -> list[tuple[list[list[str]], str]]:
    """Ledger and versions."""
    if not runs:
        return []
    ledger = [["run", "part", "sampled tokens", "environment", "meta-prover", "total"]]
    seconds = [["run", "part", "seconds"]]
    for run in runs:
        for part, tokens in run.summary["tokens"].items():
            ledger.append([run.path.name, part, *(f"{tokens[k]:,.0f}" for k in ("sampled", "env", "prover", "total"))])
        for part, time in run.summary.get("seconds", {}).items():
            seconds.append([run.path.name, part.replace("_", " "), f"{time:,.1f}"])
    sets = runs[0].config.data
    data = [["data", "of"], ["training", ", ".join(sets.train)], ["held out", ", ".join(sets.eval)]]
    versions = [["program", "version"], ["Python", platform.python_version()], ["backtrack-mrt", __version__]]
    versions += [[name, _version(name)] for name in LIBRARIES if _version(name)]
    tables = [
        (ledger, "Token ledger"),
        (seconds, "Wall time"),
        (data, "Problems"),
        (versions, "Versions that wrote this report"),
    ]
    return [(rows, caption) for rows, caption in tables if len(rows) > 1]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
