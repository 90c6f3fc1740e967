"""Python: a program that passes unit tests. The gold is the tests: asserts, functions ``test_…``, classes of unittest.

An answer is untrusted. It runs in a process of its own that has never seen the tests, with no files, no network, no
other processes and an empty environment; the tests run in another one and call it (`backtrack_mrt.sandbox`). So an
answer must say what the tests ask for, in plain values: numbers, texts, lists, tuples, sets, dictionaries, … Objects of
its own classes can be called, indexed and iterated over, but equal nothing. Only Python's own modules are there, and
those that `modules` names. The program stands in a fenced block.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr

import backtrack_mrt
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading.markers import FENCE, Marker
from backtrack_mrt.grading.pool import Program, Reply, WorkerPool
from backtrack_mrt.grading.verdict import Verdict
from backtrack_mrt.sandbox.confinement import unconfinable
from backtrack_mrt.sandbox.test_side import statements_that_test
from backtrack_mrt.types import Problem

_LONGEST = 1 << 16  # characters of an answer
_START = "import sys; sys.path[:0] = [{!r}]; from backtrack_mrt.sandbox.guard import main; main()"
_MARGIN_S = 0.5  # for the processes to start


class Python(Grader):
    """A program that passes all unit tests."""

    summary: ClassVar[str] = "a Python program that passes unit tests"
    marker: ClassVar[Marker] = FENCE
    golds_are_answers: ClassVar[bool] = False
    gold_columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("test_setup_code", "test_imports", "test_list"),  # MBPP's
        *(("test",), ("tests",), ("test_cases",), ("unit_tests",)),
    )
    cpu_s: int = Field(2, gt=0, le=600, description="CPU seconds of an answer, and of its tests")
    wall_s: float = Field(10.0, gt=0, le=600, description="seconds until both are killed")
    memory_mb: int = Field(512, ge=128, description="address space of an answer, and of its tests, MiB")
    partial: bool = Field(False, description="pay the share of the tests that pass, not only all of them")
    workers: int = Field(2, gt=0, le=64, description="answers that run at the same time")
    modules: list[str] = Field([], description="installed modules that answers may import, e.g. numpy")
    _pool: WorkerPool | None = PrivateAttr(None)

    def judge(self, problem: Problem, answer: str) -> Verdict | float:
        if len(answer) > _LONGEST:
            return Verdict.UNPARSABLE
        text = answer.encode("utf-8", "replace").decode()
        return self._paid(self._workers().ask({"answer": text, "tests": problem.answer}))

    def judge_many(self, asked: Sequence[tuple[Problem, str]]) -> list[Verdict | float]:
        with ThreadPoolExecutor(self.workers, thread_name_prefix="python-grader") as threads:
            return list(threads.map(lambda each: self.judge(*each), asked))

    def check_gold(self, gold: str) -> str | None:
        try:
            body = ast.parse(gold).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"is no Python: {error}"
        nodes = [inner for node in body for inner in ast.walk(node)]
        methods = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        if not any(isinstance(node, ast.Assert) for node in nodes) and not any(m.startswith("assert") for m in methods):
            return "asserts nothing"
        tests = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
        if wanting := [test.name for test in tests if len(test.args.args) > len(test.args.defaults)]:
            return f"has a test that wants arguments: {wanting[0]}"
        cases = [node for node in body if isinstance(node, ast.ClassDef) and "TestCase" in ast.unparse(node)]
        if tests or cases or statements_that_test(body):
            return None
        return "runs none of its asserts: call the function that holds them, e.g. check(add)"

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _paid(self, reply: Reply) -> Verdict | float:
        if reply.verdict is Verdict.WRONG and self.partial:
            return reply.share
        return reply.verdict

    def _workers(self) -> WorkerPool:
        if self._pool is None:
            if reason := unconfinable():
                raise UserError("grader", "python", reason, "Grade there, or use another grader.")
            root = str(Path(backtrack_mrt.__file__).parent.parent)
            command = [sys.executable, "-I", "-c", _START.format(root), "--cpu-s", str(self.cpu_s)]
            command += ["--wall-s", str(self.wall_s), "--memory-mb", str(self.memory_mb), "--modules", *self.modules]
            environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
            remedy = "Check that grading.modules are installed, and that this system allows seccomp filters."
            self._pool = WorkerPool(self.workers, Program(command, self.wall_s + _MARGIN_S, remedy, environment))
        return self._pool
