"""Start a vLLM server of the model that a run trains.

It is given the settings of the run (--config and flags), and then is the server, with all that training wants of one.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError, Namespace
from importlib.util import find_spec

from backtrack_mrt.cli.command import Parser
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.errors import NO_VALUE, UserError

EXAMPLES = """\
  backtrack-mrt serve --config llama31_8b.yaml
  backtrack-mrt serve --config llama31_8b.yaml --port 8001 -- --tensor-parallel-size 2"""
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # the adapter is loaded anew after every update
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # that one takes logits processors of another kind
}
# options of `train` that are no settings: what is done with runs
_OF_RUNS = ("--dry-run", "--compare", "--seeds", "--equal", "--tune", "--tune-seeds", "--accept-changes", "--overwrite")


def arguments(parser: Parser) -> None:
    parser.add_argument("--host", default="0.0.0.0", help="address to listen at (default: all of this machine)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen at (default: %(default)s)")
    parser.take_settings()
    parser.take_others("`vllm serve`")


def run(args: Namespace) -> None:
    from backtrack_mrt.policy.vllm.local import on_this_device  # late: a mistake must not wait for torch

    for word in args.settings:
        if (name := word.partition("=")[0].replace("_", "-")) in _OF_RUNS:
            raise UserError(name, NO_VALUE, "a server has no use for it", "Leave it out, or give it to `train`.")
    served = ["--engine.type", "vllm", "--engine.server", f"http://{args.host}:{args.port}"]  # as the run will say
    command = server_command(read_request([*args.settings, *served]).config, args.host, args.port)
    if find_spec("vllm") is None:
        remedy = "Install it (`pip install 'backtrack-mrt[vllm]'`; without a GPU `make .venv-vllm/installed`)."
        raise UserError("COMMAND", "serve", "vLLM is not installed", remedy)
    environment = ENVIRONMENT | on_this_device() | os.environ
    os.execve(sys.executable, [sys.executable, *command, *args.others], environment)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise ArgumentTypeError(f"not a whole number from 1 to 65535: {text!r}")
    return int(text)


def server_command(config: Config, host: str, port: int) -> list[str]:
    """What Python runs. Raises UserError for a model that a server cannot have."""
    from backtrack_mrt.policy.files import FIELD, find_model, folder_of, is_adapter
    from backtrack_mrt.policy.vllm.local import room_for

    section, length = config.model, config.engine.context_length
    if is_adapter(folder_of(section.name_or_path)):
        remedy = "Write it as one model with `backtrack-mrt export`, and train that."
        raise UserError(FIELD, section.name_or_path, "a server cannot have an adapter as its base", remedy)
    # not `vllm serve`: vLLM for CPUs has none that starts
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", find_model(section)]
    command += ["--revision", section.revision] if section.revision else []
    command += ["--host", host, "--port", str(port), "--dtype", section.dtype]
    command += ["--max-model-len", str(length)] if length else []
    if not section.full_finetuning:
        command += ["--enable-lora", "--max-lora-rank", str(room_for(section.lora.r))]
    command += ["--logits-processors", "backtrack_mrt.policy.vllm.draws:Draws", "--logprobs-mode", "processed_logits"]
    return [*command, "--middleware", "backtrack_mrt.policy.vllm.endpoint.JobEndpoint"]
