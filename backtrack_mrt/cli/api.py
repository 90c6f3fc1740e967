"""The commands as functions, for Python programs and notebooks: part of `import backtrack_mrt as bt`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtrack_mrt.cli.places import check_new_folder, typed_path
from backtrack_mrt.cli.request import read_files
from backtrack_mrt.config import Config, Existing, RunRequest
from backtrack_mrt.config.files import DEFAULT_CONFIG, Layer, read_config, resolve
from backtrack_mrt.plugins import failures_told
from backtrack_mrt.runs import environment
from backtrack_mrt.runs.kinds import holds_run, not_trained

if TYPE_CHECKING:  # what runs a model is imported when it is called
    from backtrack_mrt.evaluation.comparison import Comparison
    from backtrack_mrt.evaluation.metrics.summary import Summary
    from backtrack_mrt.evaluation.tables import RunResult
    from backtrack_mrt.rollouts.collector import Collector
    from backtrack_mrt.runs.finished import Run


def load_config(*files: str | Path, **settings: Any) -> Config:
    """The config of YAML files (tiny.yaml without any; "auto" derives one from the model), merged left to right, then
    `settings`: fields by name, sections as mappings (``training={"steps": 8}``). Raises UserError for whatever is wrong
    in them."""
    above = Layer.of(settings, "load_config")
    return resolve([*read_files([str(file) for file in files or (DEFAULT_CONFIG,)], above), above])


def train(config: Config, existing: Existing = "refuse", *, accept_changes: bool = False) -> RunResult:
    """Train and evaluate; everything is left in the run directory, `config.run_path`. `existing`: what to do with a
    run that is there already. `accept_changes`: resume it although its config differs. Raises UserError, RunError."""
    environment.prepare()
    with environment.importing():
        from backtrack_mrt.training.train import train as run

    return run(RunRequest(config, existing, accept_changes))


def evaluate(what: Config | str | Path, save: str | Path | None = None) -> Summary:
    """Held-out results of a config's model, or of what the run in a directory trained; the trajectories go to the new
    directory `save`. Raises UserError."""
    environment.prepare()
    from backtrack_mrt.data.loading import load_held_out
    from backtrack_mrt.data.signs import first_wrong_step
    from backtrack_mrt.policy.files import find_model

    config = what if isinstance(what, Config) else _trained(Path(what))
    kept = None if save is None else Path(save)
    if kept is not None:
        check_new_folder("save", kept)
    find_model(config.model)
    problems, notes = load_held_out(config.data, config.grading)
    with environment.importing():  # late: a mistake in the config must not wait for torch
        from backtrack_mrt.evaluation.evaluate import measure
        from backtrack_mrt.rollouts.assembly import assemble, prompts_of
        from backtrack_mrt.rollouts.rehearsal import rehearse_own
        from backtrack_mrt.rollouts.row_lengths import fitting

    rehearse_own(config.protocol, prompts_of(config), problems[0])
    with failures_told(), closing((parts := assemble(config)).engine):
        length = parts.engine.context_length
        problems, passed = fitting(
            problems, config.protocol, parts.dialogue, length, field="data.eval", reserve=parts.reserve
        )
        print("".join(f"{note}\n" for note in notes + passed), end="")
        if kept is not None:
            kept.mkdir(parents=True)
        collector = _with_base(config, parts.evaluation_collector(base=True))
        summary, _ = measure(config, collector, problems, first_wrong_step, "model", kept)
    return summary


def compare(*runs: Run | str | Path) -> Comparison:
    """Finished runs side by side, the first one's algorithm as the reference. Raises UserError for runs that differ in
    more than algorithm, training and seed."""
    from backtrack_mrt.evaluation.comparison import Comparison
    from backtrack_mrt.runs.finished import read_run

    return Comparison([read_run(run) if isinstance(run, str | Path) else run for run in runs])


def _with_base(config: Config, collector: Collector) -> Collector:
    """The collector, its frozen meta-prover that of the model below an adapter; a whole model is its own base."""
    from backtrack_mrt.policy.files import base_of, is_adapter
    from backtrack_mrt.rollouts.assembly import assemble

    if collector.frozen is None or not is_adapter(typed_path(config.model.name_or_path)):
        return collector
    base = assemble(config.model_copy(update={"model": base_of(config.model)}))
    return replace(collector, frozen=base.prover())


def _trained(run: Path) -> Config:
    """The config of a run, with the model that it trained."""
    if not holds_run(run) or not (run / "model").is_dir():
        raise not_trained("RUN", run)
    config = read_config(str(run / "config.yaml"))
    return config.model_copy(update={"model": config.model.model_copy(update={"name_or_path": str(run / "model")})})
