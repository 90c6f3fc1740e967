"""The processes of a launcher (`accelerate launch`, `torchrun`): which one this is, and what all of them know together.

Without a launcher there is one process, and nothing here imports torch. The launcher tells its processes apart by the
environment; they talk by NCCL on GPUs and by gloo on CPUs.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

from backtrack_mrt.errors import RunError, UserError, in_words

P = ParamSpec("P")
T = TypeVar("T")
_DONE, _FAILED = b"done", b"failed"
_SAID = "What that one said tells why; then go on with --resume"
# What a process is told by gloo and NCCL when another one is gone; torch has no error of its own for it.
_GONE = ("by peer", "remote peer", "remote process exited", "Broken pipe", "failed to recv")
_AHEAD = 5.0  # seconds that the main process has to tell what all of them have found; then the launcher ends the others
_STAGES = 3  # DeepSpeed's ways to cut up, from none


def count() -> int:
    """How many processes work on this run."""
    return _number("WORLD_SIZE", 1, least=1)


def rank() -> int:
    """This process's number, from 0."""
    return _below_count("RANK")


def is_main() -> bool:
    """Whether this is the one process that writes files and prints."""
    return rank() == 0


def check_numbers() -> None:
    """Raises UserError for what no launcher says of its processes."""
    for name in ("RANK", "LOCAL_RANK"):
        if os.environ.get(name) != "-1":  # which libraries take for none
            _below_count(name)
    _number("LOCAL_WORLD_SIZE", 1, least=1)
    if os.environ.get("MASTER_PORT"):
        _number("MASTER_PORT", 0, most=65535)


def _below_count(name: str) -> int:
    number = _number(name, 0)
    if number >= count():
        remedy = "A launcher sets both; else unset them."
        raise UserError(name, number, f"not below WORLD_SIZE, which is {count()}", remedy)
    return number


def _number(name: str, default: int, least: int = 0, most: float = math.inf) -> int:
    """A launcher's number in the environment. Raises UserError."""
    said = os.environ.get(name, str(default))
    if not (said.isascii() and said.isdecimal() and least <= int(said) <= most):
        wanted = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise UserError(name, said, f"not a whole number {wanted}", "A launcher sets it; else unset it.")
    return int(said)


def main_only(write: Callable[P, None]) -> Callable[P, None]:
    """A function that does something in the main process, and nothing in the others: callers need not ask."""

    @wraps(write)
    def in_main(*args: P.args, **named: P.kwargs) -> None:
        if is_main():
            write(*args, **named)

    return in_main


@main_only
def tell(text: str, file: TextIO | None = None) -> None:
    """Print it, once for all processes."""
    print(text, file=file, flush=True)


def sharding() -> str | None:
    """How the launcher has the model cut up over the processes; None where each has all of it."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "FSDP"
    return "ZeRO-3" if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and _zero_stage() == 3 else None


def deepspeed_settings() -> Mapping[str, Any] | None:
    """What a file of DeepSpeed's own says; None where the launcher names none. Raises UserError."""
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file == "none":
        return None
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        if int(found["zero_optimization"].get("stage", 0)) not in range(_STAGES + 1):
            raise ValueError(f"there is no stage {found['zero_optimization']['stage']}")
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        reason = f"not a file with DeepSpeed's settings ({in_words(error)})"
        raise UserError("deepspeed_config_file", file, reason, "Name one, or leave it out.") from None
    return dict(found)


def _zero_stage() -> int:
    """How much DeepSpeed cuts up, by accelerate's settings or a file of DeepSpeed's own. Raises UserError."""
    settings = deepspeed_settings()
    if settings is None:
        return _number("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2, most=_STAGES)
    return int(settings["zero_optimization"].get("stage", 0))


def share(length: int, size: int = 1) -> slice:
    """This process's part of a list of so many groups of `size` rows: consecutive groups, as many as the others' or
    one more."""
    return slice(length * rank() // count() * size, length * (rank() + 1) // count() * size)


def gathered(rows: Sequence[T]) -> list[T]:
    """The rows of all processes, in the order of their ranks. All processes must call it."""
    if count() == 1:
        return list(rows)
    join()
    from accelerate.utils import gather_object

    return list(gather_object(list(rows)))


def wait() -> None:
    """Go on when all processes have come here."""
    gathered([])


def once(key: str, work: Callable[[], object]) -> None:
    """Do it in the process that comes first; the others go on when it is done. Not all of them need to come.

    key: the same in all processes for this work, and in no other work of the run. Raises RunError in the others where
    it failed."""
    if count() == 1:
        work()
        return
    store = _store()
    if store.add(f"{key}/begun", 1) > 1:
        if store.get(f"{key}/ended") != _DONE:  # which waits until it is there
            raise RunError("another process of this run failed where this one waited for it", _SAID)
        return
    ended = _FAILED
    try:
        work()
        ended = _DONE
    finally:
        store.set(f"{key}/ended", ended)


def _store() -> Any:
    """What the processes have in common, without all of them being asked at once."""
    join()
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


@contextmanager
def told_when_one_is_gone() -> Iterator[None]:
    """Within the block a process that has lost another one ends with a line: RunError."""
    try:
        yield
    except RuntimeError as error:
        if count() == 1 or not any(words in str(error) for words in _GONE):
            raise
        raise RunError("another process of this run has ended, so this one cannot go on", _SAID) from None


@contextmanager
def main_tells_first() -> Iterator[None]:
    """Within the block an error of another process waits a little: mostly the main one finds it, too, tells it, and the
    launcher ends the others. What the main one does not find is told then."""
    try:
        yield
    except (UserError, RunError):
        if os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1":
            time.sleep(_AHEAD)
        raise


def leave() -> None:
    """End the program together with the others, if there are any: one that just exits may break a message to another,
    and where FSDP keeps the group's threads beyond its end, they now and then abort the interpreter's own."""
    if count() > 1:
        import torch

        wait()
        torch.distributed.destroy_process_group()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def join() -> None:
    """Connect to the other processes, once; also alone, what accelerate offers wants it."""
    import torch
    from accelerate import DistributedType, PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    if sharding() == "FSDP" and state.distributed_type == DistributedType.MULTI_CPU:
        # accelerate would leave the model whole on CPUs; of several GPUs it makes FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
