"""Grade answers against golds: fast where exact arithmetic decides, safe where a computer algebra system must."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from backtrack_mrt.grading.forms import Forms, is_evaluated
from backtrack_mrt.grading.guards import MAX_CHARS, MAX_DIGITS
from backtrack_mrt.grading.judge import judge
from backtrack_mrt.grading.pool import Limits, WorkerPool, comparing
from backtrack_mrt.grading.question import Ask
from backtrack_mrt.grading.verdict import Verdict

_INTEGER = re.compile(rf"[+-]?[0-9]{{1,{MAX_DIGITS}}}")
_Key = tuple[str, str, float | None]


class MathGrader:
    """Grades and remembers. One instance serves any number of threads.

    No process is started until a pair needs one: integers, fractions, decimals, words, choices and tuples of them
    never do. A grade takes microseconds without and milliseconds with a worker. What limits it is processor time,
    which other programs cannot use up: at most 1 s in the worker (`Limits.cpu_s`), .1 s for the rules before it. Wall
    time is bounded only so that nothing hangs (`Limits.wall_s`; besides the wait for an idle worker and its start).

    Args:
        workers: processes that grade at the same time, one core and 100 MB each.
        cache_size: verdicts remembered, the least recently used ones are dropped first.
        limits: what one pair may cost.
    """

    def __init__(self, workers: int = 2, cache_size: int = 65_536, limits: Limits | None = None) -> None:
        if workers < 1 or cache_size < 0:
            raise ValueError(f"workers = {workers}, cache_size = {cache_size}: at least 1 and 0")
        self._pool = WorkerPool(workers, comparing(limits or Limits()))
        self._cache: OrderedDict[_Key, Verdict] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()  # of the cache

    def grade(
        self, gold: str, answer: str | None, *, rel_tol: float | None = None, forms: Forms = "equivalent"
    ) -> Verdict:
        """Whether ``answer`` equals ``gold``; never raises for any answer.

        Args:
            gold: the reference, as the data set writes it; not checked here, see `check_gold`.
            answer: what stands in the box, without it. None and what is no string are UNPARSABLE.
            rel_tol: if given, numbers within this share of the gold's size are right too (0.01 = one per cent).
                Without it numbers are right only if exactly equal.
            forms: "numeral" pays only numerals where the gold is one (training's default), "equivalent" whatever
                equals it.

        Raises:
            UserError: a worker process is needed and cannot be started (math-verify is not installed).
        """
        decided = self._decide(gold, answer, rel_tol)
        verdict = decided if isinstance(decided, Verdict) else self._ask((gold, str(answer), rel_tol), decided)
        return _in_form(verdict, gold, answer) if forms == "numeral" else verdict

    def grade_many(
        self,
        pairs: Iterable[tuple[str, str | None]],
        *,
        rel_tol: float | Sequence[float | None] | None = None,
        forms: Forms = "equivalent",
    ) -> list[Verdict]:
        """`grade` for each (gold, answer), in order; each distinct pair is compared once, all workers busy. `rel_tol`:
        one for all pairs, or one per pair."""
        listed = list(pairs)
        tolerances = rel_tol if isinstance(rel_tol, Sequence) else [rel_tol] * len(listed)
        keys: list[_Key | None] = [
            (gold, answer, tolerance) if isinstance(gold, str) and isinstance(answer, str) else None
            for (gold, answer), tolerance in zip(listed, tolerances, strict=True)
        ]
        verdicts: dict[_Key | None, Verdict] = {None: Verdict.UNPARSABLE}
        slow: dict[_Key, Ask] = {}
        for key in keys:
            if key is not None and key not in verdicts:
                decided = self._decide(*key)
                if isinstance(decided, Verdict):
                    verdicts[key] = decided
                else:
                    slow[key] = decided
        if slow:
            with ThreadPoolExecutor(min(self._pool.size, len(slow)), thread_name_prefix="grading") as threads:
                results = threads.map(lambda item: self._ask(*item), slow.items())
                verdicts.update(zip(slow, results, strict=True))
        if forms == "numeral":
            verdicts = {key: _in_form(verdict, *key[:2]) if key else verdict for key, verdict in verdicts.items()}
        return [verdicts[key] for key in keys]

    def close(self) -> None:
        """End the worker processes. A later grade starts them again."""
        self._pool.close()

    def __enter__(self) -> MathGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decide(self, gold: str, answer: str | None, rel_tol: float | None) -> Verdict | Ask:
        """The verdict, if no worker is needed for it."""
        if not isinstance(gold, str) or not isinstance(answer, str):
            return Verdict.UNPARSABLE
        # Most golds and answers of the arithmetic sets are bare integers: no cache, no parser.
        if gold.isdigit() and answer.isdigit() and rel_tol is None and gold.isascii() and answer.isascii():
            if gold == answer:
                return Verdict.RIGHT
            if len(gold) <= MAX_DIGITS and len(answer) <= MAX_DIGITS:
                return Verdict.RIGHT if int(gold) == int(answer) else Verdict.WRONG
        plain_gold, plain_answer = gold.strip(), answer.strip()
        if not plain_gold or not plain_answer:
            return Verdict.UNPARSABLE
        if plain_gold == plain_answer:
            return Verdict.RIGHT
        if rel_tol is None and _INTEGER.fullmatch(plain_answer) and _INTEGER.fullmatch(plain_gold):
            return Verdict.RIGHT if int(plain_gold) == int(plain_answer) else Verdict.WRONG
        # Refused anyway, and not worth a place in the cache.
        if len(plain_answer) > MAX_CHARS or len(plain_gold) > MAX_CHARS:
            return Verdict.UNPARSABLE
        with self._lock:
            known = self._cache.get((gold, answer, rel_tol))
            if known is not None:
                self._cache.move_to_end((gold, answer, rel_tol))
                return known
        decided = judge(plain_gold, plain_answer, rel_tol)
        if isinstance(decided, Verdict):
            self._remember((gold, answer, rel_tol), decided)
        return decided

    def _ask(self, key: _Key, question: Ask) -> Verdict:
        reply = self._pool.ask(question.request(key[2]))
        if reply.lasting:
            self._remember(key, reply.verdict)
        return reply.verdict

    def _remember(self, key: _Key, verdict: Verdict) -> None:
        with self._lock:
            self._cache[key] = verdict
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)


def _in_form(verdict: Verdict, gold: str, answer: str | None) -> Verdict:
    """UNEVALUATED instead of RIGHT for a calculation left undone."""
    if verdict is not Verdict.RIGHT or answer is None or gold == answer or is_evaluated(gold, answer):
        return verdict
    return Verdict.UNEVALUATED
