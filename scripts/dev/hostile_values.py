"""Words, values and damage that no reader was made for: what `hostile_cases.py` is made of."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

_WORDS = """null true -1 0 0.5 1e400 -inf nan NaN 0x10 1_000 ½ ٣ ² [ [] [[[[ {} {a:1} - -- = --- ../.. / /dev/null
/proc/self/mem ~nobody/x $HOME %s%n a/b/c/d a:b:c http://[ file:///etc/passwd two None signs/ signs/nope gsm8k= =x
tiny/ TINY ./nope.py nope.py ./ mrt_rl MRT-RL"""
WORDS = (
    *_WORDS.split(),
    *("", " ", "9" * 5_000, "x" * 300, "x" * 5_000, "\udcff", "\u202etxt", "a\nb", "\x1b[2J", "- a", "!!int 1"),
    "mrt-rl ",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 10**30, -(10**400), 1e308, "", " ", "x", "x" * 1_000, [], {}, [[]], [None]),
    *({"a": {"b": 1}}, "\u0000", "\ud800", "½", "٣", "NaN", "Infinity", "1e9", "</think>", "<|im_end|>", "\\boxed{"),
    *("{{ 1/0 }}", "../x"),
)
PLACEHOLDERS = (
    *("N/A", "None", "nan", "see solution", "", "?", "It is 5. Or 6.", "#### ", "\\boxed{}", "the answer", "1/0", "∞"),
    "9" * 3_000,
)


def mutated(rng: random.Random, value: Any) -> Any:
    """The value with one part of it replaced, taken away, doubled or put deeper."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        how = rng.random()
        if how < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.25:
            return value | {rng.choice(("nope", "", "x" * 300, "__class__", key.upper())): rng.choice(VALUES)}
        return value | {key: mutated(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], mutated(rng, value[at]), *value[at + 1 :]]
    if rng.random() < 0.05:
        for _ in range(rng.choice((10, 3_000))):
            value = [value]
        return value
    return rng.choice(VALUES)


def dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "[" * 100_000


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes as a bad disk or a wrong program leaves them."""
    at = rng.randrange(len(content) + 1)
    kinds = (
        *(content[:at], content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]),
        *(content[:at] + b"\xff\xfe" + content[at:], b"\xef\xbb\xbf" + content, content.replace(b'"', b"'")),
        *(b"", b"\x00" * 100, b"[" * 100_000, content.decode("utf-8", "replace").encode("utf-16")),
        gzip.compress(content)[: rng.choice((5, 10_000))],
    )
    return rng.choice(kinds)
