"""The worker process: what kills it, what hangs it, who waits for it, and that nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backtrack_mrt.errors import UserError
from backtrack_mrt.grading import Limits, MathGrader, Verdict
from backtrack_mrt.grading import pool as pool_module

RIGHT, WRONG, TIMEOUT = Verdict.RIGHT, Verdict.WRONG, Verdict.TIMEOUT
SQRT = (r"2\sqrt{2}", r"\sqrt{8}")  # needs a worker, is right
BOMB = (r"\sqrt{2}", r"\binom{9999^{999}}{9999^{99}}")  # passes the guards, and no exception can interrupt it

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes through /proc")


@pytest.fixture
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=1, cache_size=0, limits=Limits(cpu_s=0.1)) as made:
        yield made


def _guard(grader: MathGrader) -> int:
    """The process id of the first worker's guard."""
    process = grader._pool._workers[0]._process
    assert process is not None
    return process.pid


def _child(guard: int) -> int:
    return int(Path(f"/proc/{guard}/task/{guard}/children").read_text().split()[0])


def _resident_kib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def _gone(process: int) -> bool:
    """Whether a process has ended (a zombie that nobody has collected yet has)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_nothing_starts_before_it_is_needed_and_nothing_heavy_is_loaded() -> None:
    with MathGrader(workers=2) as grader:
        first, second = grader._pool._workers
        assert grader.grade("1/2", "0.5") is RIGHT
        assert first._process is second._process is None
        assert grader.grade(*SQRT) is RIGHT
        assert first._process is None  # one worker is enough for one thread
        assert second._process is not None
        guard = second._process.pid
        libraries = Path(f"/proc/{guard}/maps").read_text()
        assert "/torch/" not in libraries
        assert "/numpy/" not in libraries
    assert _gone(guard)


def test_a_bomb_storm_leaves_the_grader_well(grader: MathGrader) -> None:
    assert grader.grade(*SQRT) is RIGHT
    guard, before = _guard(grader), _resident_kib(_guard(grader))
    for _ in range(10):
        assert grader.grade(*BOMB) is TIMEOUT
        assert grader.grade(*SQRT) is RIGHT
    assert _guard(grader) == guard
    assert _resident_kib(guard) - before < 4096


def test_a_bomb_costs_no_more_than_the_limits() -> None:
    """A second of CPU; on a busy machine the limit of wall time."""
    with MathGrader(workers=1) as grader:
        grader.grade(*SQRT)
        start = time.monotonic()
        assert grader.grade(*BOMB) is TIMEOUT
        assert time.monotonic() - start < Limits().wall_s + 1


def test_a_bomb_is_remembered() -> None:
    with MathGrader(workers=1, limits=Limits(cpu_s=0.2)) as grader:
        grader.grade(*BOMB)
        grader.close()
        assert grader.grade(*BOMB) is TIMEOUT
        assert grader._pool._workers[0]._process is None


@pytest.mark.parametrize("who", ["guard", "child"])
def test_a_killed_process_is_replaced(grader: MathGrader, who: str) -> None:
    grader.grade(*SQRT)
    guard = _guard(grader)
    victim = guard if who == "guard" else _child(guard)
    os.kill(victim, signal.SIGKILL)
    assert _eventually(lambda: _gone(victim))
    assert _eventually(lambda: grader.grade(*SQRT) is RIGHT)  # at once, unless the machine is very busy
    assert (_guard(grader) != guard) == (who == "guard")


def _at_work(grader: MathGrader, known: set[int]) -> bool:
    """Whether a child that is not `known` has computed for a tenth of a second."""
    process = grader._pool._workers[0]._process
    try:
        child = _child(process.pid) if process else 0
        ticks = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11])
    except (OSError, IndexError):  # not there yet
        return False
    return child not in known and ticks > 10


@pytest.mark.parametrize("who", ["guard", "child"])
def test_a_process_killed_in_the_middle_of_a_question(who: str) -> None:
    verdicts: list[Verdict] = []
    with MathGrader(workers=1, cache_size=0, limits=Limits(cpu_s=20.0, wall_s=200.0)) as grader:
        asking = threading.Thread(target=lambda: verdicts.append(grader.grade(*BOMB)))
        asking.start()
        known: set[int] = set()
        for _ in range(2):  # a question gets a second chance, not a third
            assert _eventually(lambda: _at_work(grader, known), seconds=120)
            known.add(_child(_guard(grader)))
            os.kill(_guard(grader) if who == "guard" else max(known), signal.SIGKILL)
        asking.join(timeout=120)
        assert verdicts == [TIMEOUT]
        assert all(_eventually(lambda child=child: _gone(child)) for child in known)  # type: ignore[misc]
        assert _eventually(lambda: grader.grade(*SQRT) is RIGHT)


def test_a_storm_of_bombs_alone_starves_nobody() -> None:
    """With every worker busy on bombs, what needs none is graded at once, and what needs one after them."""
    with MathGrader(workers=2, cache_size=0, limits=Limits(cpu_s=0.1)) as grader:
        grader.grade(*SQRT)
        storm = [(r"\sqrt{2}", rf"\binom{{{9999 - k}^{{999}}}}{{{9999 - k}^{{99}}}}") for k in range(12)]
        verdicts: list[Verdict] = []
        asking = threading.Thread(target=lambda: verdicts.extend(grader.grade_many(storm)))
        asking.start()
        assert [grader.grade("7", str(k)) for k in range(8)] == [WRONG] * 7 + [RIGHT]
        assert _eventually(lambda: grader.grade(*SQRT) is RIGHT)
        asking.join(timeout=60)
        assert verdicts == [TIMEOUT] * len(storm)
        assert _eventually(lambda: grader.grade(*SQRT) is RIGHT)


def test_a_process_killed_while_it_starts_is_no_error(grader: MathGrader) -> None:
    grader.grade(*SQRT)
    worker = grader._pool._workers[0]
    worker._end()
    worker._start()
    os.kill(_guard(grader), signal.SIGKILL)
    assert grader.grade("x+y", "y+2x-x") in (RIGHT, TIMEOUT)
    assert _eventually(lambda: grader.grade(*SQRT) is RIGHT)


@pytest.mark.parametrize("who", ["guard", "child"])
def test_a_hanging_process_is_replaced(who: str) -> None:
    with MathGrader(workers=1, limits=Limits(wall_s=0.3)) as grader:
        grader.grade(*SQRT)
        guard = _guard(grader)
        os.kill(guard if who == "guard" else _child(guard), signal.SIGSTOP)
        assert grader.grade("x+y", "y+2x-x") is TIMEOUT
        # A hang is nobody's fault and is not remembered.
        assert _eventually(lambda: grader.grade("x+y", "y+2x-x") is RIGHT)


@pytest.mark.parametrize("pair", [SQRT, ("x^2+1", r"\frac{x^2}{2}+\sin(x)"), (r"\sqrt{2}", r"\sqrt{3}")])
def test_without_memory_there_is_no_verdict(pair: tuple[str, str]) -> None:
    with MathGrader(workers=1, limits=Limits(memory_mb=1)) as grader:  # less than the child has already
        assert grader.grade(*pair) is TIMEOUT  # math-verify reads a MemoryError as "no formula" or "not equal"
        assert grader.grade("7", "7.0") is RIGHT


def test_children_are_recycled() -> None:
    with MathGrader(workers=1, cache_size=0, limits=Limits(recycle=3)) as grader:
        children = []
        for _ in range(9):
            assert grader.grade(*SQRT) is RIGHT
            children.append(_child(_guard(grader)))
    assert len(set(children)) == 3
    assert _eventually(lambda: all(_gone(child) for child in children))


def test_many_threads_share_few_workers() -> None:
    with MathGrader(workers=2, cache_size=0) as grader:
        wrong: list[object] = []

        def work(seed: int) -> None:
            for number in range(2, 8):
                gold, right = rf"{seed}\sqrt{{{number}}}", rf"\sqrt{{{seed * seed * number}}}"
                verdicts = (grader.grade(gold, right), grader.grade(gold, right + "+1"), grader.grade("7", str(number)))
                if verdicts != (RIGHT, WRONG, RIGHT if number == 7 else WRONG):
                    wrong.append((gold, verdicts))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 13)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_an_interrupted_question_does_not_answer_the_next(grader: MathGrader, monkeypatch: pytest.MonkeyPatch) -> None:
    grader.grade(*SQRT)

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "_read_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grader.grade(*SQRT)
    assert grader.grade(r"2\sqrt{2}", r"\sqrt{9+x}") is WRONG


def test_a_forked_copy_starts_its_own_worker(grader: MathGrader) -> None:
    grader.grade(*SQRT)
    guard = _guard(grader)
    child = os.fork()
    if child == 0:
        try:
            fine = grader.grade(*SQRT) is RIGHT and _guard(grader) != guard
            grader.close()
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert grader.grade(*SQRT) is RIGHT
    assert _guard(grader) == guard


@pytest.mark.parametrize("question", [SQRT, BOMB])
def test_no_process_outlives_a_killed_parent(question: tuple[str, str]) -> None:
    program = (
        "from backtrack_mrt.grading import MathGrader, Limits\n"
        "grader = MathGrader(workers=1, limits=Limits(cpu_s=60, wall_s=60))\n"
        f"grader.grade(*{SQRT!r})\n"
        "print(grader._pool._workers[0]._process.pid, flush=True)\n"
        f"grader.grade(*{question!r})\n"
        "input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        guard = int(parent.stdout.readline())
        assert _eventually(lambda: Path(f"/proc/{guard}/task/{guard}/children").read_text().strip() != "")
        child = _child(guard)
        parent.kill()
        assert _eventually(lambda: _gone(guard))
        assert _eventually(lambda: _gone(child))


def test_a_worker_that_cannot_start_is_an_error_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "no_such_folder"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with MathGrader() as grader:
        assert grader.grade("7", "7.0") is RIGHT
        with pytest.raises(UserError, match="does not start"):
            grader.grade(*SQRT)
