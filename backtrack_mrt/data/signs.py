r"""SIGNS WITH CHECKPOINTS, the embedded task: hard to generate, easy to check, and secured block by block.

A problem has B blocks; each is a few numbers and a target, as in ``1) 3 5 6 = 4; 2) 7 1 6 2 = 0;``. Put a plus or a
minus before each number so that every block's total is its target. One step of a solution is one block::

    ## Step 1: +3 -5 +6 = 4;
    ## Step 2: +7 +1 -6 -2 = 0;
    \boxed{+-+,++--}

Finding signs is a subset-sum search, checking them is one sum. Every block has exactly one solution, and never all
signs the same, so the answer is one canonical string and its likelihood is exact.

Splits hold out *blocks*, not only problems: a block's partition is a hash of its numbers (in any order) and the size
of its target, so no held-out block is a reordering or a mirror image of one the base model was taught.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from backtrack_mrt.types import Problem

PARTITION = "second"  # name of the draw of the splits: a new name gives held-out blocks that nobody has looked at
SPLITS = {"base": 0.70, "train": 0.15, "validation": 0.075, "test": 0.075}
MAX_BLOCKS = 6
BLOCK_SIZES = (3, 4)
MAX_NUMBER = 9

_BLOCK = re.compile(r"\d+\)((?: \d+)+) = (-?\d+);")
_QUESTION = re.compile(rf"{_BLOCK.pattern}(?: {_BLOCK.pattern})*")
_TERM = re.compile(r"([+-])([0-9]+)")


@dataclass(frozen=True, slots=True)
class SignsBlock:
    """A few numbers, the total their signed sum must hit, and the only sign pattern that hits it."""

    numbers: tuple[int, ...]
    target: int
    signs: str

    def miss(self, signs: str) -> int:
        """Signed sum minus target; 0 exactly for the solution."""
        return signed_sum(self.numbers, signs) - self.target


def signed_sum(numbers: tuple[int, ...], signs: str) -> int:
    """Total of `numbers` under a pattern such as ``+-+``."""
    return sum(n if s == "+" else -n for n, s in zip(numbers, signs, strict=True))


def sign_patterns(size: int) -> list[str]:
    """All 2^size sign patterns."""
    return ["".join(signs) for signs in product("+-", repeat=size)]


def drawn_split(problem: str) -> str:
    """Which split a generated problem belongs to: drawn by its digest, so it is the same everywhere and always."""
    place = int.from_bytes(hashlib.sha256(problem.encode()).digest()[:8], "big") / 2**64
    for split, share in SPLITS.items():
        place -= share
        if place < 0:
            return split
    return split  # what rounding leaves


def split_of(numbers: tuple[int, ...], target: int) -> str:
    """Partition of a block; equal for its reorderings and its mirror image (all signs and the target flipped)."""
    return _drawn_split(tuple(sorted(numbers)), abs(target))


@cache
def _drawn_split(numbers: tuple[int, ...], target: int) -> str:
    return drawn_split(f"{PARTITION}: {list(numbers)}={target}")


@cache
def blocks_of(split: str, size: int, max_number: int = MAX_NUMBER) -> tuple[SignsBlock, ...]:
    """Every block of `size` numbers in 1..`max_number` in a split: one solution, and that one of mixed signs."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if size not in BLOCK_SIZES or not 2 <= max_number <= MAX_NUMBER:
        raise ValueError(f"blocks have {BLOCK_SIZES} numbers up to 2..{MAX_NUMBER}, got {size} and {max_number}")
    return tuple(block for block in _blocks(size, max_number) if split_of(block.numbers, block.target) == split)


@cache
def _blocks(size: int, max_number: int) -> tuple[SignsBlock, ...]:
    """Those of all splits."""
    patterns, blocks = sign_patterns(size), []
    for numbers in product(range(1, max_number + 1), repeat=size):
        totals = [sum(terms) for terms in product(*((n, -n) for n in numbers))]  # one per pattern
        for signs, total in zip(patterns, totals, strict=True):
            if totals.count(total) == 1 and len(set(signs)) == 2:
                blocks.append(SignsBlock(numbers, total, signs))
    return tuple(blocks)


def generate(
    split: str,
    n: int,
    seed: int = 0,
    *,
    min_blocks: int = 3,
    max_blocks: int = 5,
    long_share: float = 0.9,
    max_number: int = MAX_NUMBER,
) -> list[Problem]:
    """`n` problems of a split, the same for the same arguments.

    Difficulty dials: the number of blocks is uniform in `min_blocks`..`max_blocks`; `long_share` of the blocks have
    four numbers (14 patterns to choose from), the others three (6 patterns); numbers run up to `max_number`.
    """
    if not 1 <= min_blocks <= max_blocks <= MAX_BLOCKS:
        raise ValueError(f"need 1 <= min_blocks <= max_blocks <= {MAX_BLOCKS}, got {min_blocks} and {max_blocks}")
    rng = random.Random(f"signs/{split}/{seed}")
    problems = []
    for index in range(n):
        sizes = [BLOCK_SIZES[rng.random() < long_share] for _ in range(rng.randint(min_blocks, max_blocks))]
        blocks = [rng.choice(blocks_of(split, size, max_number)) for size in sizes]
        answer = ",".join(block.signs for block in blocks)
        problems.append(Problem(f"signs/{split}/{index}", render_question(blocks), answer, source="signs"))
    return problems


def render_question(blocks: list[SignsBlock]) -> str:
    """``1) 3 5 6 = 4; 2) 7 1 6 2 = 0;``"""
    return " ".join(f"{i}) {' '.join(map(str, b.numbers))} = {b.target};" for i, b in enumerate(blocks, 1))


def is_signs(problem: Problem) -> bool:
    """Whether a problem is of this task, whatever its source says: by its question and its gold answer."""
    if not _QUESTION.fullmatch(problem.question):
        return False
    sizes = [len(numbers.split()) for numbers, _ in _BLOCK.findall(problem.question)]
    patterns = problem.answer.split(",")
    return [len(pattern) for pattern in patterns] == sizes and set(problem.answer) <= set("+-,")


def parse_problem(problem: Problem) -> list[SignsBlock]:
    """The blocks of a problem, read back from its text."""
    found = _BLOCK.findall(problem.question)
    return [
        SignsBlock(tuple(map(int, numbers.split())), int(target), signs)
        for (numbers, target), signs in zip(found, problem.answer.split(","), strict=True)
    ]


def misses(problem: Problem, answer: str) -> list[int | None]:
    """Each block's miss under a comma-separated answer, shape (B,); None where the pattern is missing or ill-formed."""
    blocks, patterns = parse_problem(problem), answer.split(",")
    patterns += [""] * (len(blocks) - len(patterns))
    return [
        block.miss(pattern) if len(pattern) == len(block.numbers) and set(pattern) <= {"+", "-"} else None
        for block, pattern in zip(blocks, patterns, strict=False)
    ]


def is_right(problem: Problem, answer: str) -> bool:
    """Whether every block hits its target, computed from the question and not by comparing with the gold answer."""
    return answer.count(",") == problem.answer.count(",") and not any(m is None or m for m in misses(problem, answer))


def signed_terms(step: str) -> list[tuple[str, str]]:
    """Signs and numbers of a SIGNS step, without the total behind the equals sign."""
    return _TERM.findall(step.partition(":")[2].partition("=")[0])


def first_wrong_step(problem: Problem, steps: Sequence[str]) -> int | None:
    """Number of the first wrong or missing step (1-based), one more than there are steps if all are right, None for
    problems whose steps cannot be checked. Used by metrics only; the model is never told."""
    if not is_signs(problem):
        return None
    blocks = parse_problem(problem)
    for number, (block, step) in enumerate(zip(blocks, steps, strict=False), 1):
        if signed_terms(step) != [(sign, str(n)) for sign, n in zip(block.signs, block.numbers, strict=True)]:
            return number
    return min(len(steps), len(blocks)) + 1
