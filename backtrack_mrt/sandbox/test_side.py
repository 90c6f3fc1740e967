"""The process in which tests run. The answer's names stand for calls into another process: whatever the answer does
there, it changes no test, and nothing comes back but plain values.

Tests are asserts, functions `test_…`, classes of `unittest` or `Test…`, or a mixture; of pytest the most used words are
there (`pytest_words`). A test that imports a module which is not there gets the answer: ``from solution import add``.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import types
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backtrack_mrt.sandbox import pytest_words
from backtrack_mrt.sandbox.values import decoded, encoded, receive, send

_LAZY = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR  # a call runs nothing of these


class AnswerError(Exception):
    """The answer raised something that is no exception of Python's own."""


@dataclass
class Tally:
    """Tests that passed, of all; `read` is False where the answer is no Python."""

    passed: int = 0
    total: int = 0
    read: bool = True


class Handle:
    """Something of the answer's. It can be called, asked for attributes, indexed and iterated over; it equals itself
    alone, so that no answer decides what it is equal to."""

    __slots__ = ("_link", "_of")

    def __init__(self, link: Link, of: int) -> None:
        self._link, self._of = link, of

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.ask(self._of, None, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask(self._of, name)

    def __len__(self) -> int:
        try:
            return int(self._link.ask(self._of, "__len__", ()))
        except AttributeError as error:
            raise TypeError("the object has no length") from error  # a generator: list() then asks no more

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask(self._of, "__getitem__", (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._link.ask(self._of, "__setitem__", (key, value))

    def __iter__(self) -> Iterator[Any]:
        inner = self._link.ask(self._of, "__iter__", ())
        while True:
            try:
                yield self._link.ask(inner._of, "__next__", ())
            except StopIteration:
                return

    def __next__(self) -> Any:
        return self._link.ask(self._of, "__next__", ())


class Link:
    """The pipes to the answer's process. gone: whether it has ended, which no test may take for an exception that it
    wants to see."""

    def __init__(self, calls: int, results: int) -> None:
        self.calls, self.results, self.gone = calls, results, False

    def names(self) -> dict[str, Any] | None:
        """The answer's names; None if it is no Python. Raises what running it raised. Names of Python's own functions
        and modules keep their meaning: an answer must not say what `abs` is to a test."""
        message = self._received()
        if "unreadable" in message:
            return None
        if "names" not in message:
            raise _error(message)
        own = {str(name): decoded(value, self._handle) for name, value in message["names"].items()}
        return {name: value for name, value in own.items() if name not in vars(builtins) and name not in sys.modules}

    def ask(self, of: int, name: str | None, args: Any = None, kwargs: Any = None) -> Any:
        """An attribute, or (with `args`) a call. Raises what the answer raised, if that is Python's own."""
        message: dict[str, Any] = {"of": of, "name": name}
        if args is not None:
            message |= {"args": encoded(tuple(args), _passed), "kwargs": encoded(kwargs or {}, _passed)}
        reply = self._received(message)
        if "value" not in reply:
            raise _error(reply)
        for given, left in zip(args or (), decoded(reply.get("args", {"tuple": []}), self._handle), strict=False):
            _update(given, left)
        return decoded(reply["value"], self._handle)

    def _received(self, asked: Any = None) -> Any:
        try:
            if asked is not None:
                send(self.calls, asked)
            return receive(self.results)
        except (EOFError, OSError):
            self.gone = True
            raise

    def _handle(self, of: int) -> Handle:
        return Handle(self, of)


def _update(given: Any, left: Any) -> None:
    """Do to a list, dictionary or set of the tests what the call has done to its copy."""
    if type(given) is type(left) and given != left:
        if isinstance(given, list):
            given[:] = left
        elif isinstance(given, dict | set):
            given.clear()
            given.update(left)


def _passed(value: Any) -> dict[str, str]:
    if isinstance(value, Handle):
        return {"handle": str(value._of)}
    raise TypeError(f"{type(value).__name__} is no plain value: it cannot be passed to an answer")


def _error(message: dict[str, Any]) -> Exception:
    kind = getattr(builtins, str(message.get("raised")), None)
    own = isinstance(kind, type) and issubclass(kind, Exception)
    return kind(str(message.get("said"))) if own and kind is not None else AnswerError(str(message.get("raised")))


def statements_that_test(body: list[ast.stmt]) -> set[ast.stmt]:
    """Asserts, what must raise, calls of the tests' own functions, and blocks with these; not what only a main program
    would run."""
    own = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    found = set()
    for node in body:
        main = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        if main or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        calls = [inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)]
        called = any(isinstance(name, ast.Name) and name.id in {*own, "raises"} for name in calls)
        called = called or any(isinstance(name, ast.Attribute) and name.attr == "raises" for name in calls)
        if called or any(isinstance(inner, ast.Assert) for inner in ast.walk(node)):
            found.add(node)
    return found


def run_tests(tests: str, link: Link) -> Tally:
    """Run all tests against the answer behind the link. Raises SyntaxError for tests that are no Python."""
    tally = _tally(tests, link)
    if link.gone:
        tally.passed = min(tally.passed, tally.total - 1)
    return tally


def _tally(tests: str, link: Link) -> Tally:
    body = ast.parse(tests).body
    testing = statements_that_test(body)
    tally = Tally(total=len(testing))
    try:
        answer = link.names()
    except Exception:
        answer, tally.total = {}, max(tally.total, 1)
        return tally
    if answer is None:
        return Tally(total=max(tally.total, 1), read=False)
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": {**vars(builtins), "__import__": _importer(answer)}}
    names |= answer
    for node in body:
        try:
            exec(compile(ast.Module([node], []), "<tests>", "exec", dont_inherit=True), names)
        except Exception:
            if node in testing:
                continue
            tally.total += 1
            return tally
        tally.passed += node in testing  # check(add): all that it asserts is one test
    for name, value in list(names.items()):
        if isinstance(value, types.FunctionType) and name.startswith("test"):
            _count(value, tally)
        elif isinstance(value, type) and issubclass(value, unittest.TestCase):
            suite, result = unittest.defaultTestLoader.loadTestsFromTestCase(value), unittest.TestResult()
            suite.run(result)
            tally.total += result.testsRun
            tally.passed += result.testsRun - len(result.errors) - len(result.failures)
        elif isinstance(value, type) and name.startswith("Test"):
            for own, test in vars(value).items():
                if isinstance(test, types.FunctionType) and own.startswith("test"):
                    _count(test, tally, value)
    return tally


def _count(test: Any, tally: Tally, owner: type | None = None) -> None:
    """Every case of a test function is a test; those of a class `Test…` have an object of it each."""
    if test.__code__.co_flags & _LAZY:
        return
    for arguments in pytest_words.cases_of(test):
        tally.total += 1
        try:
            if owner is None:
                test(**arguments)
            else:
                own = owner()
                getattr(own, "setup_method", lambda: None)()
                test(own, **arguments)
        except Exception:
            continue
        tally.passed += 1


def _importer(answer: dict[str, Any]) -> Any:
    """Python's import, with the answer in place of a module that is not there."""

    words = pytest_words.module()

    def load(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pytest":
            return words
        try:
            return __import__(name, *rest, **more)
        except ImportError:
            module = types.ModuleType(name)
            vars(module).update(answer)
            return module

    return load
