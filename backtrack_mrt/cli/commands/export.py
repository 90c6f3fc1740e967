"""Write a trained model as one folder that transformers loads.

Adapters are merged into the model that they were trained from. What comes out needs neither this package nor peft:
config, weights as safetensors, tokenizer with its chat template, and the model card.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.places import check_folder, typed_path
from backtrack_mrt.cli.run_or_model import check_model, run_of
from backtrack_mrt.config import ModelSection
from backtrack_mrt.config.files import read_layer
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs.kinds import not_trained

EXAMPLES = """\
  backtrack-mrt export runs/RUN --out exported
  backtrack-mrt export runs/RUN/model --out exported --dtype bfloat16 --overwrite"""
DTYPES = ("float32", "bfloat16")


def arguments(parser: Parser) -> None:
    parser.add_argument("what", type=typed_path, metavar="RUN|MODEL", help="a run with a trained model, or a model")
    parser.add_argument("--out", type=typed_path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="type of the weights (default: as they were trained)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model in FOLDER")


def run(args: Namespace) -> None:
    from backtrack_mrt.policy.files import lineage

    section = _section(args.what, args.dtype)
    sources = lineage(section)
    _check_out(args.out, args.overwrite, [Path(source.name_or_path) for source in sources])
    from backtrack_mrt.policy.models import load_merged, load_tokenizer
    from backtrack_mrt.reports.model_card import exported_card
    from backtrack_mrt.runs.durable import CARD, write_directory

    tokenizer, model = load_tokenizer(section), load_merged(section)
    model.config.use_cache = True  # it is off where gradients were checkpointed
    card = exported_card(sources, args.out.resolve().name)

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / CARD).write_text(card, encoding="utf-8")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    remedy = "Free some space, or name a folder on another disk."
    write_directory(args.out, write, model.get_memory_footprint(), remedy)
    merged = f", {len(sources) - 1} adapter{'s' * (len(sources) > 2)} merged" if len(sources) > 1 else ""
    print(f"{args.out}: {model.num_parameters():,} parameters in {section.dtype}{merged}")


def _section(what: Path, dtype: str | None) -> ModelSection:
    """The trained model of a run, or a model by name. Of a run's config only this section is read."""
    from backtrack_mrt.policy.files import find_model, shape

    run = run_of(what)
    if run is None:
        check_model(what)
    elif not (run / "model").is_dir():
        raise not_trained("RUN", run)
    section = ModelSection(name_or_path=str(run / "model" if run else what))
    find_model(section)
    said: dict[str, Any] = (read_layer(str(run / "config.yaml")).values.get("model") or {}) if run else shape(section)
    found = said.get("dtype", said.get("torch_dtype"))
    return section.model_copy(update={"dtype": dtype or (found if found in DTYPES else DTYPES[0])})


def _check_out(out: Path, overwrite: bool, sources: list[Path]) -> None:
    """Refuse a folder that is in use, is no model's, or is read from."""
    for source in sources:
        inner, outer = Path(os.path.expanduser(source)).resolve(), out.resolve()
        if source.is_dir() and (inner == outer or outer in inner.parents or inner in outer.parents):
            raise UserError("--out", str(out), f"the model is read from {source}", "Name another folder.")
    check_folder("--out", out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UserError("--out", str(out), "it exists already", "Name another folder, or give --overwrite.")
    if not (out / "config.json").is_file():
        raise UserError("--out", str(out), "it holds no model, and is not replaced", "Name another folder.")
