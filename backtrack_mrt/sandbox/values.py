"""Plain values over a pipe. What arrives is built of Python's own types and nothing else, whoever sent it.

Numbers, texts, bytes, lists, tuples, sets, dictionaries, ranges, fractions, decimals and dates pass as they are.
Anything else stays where it is and passes as a `Handle`.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST_BYTES = 1 << 22  # of one message
_HEAD = 8
_SEVERAL: dict[type[Any], str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_SPELLED: dict[type[Any], tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    int: ("int", hex, lambda text: int(text, 16)),
    float: ("float", float.hex, float.fromhex),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    complex: ("complex", str, complex),
    Fraction: ("Fraction", str, Fraction),
    Decimal: ("Decimal", str, Decimal),
    datetime.datetime: ("datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: ("date", datetime.date.isoformat, datetime.date.fromisoformat),
}
_READ = {name: read for name, _, read in _SPELLED.values()}


def encoded(value: Any, other: Callable[[Any], Any]) -> Any:
    """The value as JSON can hold it; `other` encodes what is not plain."""
    if value is None or value is True or value is False or type(value) is str:
        return value
    for kind, name in _SEVERAL.items():
        if isinstance(value, kind):
            return {name: [encoded(each, other) for each in value]}  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {"dict": [[encoded(k, other), encoded(v, other)] for k, v in value.items()]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    for kind, (name, write, _) in _SPELLED.items():
        if isinstance(value, kind):
            return {name: write(value)}
    return str(value) if isinstance(value, str) else other(value)


def decoded(value: Any, other: Callable[[int], Any]) -> Any:
    """The value behind `encoded`; `other` finds what a handle stands for. Raises ValueError and the like for what
    `encoded` does not write."""
    if not isinstance(value, dict):
        if value is None or isinstance(value, (bool, str)):
            return value
        raise ValueError("no value")
    ((name, inner),) = value.items()
    for kind, known in _SEVERAL.items():
        if name == known:
            return kind(decoded(each, other) for each in inner)
    if name == "dict":
        return {decoded(k, other): decoded(v, other) for k, v in inner}
    if name == "range":
        return range(*map(int, inner))
    return other(int(inner)) if name == "handle" else _READ[name](str(inner))


def send(descriptor: int, message: Any) -> None:
    """One message. Raises ValueError if it is too long."""
    text = json.dumps(message).encode()
    if len(text) > MOST_BYTES:
        raise ValueError("too long a value")
    left = memoryview(len(text).to_bytes(_HEAD, "big") + text)
    while left:
        left = left[os.write(descriptor, left) :]


def receive(descriptor: int) -> Any:
    """The next message. Raises EOFError where the other side has ended, ValueError for what is no message."""
    size = int.from_bytes(_exactly(descriptor, _HEAD), "big")
    if size > MOST_BYTES:
        raise ValueError("too long a message")
    return json.loads(_exactly(descriptor, size))


def _exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
