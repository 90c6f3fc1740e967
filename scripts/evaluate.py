#!/usr/bin/env python
"""Evaluate a run's model, any model, or trajectories that are there already.

python scripts/evaluate.py runs/RUN --evaluation.samples 16         # RUN/model, with RUN/config.yaml
python scripts/evaluate.py tiny --data.eval_size 256                # a model; tiny.yaml unless --config says otherwise
python scripts/evaluate.py --traces FILE.jsonl                      # no model; docs/evaluation.md has the form
python scripts/evaluate.py runs/RUN --traces FILE.jsonl             # no model; cut at the limits of RUN
python scripts/evaluate.py --traces OURS.jsonl --against BASE.jsonl # also token efficiency, and BASE's maj@k

Other flags are those of train_backtrack.py; its --help lists them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from backtrack_mrt.cli.request import load_config
from backtrack_mrt.config import Config
from backtrack_mrt.data.checking import first_wrong_step
from backtrack_mrt.data.loading import load_problem_sets
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.evaluation.metrics.summary import Limits, Summary
from backtrack_mrt.evaluation.tables import rivalry_table, tables
from backtrack_mrt.policy.files import resolve
from backtrack_mrt.runs.directory import plain_json


def main() -> None:
    options, flags = parse(sys.argv[1:])
    run = options.what if options.what and (options.what / "config.yaml").is_file() else None
    saved = ["--config", str(run / "config.yaml")] if run else []
    model = [] if options.traces else ["--model.name_or_path", str(run / "model" if run else options.what)]
    config = load_config([*saved, *flags, *model]).config
    if run and model and not (run / "model").is_dir():
        raise UserError("RUN", str(run), "it has no trained model yet", "Let it finish, with --resume.")
    out = options.out or (run or Path()) / "evaluation.json"
    if not out.parent.is_dir():
        raise UserError("--out", str(out), "its directory does not exist", "Make it, or name another file.")
    limits = Limits.of(config.protocol, config.protocol.prolonged(config.evaluation.extra_revisions))
    found = {"config": config.resolved()}
    if options.traces:
        from backtrack_mrt.evaluation.metrics.summary import summarise
        from backtrack_mrt.evaluation.rivals import read_graded, rivalry

        files = [path for path in (options.traces, options.against) if path]
        read = [read_graded(path) for path in files]
        if not saved and "--config" not in flags:
            limits = Limits.found([s for scored in read for s in scored])
        found = {"traces": [str(path) for path in files]}
        summary = summarise(read[0], limits, first_wrong_step, config.evaluation.budgets)
        if options.against:
            against = rivalry(*read, limits)
            found["against"] = asdict(against)
            Console().print(rivalry_table(against))
    else:
        summary = evaluate_model(config, options.save)
    for table in tables(summary, limits.answers - 1, str(options.traces or options.what)):
        Console().print(table)
    text = json.dumps(plain_json(found | {"summary": asdict(summary)}), indent=2, ensure_ascii=False, allow_nan=False)
    out.write_text(text + "\n", encoding="utf-8")
    print(f"numbers: {out}")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the flags for the config. `what` is the run or model, None without."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--traces", type=Path, metavar="FILE", help="trajectories to analyse, without a model")
    parser.add_argument("--against", type=Path, metavar="FILE", help="another policy's trajectories, with --traces")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="new directory for the model's trajectories")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="all numbers (default: evaluation.json, RUN's or here)"
    )
    named = bool(arguments) and not arguments[0].startswith("-")
    options, flags = parser.parse_known_args(arguments[named:])
    options.what = Path(arguments[0]) if named else None
    if options.what is None and options.traces is None:
        raise UserError(
            "RUN", None, "nothing to evaluate", "Name a run or a model first, or give --traces; see --help."
        )
    if options.against and not options.traces:
        raise UserError("--against", str(options.against), "nothing to hold against it", "Give --traces, too.")
    if options.save and (options.traces or options.save.exists()):
        reason = "exists already" if options.save.exists() else "no model is evaluated with --traces"
        raise UserError("--save", str(options.save), reason, "Name a new directory, or leave --save out.")
    return options, flags


def evaluate_model(config: Config, save: Path | None) -> Summary:
    """Held-out results of the config's model; its trajectories go to `save`."""
    resolve(config.model)
    problems = load_problem_sets(config.data)
    print("".join(f"{note}\n" for note in problems.notes), end="")
    from backtrack_mrt.evaluation.evaluate import measure
    from backtrack_mrt.rollouts.assembly import assemble  # late: a mistake in the config must not wait for torch

    parts = assemble(config)
    if save is not None:
        save.mkdir(parents=True)
    collector = parts.collector(config.protocol, with_values=True)
    return measure(config, collector, problems.eval, first_wrong_step, "model", save)


if __name__ == "__main__":
    run_main(main)
