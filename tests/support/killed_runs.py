"""Kills saves with SIGKILL at every file operation and looks at what is left. Run by tests/training/test_kills.py in a
process of its own: it imports everything once, before it has threads, and every victim is a fork of it.

    python -m support.killed_runs FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from support.short_runs import request

from backtrack_mrt.runs import durable
from backtrack_mrt.runs.checkpoints import Checkpoints
from backtrack_mrt.training.train import train

FLAGS = (
    *("--training.steps", "12", "--training.save_every", "2", "--data.eval_size", "2"),
    *("--training.micro_batch_size", "4", "--training.group_size", "2"),
)


def forked(work: Callable[[], object]) -> int:
    """Do the work in a fork of this process; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        sys.stdout = sys.stderr
        work()
        os._exit(0)
    except BaseException:
        sys.stderr = sys.__stderr__
        traceback.print_exc()
        os._exit(1)


def wait(child: int) -> int:
    """The exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def alive(child: int) -> bool:
    """Whether the child has not ended yet."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


class Killer:
    """Kills its own process before the n-th file operation: opening for writing, making, renaming and deleting, forcing
    to disk; and in the middle of every file that torch or safetensors writes outside Python."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0
        sys.addaudithook(self._audit)
        os.fsync = self._before(os.fsync)
        torch.save = self._halfway(torch.save)
        safetensors.torch.save_file = self._halfway(safetensors.torch.save_file)
        safetensors.torch.serialize_file = self._before(safetensors.torch.serialize_file)

    def operation(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            self.operation()

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **settings: Any) -> Any:
            self.operation()
            return function(*args, **settings)

        return counted

    def _halfway(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def torn(*args: Any, **settings: Any) -> Any:
            result = function(*args, **settings)
            path = next(Path(arg) for arg in args if isinstance(arg, str | Path))
            if self.seen + 1 == self.at:
                os.truncate(path, path.stat().st_size // 2)
            self.operation()
            return result

        return torn


def kill_saves(folder: Path) -> None:
    """Saves that die at their first, second, … file operation, until one lives: all leave the state before or after."""
    saved = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int, write: Callable[[Path], None], *rest: Any) -> None:
        if step < 6:
            saved(self, step, write, *rest)
            return
        kept = {path: durable.damage(path) for path in self.folder.iterdir()}
        assert len(kept) == 2
        assert set(kept.values()) == {None}
        for at in range(1, 1000):

            def dying(at: int = at) -> None:
                Killer(at)
                saved(self, step, write, *rest)

            code = wait(forked(dying))
            newest = self.newest()
            assert newest is not None
            assert newest.step in (4, step)
            if code == 0:
                assert newest.step == step
                print(f"{at - 1} file operations, each of them survived")
                os._exit(0)
            assert code == -signal.SIGKILL
            if newest.step == step:  # it was there before the kill: start again from the state before
                shutil.rmtree(newest.path)
                (self.folder / "step_000002").exists() or shutil.copytree(
                    self.folder / "step_000004", self.folder / "step_000002"
                )
        raise AssertionError("a save without an end")

    Checkpoints.save = save_and_die  # type: ignore[method-assign]
    train(request(folder / "run", *FLAGS))
    raise AssertionError("it was not saved")


if __name__ == "__main__":
    torch.set_num_threads(1)
    kill_saves(Path(sys.argv[1]))
