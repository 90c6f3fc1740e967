"""RUN|MODEL on a command line: which model a command is about, and the config that goes with it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from backtrack_mrt.cli.command import PROGRAM
from backtrack_mrt.cli.flags import run_parser
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.errors import NO_VALUE, UserError, did_you_mean
from backtrack_mrt.policy.files import holds_model, is_adapter
from backtrack_mrt.runs.kinds import holds_run, in_place_of_a_model, not_trained, runs_in

ONLY_TRAIN = set(run_parser()._option_string_actions) - {"--config", "--help", "-h"}


def run_of(what: Path | None) -> Path | None:
    """The run directory that RUN|MODEL names, None for a model or nothing."""
    return what if what is not None and holds_run(what) else None


def check_model(what: Path) -> None:
    """Raises UserError for a directory that is neither a run nor a model and of which something is known, and for one
    that is not there, beside runs: nobody means the hub by its name."""
    if not what.exists() and (beside := runs_in(what.parent)):
        raise UserError("RUN|MODEL", str(what), "no such directory", did_you_mean(str(what), map(str, beside)))
    known = is_adapter(what) or holds_model(what) or not what.is_dir()
    if not known and (found := in_place_of_a_model(what)):
        raise UserError("RUN|MODEL", str(what), *found)


def config_of(args: Namespace, with_model: bool = True, *, training: bool = False) -> Config:
    """The config of RUN (else the embedded default), changed by the flags, about RUN's trained model or MODEL.

    with_model: whether the model is wanted at all. training: whether the training set is, see `config.files.resolve`.
    Raises UserError, also for a run that has no trained model yet."""
    for flag in args.settings:
        if flag.partition("=")[0].replace("_", "-") in ONLY_TRAIN:
            raise UserError(flag, NO_VALUE, f"only `{PROGRAM} train` has it", "Leave it out.")
    run = run_of(args.what)
    if args.what is not None and with_model and not run:
        check_model(args.what)
    saved = ["--config", str(run / "config.yaml")] if run else []
    model = ["--model.name_or_path", str(run / "model" if run else args.what)] if with_model and args.what else []
    config = read_request([*saved, *args.settings, *model], training=training).config
    if run and with_model and not (run / "model").is_dir():
        raise not_trained("RUN", run)
    return config
