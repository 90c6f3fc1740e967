"""What a fuzzer feeds: a target takes any bytes and fails only if a promise is broken. `scripts/dev/fuzz.py` runs them.

`SEPARATOR` cuts an input into turns, or into gold and answer.
"""

from __future__ import annotations

import ast
import copy
import json
import math
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from support.trajectory_checks import check_step

from backtrack_mrt.data.answers import read_gold
from backtrack_mrt.env import EpisodeEnv
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.open_ended import OpenEnded
from backtrack_mrt.envs.retry import Retry
from backtrack_mrt.envs.single import Single
from backtrack_mrt.errors import UserError
from backtrack_mrt.grading import Verdict, check_gold, extract_boxed
from backtrack_mrt.grading.judge import judge
from backtrack_mrt.rollouts.chat import ByteChat
from backtrack_mrt.rollouts.prompts import load_prompts
from backtrack_mrt.runs.records import as_record, read_trajectories, write_trajectories
from backtrack_mrt.runs.trace import render_trace
from backtrack_mrt.types import Completion, Finish, Problem

TESTS = Path(__file__).parents[1]
SEPARATOR = "\x1e"
_NUMERAL = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:/[1-9][0-9]{0,40})?", re.ASCII)
_PROTOCOLS = [
    (Backtrack(token_budget=700, attempt_tokens=300, detect_tokens=100, backtrack_tokens=60), "backtrack"),
    (Backtrack(token_budget=5000, attempt_tokens=2000, detect_tokens=900, backtrack_tokens=900), "backtrack"),
    (Retry(token_budget=2000), "retry"),
    (Single(token_budget=1000), "single"),
    (OpenEnded(token_budget=2000, max_episodes=4), "open_ended"),
]
_ENVS = [
    EpisodeEnv(protocol, [Problem("p", "What is 1 + 1?", "2")], load_prompts(name, "terse"), grade=lambda *_: "right")
    for protocol, name in _PROTOCOLS
]
_CHAT = ByteChat()


def parser(data: bytes) -> None:
    """The first character names a protocol, what follows are the turns of a policy; a turn that begins with a NUL is
    a piece of a stream. In the end budget, masks and texts must agree."""
    text = data.decode("utf-8", "surrogateescape")
    env = _ENVS[ord(text[:1] or "0") % len(_ENVS)]
    env.reset(seed=0)
    for turn in text[1:].split(SEPARATOR):
        action: object = turn
        if turn.startswith("\x00"):
            ids = _CHAT.encode(turn[1:])
            action = Completion(ids, (-1.0,) * len(ids), Finish.CUT)
        _, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    check_step(env, reward, terminated, truncated, _CHAT)
    shown(render_trace(env.trajectory))


def guards(data: bytes) -> None:
    """Gold and answer up to the worker: no exception, the same verdict twice, plain numerals by their value."""
    text = data.decode("utf-8", "surrogateescape")
    gold, _, answer = text.partition(SEPARATOR)
    box = extract_boxed(text)
    assert box is None or box in text
    for extract in ("auto", "hashes", "boxed"):
        read_gold(text, extract)
    usable = check_gold(gold) is None
    gold, answer = gold.strip(), answer.strip()
    if not gold or not answer:
        return
    verdict = judge(gold, answer, None)
    assert judge(gold, answer, None) == verdict
    judge(gold, answer, 0.01)
    if _NUMERAL.fullmatch(gold) and _NUMERAL.fullmatch(answer):
        assert verdict is (Verdict.RIGHT if _value(gold) == _value(answer) else Verdict.WRONG)
    if usable:
        assert judge(gold, gold, None) is not Verdict.WRONG


def records(data: bytes) -> None:
    """A file of trajectories is refused in one sentence, or can be written, read back and shown."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(data)
        file.flush()
        try:
            scored = read_trajectories(Path(file.name))
        except UserError:
            return
        write_trajectories(Path(file.name), scored)
        again = read_trajectories(Path(file.name))
    assert [as_record(member) for member in again] == [as_record(member) for member in scored]
    for member in scored:
        shown(render_trace(member.trajectory, member.values))


TARGETS: dict[str, Callable[[bytes], None]] = {"parser": parser, "guards": guards, "records": records}


_ODD = [None, True, False, -1, 0, 1, 7, 10**400, 1e308, 3.5, math.nan, math.inf, "", "x", "7", "violation", "right"]
_ODD += ["\x1b[31m", "\ud800", [], {}, [[]], [None], [1, "a"], [[1]] * 3, {"answer": 1}, {"tokens": 3, "text": "x"}]


def odd_json(data: bytes, longest: int, seed: int, otherwise: Callable[[bytes, int], bytes]) -> bytes:
    """A JSON text with one of its values replaced, left out or put in another place; what is none goes `otherwise`."""
    rng = random.Random(seed)
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return otherwise(data, longest)
    places: list[tuple[Any, Any]] = []  # containers with a key or index of theirs
    open_: list[Any] = [root]
    while open_:
        node = open_.pop()
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                open_.append(node[key])
    node, key = rng.choice(places)
    match rng.randrange(4):
        case 0 if node is not root:
            del node[key]
        case 1:
            other, place = rng.choice(places)
            node[key] = copy.deepcopy(other[place])
        case 2 if isinstance(node[key], list):
            node[key] *= 2
        case _:
            node[key] = rng.choice(_ODD)
    made = json.dumps(root[0]).encode()
    return made if rng.randrange(10) and len(made) <= longest else otherwise(data, longest)


def shown(text: str) -> None:
    """No text of a model steers a terminal."""
    assert all(c.isprintable() or c in "\n\t" for c in text)


def _value(numeral: str) -> Fraction:
    top, _, bottom = numeral.partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def seeds(target: str) -> Iterator[bytes]:
    """What the tests say, as inputs: every text in the files that test the part, and for the parser whole dialogues."""
    if target == "records":
        problem = {"id": "7", "question": "What is 1 + 1?", "answer": "2"}
        turn = {"text": "\\boxed{3}", "tokens": 12, "token_ids": [5, 6], "answer": "3", "logprobs": [-0.5, None]}
        parsed = {"phase": "revise", "parsed": {"answer": "2", "steps": ["a"], "step": 1, "verdict": None}}
        foreign = {"problem": problem, "turns": [turn, turn | parsed], "values": [0.5, None, 1], "stop": "violation"}
        yield json.dumps(foreign).encode()
        yield json.dumps(foreign | {"prompt_ids": [1], "outcome": 1.0, "verdict": "right", "given": 1}).encode()
        return
    for text in (
        texts("protocol/*") if target == "parser" else texts("grading/*", "support/*_kinds", "data/test_answers")
    ):
        body = text.encode("utf-8", "replace")
        if target == "guards":
            yield body
            yield body + SEPARATOR.encode() + body
        else:
            attempt = b"## Step 1: x\n## Step 2: y\n\\boxed{4}"
            check = attempt + b"\x1eError in step 2"
            before = [b"", attempt, check, check + b"\x1eBacktrack to step 0"]
            yield from (b"1" + (turns + SEPARATOR.encode() if turns else b"") + body for turns in before)
            yield from (bytes([kind]) + body for kind in (0, 2, 3, 4))


def texts(*tests: str) -> list[str]:
    """Every string written in these test files."""
    found = set()
    for path in (path for name in tests for path in TESTS.glob(f"{name}.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return sorted(found)
