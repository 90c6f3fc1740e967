"""SLURM on this machine, as far as scripts/cluster/slurm.sbatch asks it: `srun` starts the real processes, `scancel`
signals those of a step, `scontrol` names the one node and notes a requeue.

    python -m support.fake_slurm srun OPTIONS PROGRAM ARGUMENTS

Every command works in the folder JOB: a file `N.step` has the process ids of step N, as in SLURM counted from 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

JOB = Path(os.environ.get("JOB", ""))
NODE = "localhost"


def srun(arguments: Sequence[str]) -> int:
    """The highest exit code of the tasks. Signals to srun itself kill them all, as the real one's SIGTERM does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("--gpu-bind", choices=["none"])
    parser.add_argument("--cpu-bind", choices=["none"])
    parser.add_argument("--ntasks", type=int, required=True)
    parser.add_argument("--ntasks-per-node", type=int, required=True)
    parser.add_argument("--wait", type=float, default=600, help="seconds from the first task's end to the others'")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    args = parser.parse_args(arguments)
    assert args.ntasks == args.ntasks_per_node, "one node"
    tasks = []
    for rank in map(str, range(args.ntasks)):
        told = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": str(args.ntasks), "SLURMD_NODENAME": NODE}
        tasks.append(subprocess.Popen(args.program, env=os.environ | told, start_new_session=True))
    step = JOB / f"{len(list(JOB.glob('*.step')))}.step"
    step.write_text("\n".join(str(task.pid) for task in tasks))
    signal.signal(signal.SIGTERM, lambda *_: kill(step, signal.SIGKILL))
    while all(task.poll() is None for task in tasks):
        time.sleep(0.1)
    end = time.monotonic() + args.wait
    while any(task.poll() is None for task in tasks):
        if time.monotonic() > end:
            kill(step, signal.SIGKILL)
        time.sleep(0.1)
    return max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks))


def scancel(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("step")
    args = parser.parse_args(arguments)
    job, _, number = args.step.partition(".")
    assert job == os.environ["SLURM_JOB_ID"]
    kill(JOB / f"{number}.step", signal.Signals[f"SIG{args.signal}"])
    return 0


def scontrol(arguments: Sequence[str]) -> int:
    what, *rest = arguments
    if what == "requeue":
        (JOB / "requeued").write_text(rest[0])
        return 0
    assert (what, *rest) == ("show", "hostnames", NODE)
    print(NODE)
    return 0


def kill(step: Path, number: signal.Signals) -> None:
    """A step that is ended ends with all that its tasks began; other signals are the tasks' own."""
    send = os.killpg if number == signal.SIGKILL else os.kill
    for pid in map(int, step.read_text().split()):
        with contextlib.suppress(ProcessLookupError):
            send(pid, number)


if __name__ == "__main__":
    sys.exit({"srun": srun, "scancel": scancel, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
