"""The words of pytest that tests use most, for the process in which tests run: `raises`, `approx`, `mark`, `fail`.
pytest itself is not there: it wants files and plug-ins. `backtrack_mrt.graders.python` refuses tests with fixtures."""

from __future__ import annotations

import itertools
import math
import re
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

WORDS = ("raises", "approx", "mark", "param", "fail")


@contextmanager
def _raising(kind: Any, match: str | None) -> Iterator[types.SimpleNamespace]:
    """A block that must raise; then `value` is what it raised."""
    raised = types.SimpleNamespace(value=None)
    try:
        yield raised
    except kind as error:
        raised.value = error
        if match is not None and re.search(match, str(error)) is None:
            raise AssertionError(f"{error} does not match {match}") from error
        return
    raise AssertionError(f"did not raise {kind}")


class _Approx:
    """A number, or numbers in a list, tuple or dictionary, up to rounding."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None) -> None:
        self.expected = expected
        self.rel, self.abs = 1e-6 if rel is None and abs is None else rel or 0.0, 1e-12 if abs is None else abs

    def __eq__(self, other: object) -> bool:
        return self._near(self.expected, other)

    __hash__ = None  # type: ignore[assignment]

    def _near(self, expected: Any, found: Any) -> bool:
        if isinstance(expected, dict):
            same = isinstance(found, dict) and found.keys() == expected.keys()
            return same and all(self._near(value, found[key]) for key, value in expected.items())
        if isinstance(expected, (list, tuple)):
            same = type(found) is type(expected) and len(found) == len(expected)
            return same and all(map(self._near, expected, found))
        if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
            return expected == found or math.isclose(expected, found, rel_tol=self.rel, abs_tol=self.abs)
        return bool(expected == found)


class _Mark:
    """Marks change nothing, but `parametrize`, which gives a test its arguments."""

    @staticmethod
    def parametrize(names: str | Sequence[str], values: Any, **_: Any) -> Callable[[Any], Any]:
        several = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        bare = isinstance(names, str) and len(several) == 1  # its rows are the values themselves

        def marked(test: Any) -> Any:
            rows = [(row,) if bare else row for row in values]
            test.cases = [[dict(zip(several, row, strict=True)) for row in rows], *getattr(test, "cases", [])]
            return test

        return marked

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in ("skip", "skipif", "xfail"):
            raise AttributeError(name)  # a test that need not pass is none

        def mark(*given: Any, **_: Any) -> Any:
            return given[0] if len(given) == 1 and callable(given[0]) else lambda test: test

        return mark


def _raises(kind: Any, *call: Any, match: str | None = None, **named: Any) -> Any:
    block = _raising(kind, match)
    if not call:
        return block
    with block as raised:
        call[0](*call[1:], **named)
    return raised


def _param(*values: Any, **_: Any) -> Any:
    return values if len(values) > 1 else values[0]


def _fail(reason: str = "", **_: Any) -> None:
    raise AssertionError(reason)


def module() -> types.ModuleType:
    """What `import pytest` gives."""
    words = types.ModuleType("pytest")
    vars(words).update(dict(zip(WORDS, (_raises, _Approx, _Mark(), _param, _fail), strict=True)))
    return words


def cases_of(test: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each call of a test: one without any, unless it is parametrised."""
    for combined in itertools.product(*getattr(test, "cases", [])):
        yield {name: value for row in combined for name, value in row.items()}
