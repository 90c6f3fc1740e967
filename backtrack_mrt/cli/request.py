"""From a command line to a `RunRequest`: YAML files merged left to right, then the flags, validated once.

Neither torch nor a model is loaded here: a mistake costs half a second.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backtrack_mrt import plugins
from backtrack_mrt.cli.flags import read_line, settings_parser
from backtrack_mrt.config import Config, RunRequest
from backtrack_mrt.config.extending import read_layers
from backtrack_mrt.config.files import DEFAULT_CONFIG, PLUGINS, Layer, Merged, resolve, shipped_configs
from backtrack_mrt.config.model import ESTIMATORS, PROVERS
from backtrack_mrt.config.run import TUNING_SEED
from backtrack_mrt.config.trials import (
    Trial,
    as_layer,
    as_typed,
    on_validation,
    owners,
    read_grid,
    refuse_equal,
    refuse_twice,
    refuse_untried,
    settings_of,
)
from backtrack_mrt.errors import Mistakes, UserError, did_you_mean
from backtrack_mrt.runs.kinds import holds_run, not_to_resume
from backtrack_mrt.runs.processes import tell

AUTO = "auto"  # a config that is derived from the model
_TOLD: set[str] = set()  # lines that this process has told


def read_request(
    argv: Sequence[str], description: str = "", prog: str | None = None, *, training: bool = True
) -> RunRequest:
    """Read a command line. ``--help`` prints and exits. Raises UserError for all that is not understood.

    training: see `config.files.resolve`; False for a command that does not train."""
    options, layers = _layers(argv, training)
    if options.help:
        parser = settings_parser(Merged(layers), prog=prog, description=description, epilog=_epilog())
        print(parser.format_help(), end="")
        sys.exit(0)
    refuse_twice("--seeds", options.seeds)
    refuse_twice("--tune-seeds", options.tune_seeds)
    if options.tune_seeds and not options.tune:
        raise UserError("--tune-seeds", options.tune_seeds, "there is nothing to tune", "Say what with --tune.")
    return RunRequest(
        resolve(layers, training),
        existing="resume" if options.resume else "overwrite" if options.overwrite else "refuse",
        accept_changes=options.accept_changes,
        dry_run=options.dry_run,
        compare=tuple(options.compare),
        seeds=tuple(options.seeds),
        tune=tuple(options.tune),
        tune_seeds=tuple(options.tune_seeds) or (TUNING_SEED,),
        equal=tuple(dict.fromkeys(options.equal)),
    )


def comparison_requests(argv: Sequence[str]) -> list[RunRequest]:
    """The command line once for its own algorithm and once for each of ``--compare``. Flags of the algorithm are the
    first one's; the others have the settings of the YAML files. Raises UserError for an algorithm named twice."""
    first = read_request(argv)
    requests, mistakes, layers = [first], Mistakes(), _layers(argv)[1]
    names = [plugins.dashed(plugins.label(name)) for name in (first.config.algo, *first.compare)]
    for name in first.compare:
        with mistakes.collected():
            if names.count(plugins.dashed(plugins.label(name))) > 1:
                raise UserError("--compare", name, "this algorithm is named twice", "Name each one once.")
            requests.append(RunRequest(resolve(_of(name, first, layers)), first.existing, first.accept_changes))
    mistakes.tell()
    return requests


def trials(argv: Sequence[str], requests: Sequence[RunRequest]) -> dict[str, list[Trial]]:
    """What ``--tune`` tries for each algorithm of a comparison, by its name in titles. Raises UserError for whatever
    keeps that from being fair: no validation sets, no budget of tokens, seeds that the final runs have."""
    first, layers = requests[0], _layers(argv)[1]
    grid, known = read_grid(first.tune), {plugins.dashed(request.config.algo_label) for request in requests}
    mistakes = Mistakes()
    if stray := owners(grid) - known:
        remedy = did_you_mean(min(stray), sorted(known))
        mistakes.append(UserError("--tune", min(stray), "no algorithm of this comparison", remedy))
    if first.config.training.token_budget is None:
        remedy = "Set training.sampled_tokens, or training.total_tokens."
        mistakes.append(UserError("--tune", " ".join(grid), "trials must have equal tokens", remedy))
    if taken := set(first.tune_seeds) & set(first.seeds or (first.config.seed,)):
        remedy = "Give other --tune-seeds: a seed that chose must not be reported."
        mistakes.append(UserError("--tune-seeds", min(taken), "the final runs have it, too", remedy))
    found: dict[str, list[Trial]] = {}
    for request in requests:
        config = request.config
        found[config.algo_label], own = [], Mistakes()
        for settings in settings_of(grid, config.algo):
            with own.collected():
                tried = resolve([*_of(config.algo, first, layers), as_layer(settings)])
                found[config.algo_label].append(Trial(settings, on_validation(tried, config, settings)))
        mistakes += as_typed(own, config.algo_label)
        with mistakes.collected():
            refuse_equal(grid, found[config.algo_label])
            refuse_untried(grid, len(found[config.algo_label]) + len(own))
    mistakes.tell()
    return found


def read_files(
    names: Sequence[str], above: Layer, planned_for: str | None = None, training: bool = True
) -> list[Layer]:
    """The layers of files, left to right; `above` is what the command line says, which is not among them. In the place
    of ``auto`` stands what `training.auto` derives from the model that the others name, for the device `planned_for`.
    Raises UserError for files that cannot be read."""
    mistakes, layers = Mistakes(), list[Layer]()
    place = None
    for name in names:
        if name == AUTO:
            place = len(layers)
            continue
        with mistakes.collected():
            layers += read_layers(name)
    if mistakes:  # what such a file says is not known, so the rest cannot be judged
        mistakes += above.mistakes
        mistakes.tell()
    if place is None:
        return layers
    merged = Merged([*layers, above])
    if merged.check.mistakes or merged.check.wrong:
        merged.config(training)  # tells them
    under, over = layers[:place], [*layers[place:], above]

    def laid(values: Mapping[str, Any]) -> Config:
        return resolve([*under, Layer.of(values, "--config auto"), *over], training)

    from backtrack_mrt.training.auto import derive  # late: it loads torch

    found = derive(merged.values, laid, planned_for)
    for line in found.lines(laid(found.values)):
        if line not in _TOLD:
            _TOLD.add(line)
            tell(f"auto: {line}", sys.stderr)
    return [*under, Layer.of(found.values, "--config auto"), *layers[place:]]


def _of(algo: str, first: RunRequest, layers: Sequence[Layer]) -> list[Layer]:
    """The layers for one of the algorithms that are compared: flags of the algorithm are the first one's."""
    *files, flags = layers
    own = Layer({**flags.values, "algo": first.config.algo}, flags.said)
    return [*files, own, Layer({"algo": algo}, {"algo": "--compare"})]


def _layers(argv: Sequence[str], training: bool = True) -> tuple[Namespace, list[Layer]]:
    """The run's options and the layers, the flags last. Raises UserError for files that cannot be read."""
    options, flags = read_line(argv)
    resumed = os.path.expanduser(options.resume) if isinstance(options.resume, str) else None
    if resumed and not holds_run(Path(resumed)):
        raise not_to_resume("--resume", Path(resumed))
    names = [str(Path(resumed) / "config.yaml"), *options.config] if resumed else options.config or [DEFAULT_CONFIG]
    if options.help:
        names = [name for name in names if name != AUTO]
    layers = read_files(names, flags, options.dry_run, training)
    if resumed:
        layers.append(Layer.of({"output_dir": resumed}, "--resume"))
    return options, [*layers, flags]


def _epilog() -> str:
    """The plug-ins and the shipped configs."""
    lines = []
    for title, field in (("algorithms", "algo"), ("protocols", "env"), ("graders", "grader")):
        lines.append(f"{title} (--{field}; each has flags of its own: --{field} NAME --help):")
        package, base = PLUGINS[field]
        for name in plugins.names(package):
            try:
                summary = getattr(plugins.load(package, name, base, field), "summary", "")
            except Exception as error:
                summary = f"(cannot be used: {error})"
            lines.append(f"  {name:<16}{summary}")
    lines += ["estimators (--prover.estimator):", f"  {', '.join((*ESTIMATORS, *plugins.names(PROVERS)))}, ./NAME.py"]
    derived = f"  {AUTO:<16}one derived from the model's files and the device"
    lines += ["configs (--config):", derived, *(f"  {name}" for name in shipped_configs())]
    return "\n".join(lines)
