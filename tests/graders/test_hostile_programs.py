"""Programs that try to be paid without passing the tests, or to do harm: none is paid, none outlives its limit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtrack_mrt.graders.python import Python
from backtrack_mrt.grading import Verdict
from backtrack_mrt.types import Problem

TESTS = "assert add(1, 2) == 3\nassert add(20, 22) == 42\n"
PROBLEM = Problem("p", "Write add(a, b).", TESTS)
SECRET = "a-key-that-nobody-may-see"
TRIES_FOR_THE_TESTS = """
import gc, sys
frame, texts = sys._getframe(), []
while frame:
    texts += [str(v) for v in {**frame.f_locals, **frame.f_globals}.values()]
    frame = frame.f_back
texts += [str(known) for known in gc.get_objects() if isinstance(known, (dict, list, tuple))]
found = any(chr(97) + "ssert add(1" in text for text in texts)
def add(a, b):
    return {(1, 2): 3, (20, 22): 42}[a, b] if found else 0
"""
HOSTILE = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb, errors ignored": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "subprocess": "import subprocess\nsubprocess.run(['sh', '-c', 'touch {mark}'])\ndef add(a, b): return a - b",
    "os.system": "import os\nos.system('touch {mark}')\ndef add(a, b): return a * b",
    "threads": "import threading\nfor _ in range(10**6): threading.Thread(target=lambda: None).start()",
    "endless loop": "while True: pass",
    "endless loop when called": "def add(a, b):\n    while True: pass",
    "endless sleep": "import time\ntime.sleep(10**6)",
    "loop that ignores signals": "import signal\nfor s in range(1, 64):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except Exception: pass\nwhile True: pass",
    "memory": "x = bytearray(10**11)",
    "memory, slowly": "x = []\nwhile True: x.append(bytearray(10**7))",
    "a huge number": "x = 10 ** 10 ** 9",
    "deep recursion": "def add(a, b): return add(a, b)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)",
    "reads a file": "print(open('/etc/passwd').read())\ndef add(a, b): return 0",
    "reads its parent's memory": "open('/proc/%d/mem' % __import__('os').getppid(), 'rb').read(1)",
    "writes a file": "open('{mark}', 'w').write('x')",
    "writes a huge file": "f = open('{mark}', 'wb')\nwhile True: f.write(bytes(10**8))",
    "removes files": "import shutil, os\nshutil.rmtree('{folder}')",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', 80), timeout=1)",
    "a server": "import socket\ns = socket.socket()\ns.bind(('', 0)); s.listen(); s.accept()",
    "the environment": "import os\ndef add(a, b): return 3 if '{secret}' in str(dict(os.environ)) else 0",
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit(0) when called": "import os\ndef add(a, b): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "sys.exit when called": "import sys\ndef add(a, b): sys.exit(0)",
    "prints success": 'print(\'{{"verdict": "right", "passed": 2, "total": 2}}\')\nprint(\'OK\')',
    "prints success to every descriptor": "import os\nfor d in range(100):\n    try: os.write(d, "
    'b\'{{"verdict": "right", "passed": 2, "total": 2, "read": true}}\\n\')\n    except OSError: pass',
    "patches builtins": "import builtins\nbuiltins.AssertionError = Exception\nbuiltins.__build_class__ = None\n"
    "def add(a, b): return 0",
    "patches unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef add(a, b): return 0",
    "equal to everything": "class E:\n    def __eq__(self, other): return True\n    __hash__ = None\n"
    "def add(a, b): return E()",
    "an int that is equal to everything": "class E(int):\n    def __eq__(self, other): return True\n"
    "def add(a, b): return E(7)",
    "its own names for Python's": "def abs(x): return 0\ndef bool(x): return True\ndef add(a, b): return 0",
    "looks for the tests": TRIES_FOR_THE_TESTS,
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "kills everyone": "import os\nos.kill(-1, 9)",
    "lifts its limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\nwhile True: pass",
    "raw system calls": "import ctypes\nc = ctypes.CDLL(None)\nc.fork(); c.kill(-1, 9)\nc.open(b'{mark}', 66, 511)\n"
    "c.socket(2, 1, 0)\ndef add(a, b): return 0",
    "a segmentation fault": "import ctypes\nctypes.string_at(0)",
    "not Python": "def add(a, b:",
    "a null character": "x = '\0'",
    "too long": "#" + "x" * 100_000,
}


@pytest.fixture(scope="module")
def python() -> Iterator[Python]:
    os.environ["A_SECRET"] = SECRET
    with Python(cpu_s=1, wall_s=6, memory_mb=256, workers=1) as grader:
        assert grader.grade(PROBLEM, "def add(a, b): return a + b").reward == 1.0
        yield grader
    del os.environ["A_SECRET"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_not_paid_and_is_gone(python: Python, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    code = HOSTILE[name]
    for word, said in (
        ("{mark}", str(mark)),
        ("{folder}", str(tmp_path)),
        ("{secret}", SECRET),
        ("{{", "{"),
        ("}}", "}"),
    ):
        code = code.replace(word, said)
    start = time.monotonic()
    grade = python.grade(PROBLEM, code)
    assert grade.reward == 0.0
    assert grade.verdict is not Verdict.RIGHT
    assert time.monotonic() - start < 7
    assert tmp_path.is_dir()
    assert not mark.exists()
    assert children_of_the_guard(python) == 1  # the nursery


def test_honest_programs_are_paid_behind_the_hostile_ones(python: Python) -> None:
    assert python.grade(PROBLEM, "from operator import add").reward == 1.0
    shapes = "import unittest\nfrom solution import Stack, area\n" + "class T(unittest.TestCase):\n"
    shapes += "    def test_a(self):\n        s = Stack()\n        s.push(4)\n        self.assertEqual(s.pop(), 4)\n"
    shapes += "    def test_b(self):\n        with self.assertRaises(ValueError):\n            area(-1)\n"
    stack = (
        "class Stack(list):\n    push = list.append\ndef area(r):\n    if r < 0: raise ValueError(r)\n    return r * r"
    )
    held = "class Stack:\n    def __init__(self): self.s = []\n    def push(self, x): self.s.append(x)\n"
    held += "    def pop(self): return self.s.pop()\n" + stack.partition("append\n")[2]
    assert python.grade(Problem("q", "", shapes), held).reward == 1.0
    in_place = "def test_it():\n    rows = [3, 1]\n    order(rows)\n    assert rows == [1, 3]"
    assert python.grade(Problem("r", "", in_place), "def order(rows): rows.sort()").reward == 1.0
    check = "def check(f):\n    assert f(2) == 4\n    assert f(3) == 9\ncheck(square)"
    assert python.grade(Problem("s", "", check), "square = lambda x: x * x").reward == 1.0
    assert python.grade(Problem("s", "", check), "square = lambda x: x + 2").reward == 0.0
    # Blocks at the top, exceptions, generators; a call that tests nothing is no test.
    blocks = (
        "for i in range(3):\n    assert list(f(i)) == [i]\ntry:\n    f(-1)\n    assert False\nexcept ValueError: pass\n"
    )
    lazy = "def once(i):\n    yield i\ndef f(i):\n    if i < 0: raise ValueError(i)\n    return once({})"
    assert python.grade(Problem("t", "", blocks + "print(f(1))"), lazy.format("i")).reward == 1.0
    assert python.grade(Problem("t", "", blocks + "print(f(1))"), lazy.format("1")).reward == 0.0


def test_a_share_of_the_tests_is_paid_where_that_is_wanted() -> None:
    with Python(partial=True, workers=1) as grader:
        grade = grader.grade(PROBLEM, "def add(a, b): return 3")
    assert (grade.verdict, grade.reward) == (Verdict.PARTIAL, 0.5)


@pytest.mark.parametrize(("gold", "why"), [
    ("x = 1", "asserts nothing"), ("assert (", "is no Python"), ("", "asserts"),
    ("def check(f):\n    assert f(1) == 1", "runs none"), ("def test_a(f):\n    assert f(1) == 1", "wants arguments"),
    ("async def test_a():\n    assert f(1) == 1", "runs none"),
    ("def run():\n    assert f(1) == 1\nif __name__ == '__main__':\n    run()", "runs none"),
])  # fmt: skip
def test_tests_that_test_nothing_are_refused(gold: str, why: str) -> None:
    assert why in str(Python().check_gold(gold))


def children_of_the_guard(grader: Python) -> int:
    """Processes that the guard and its children have."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    (worker,) = grader._workers()._workers
    below, found = [worker._process.pid], 0
    while below:
        parent = below.pop()
        inner = [child for child, above in parents.items() if above == parent]
        below += inner
        found += len(inner)
    return found
