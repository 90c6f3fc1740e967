"""Python: a program that passes unit tests. The gold is the tests: asserts, functions ``test_…``, classes of unittest;
of pytest ``raises``, ``approx``, ``mark.parametrize`` and ``fail``, but no fixtures.

An answer is untrusted. It runs in a process of its own that has never seen the tests, with no files, no network, no
other processes and an empty environment; the tests run in another one and call it (`backtrack_mrt.sandbox`). So an
answer must say what the tests ask for, in plain values: numbers, texts, lists, tuples, sets, dictionaries, … Objects of
its own classes can be called, indexed and iterated over, but equal nothing. Only Python's own modules are there, and
those that `modules` names. The program stands in a fenced block.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr

import backtrack_mrt
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.base import Grader
from backtrack_mrt.grading.markers import FENCE, Marker
from backtrack_mrt.grading.pool import Program, WorkerPool
from backtrack_mrt.grading.verdict import Verdict
from backtrack_mrt.sandbox.confinement import unconfinable
from backtrack_mrt.sandbox.pytest_words import WORDS
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

    def check_system(self) -> None:
        if reason := unconfinable():
            raise UserError("grader", "python", reason, "Grade there, or use another grader.")

    def judge(self, problem: Problem, answer: str) -> Verdict | float:
        if len(answer) > _LONGEST:
            return Verdict.UNPARSABLE
        text = answer.encode("utf-8", "replace").decode()
        reply = self._workers().ask({"answer": text, "tests": problem.answer})
        return reply.share if reply.verdict is Verdict.WRONG and self.partial else reply.verdict

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
        raises = "raises" in methods or any(isinstance(node, ast.Name) and node.id == "raises" for node in nodes)
        asserts = raises or any(isinstance(node, ast.Assert) for node in nodes)
        if not asserts and not any(method.startswith("assert") for method in methods):
            return "asserts nothing"
        if "IsolatedAsyncioTestCase" in methods:
            return "tests what is asynchronous: there is no event loop"
        if strange := next(filter(self._elsewhere, _imported(nodes)), None):
            return f"imports {strange}, which is not there: name it in grading.modules"
        if words := set(_of_pytest(nodes)) - set(WORDS):
            return f"uses pytest.{min(words)}, which is not there"
        if skips := methods & {"skip", "skipif", "xfail", "expectedFailure", "skipTest", "skipUnless", "skipIf"}:
            return f"has a test that need not pass: {min(skips)}"
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        cases = [node for node in classes if "TestCase" in ast.unparse(node)]
        grouped = [test for node in classes if node.name.startswith("Test") and node not in cases for test in node.body]
        tests = [
            test for test in [*body, *grouped] if isinstance(test, ast.FunctionDef) and test.name.startswith("test")
        ]
        for test in tests:
            given = _parametrised(test) | ({"self"} if test in grouped else set())
            named = [argument.arg for argument in test.args.args][: len(test.args.args) - len(test.args.defaults)]
            if wanting := [name for name in named if name not in given]:
                return f"has a test that wants arguments: {test.name}({', '.join(wanting)})"
        if tests or cases or statements_that_test(body):
            return None
        return "runs none of its asserts: call the function that holds them, e.g. check(add)"

    def _elsewhere(self, module: str) -> bool:
        """Whether tests import a module that is installed, but not there when they run; another one is the answer."""
        if module in sys.stdlib_module_names or module == "pytest" or module in self.modules:
            return False
        spec = find_spec(module)
        return spec is not None and "-packages" in str(spec.origin)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _workers(self) -> WorkerPool:
        if self._pool is None:
            self.check_system()
            root = str(Path(backtrack_mrt.__file__).parent.parent)
            command = [sys.executable, "-I", "-c", _START.format(root), "--cpu-s", str(self.cpu_s)]
            command += ["--wall-s", str(self.wall_s), "--memory-mb", str(self.memory_mb), "--modules", *self.modules]
            environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
            remedy = "Check that grading.modules are installed, and that this system allows seccomp filters."
            self._pool = WorkerPool(self.workers, Program(command, self.wall_s + _MARGIN_S, remedy, environment))
        return self._pool


def _imported(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """The modules that are imported, by the first part of their names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _of_pytest(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """What the tests use of pytest."""
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pytest":
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "pytest":
            yield from (alias.name for alias in node.names)


def _parametrised(test: ast.FunctionDef) -> set[str]:
    """The arguments that a test gets by ``pytest.mark.parametrize``."""
    names: set[str] = set()
    for call in test.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.parametrize") and call.args:
            (said, *_) = call.args
            texts = said.elts if isinstance(said, (ast.List, ast.Tuple)) else [said]
            written = ",".join(str(text.value) for text in texts if isinstance(text, ast.Constant))
            names |= {name.strip() for name in written.split(",")}
    return names
