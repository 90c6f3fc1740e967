"""The gate of the embedded base model: does it check, backtrack and gain from revisions, with room left for training?

    python scripts/tiny/gate.py --n 2048 --split validation
    python scripts/tiny/gate.py --model runs/RUN/model          # a trained policy

Free rollouts at temperature 1 on the real rollout, prover and grader; 95 % bootstrap intervals over problems.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.data.signs import SPLITS, first_wrong_step, generate, is_right, misses
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.evaluation.evaluate import evaluate
from backtrack_mrt.evaluation.metrics.budgets import majority_at_tokens
from backtrack_mrt.evaluation.metrics.estimates import Estimate, bootstrap
from backtrack_mrt.evaluation.metrics.turns import outcomes_by_answer, returns, tokens_by_answer
from backtrack_mrt.protocol import standing_steps
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.types import Problem, Scored, StopReason, Trajectory, Turn, TurnSpec

LIMITS = (0, 1, 2, 3, 6)  # revisions allowed
TRAINED = 3
ATTEMPTS = 16  # independent ones per problem


class CheckedAttempt(Backtrack):
    """An attempt and its check, without revisions: what independent restarts repeat."""

    def next_turn(self, problem: Problem, turns: Sequence[Turn]) -> TurnSpec | StopReason:
        following = super().next_turn(problem, turns)
        return StopReason.FINISHED if len(turns) == 2 else following


def verdicts(trajectory: Trajectory) -> list[tuple[float, float]]:
    """Per check: whether right or wrong was told right, and whether the first wrong step was named."""
    found = []
    for j, turn in enumerate(trajectory.turns):
        if turn.spec.phase == BacktrackPhase.DETECT and turn.parsed is not None:
            steps = standing_steps(trajectory.turns[:j])
            wrong = first_wrong_step(trajectory.problem, steps) or 0
            clean = wrong > len(steps)
            named = turn.parsed.verdict if clean else turn.parsed.step == wrong
            found.append((float(turn.parsed.verdict is clean), float(bool(named))))
    return found


def retries(trajectory: Trajectory) -> list[tuple[float, float]]:
    """Per revision that rewrites the first wrong step: whether it repeats it, and whether it puts it right."""
    found = []
    for j, turn in enumerate(trajectory.turns):
        if turn.spec.phase != BacktrackPhase.REVISE or turn.parsed is None:
            continue
        before, after = standing_steps(trajectory.turns[: j - 1]), standing_steps(trajectory.turns[: j + 1])
        wrong = first_wrong_step(trajectory.problem, before) or 0
        kept = trajectory.turns[j - 1].parsed.step or 0  # type: ignore[union-attr]
        if kept < wrong <= min(len(before), len(after)):
            signs = [[char for char in steps[wrong - 1] if char in "+-"] for steps in (before, after)]
            right = first_wrong_step(trajectory.problem, after) or 0
            found.append((float(signs[0] == signs[1]), float(right > wrong)))
    return found


def values_by_right_blocks(scored: Sequence[Scored]) -> dict[tuple[int, str], dict[int, list[float]]]:
    """V after a turn, by (number of blocks, phase) and the number of blocks that the standing answer has right."""
    table: dict[tuple[int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for s in scored:
        answer, blocks = "", s.trajectory.problem.answer.count(",") + 1
        for turn, value in zip(s.trajectory.turns, s.values[1:], strict=True):  # type: ignore[index]
            if turn.parsed is not None:
                answer = turn.parsed.answer or answer
                right = misses(s.trajectory.problem, answer).count(0)
                table[blocks, turn.spec.phase][right].append(value)
    return table


def restarts(scored: Sequence[Scored], attempts: int) -> np.ndarray:
    """Mean tokens and accuracy of up to 1 … `attempts` checked attempts, each kept if its own check finds no error,
    shape (attempts, 2). The last attempt allowed is not checked."""
    curve = np.zeros((attempts, 2))
    for start in range(0, len(scored), attempts):
        rows = [s.trajectory for s in scored[start : start + attempts]]
        for allowed in range(1, attempts + 1):
            for k, row in enumerate(rows[:allowed], 1):
                last = k == allowed
                curve[allowed - 1, 0] += len(row.turns[0].completion.token_ids) if last else row.sampled_tokens
                accepted = len(row.turns) == 2 and row.turns[1].parsed is not None and row.turns[1].parsed.verdict
                if last or accepted:
                    parsed = row.turns[0].parsed
                    answer = (parsed.answer if parsed else None) or ""
                    curve[allowed - 1, 1] += is_right(row.problem, answer)
                    break
    return curve / (len(scored) / attempts)


def main() -> None:
    """Samples, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2048, help="problems")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--model", default="tiny", help="'tiny' (embedded) or a directory")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--restart-problems", type=int, default=512, help="problems of the comparison with restarts")
    args = parser.parse_args()
    parts = assemble(read_request(["--model.name_or_path", args.model]).config)
    problems = generate(args.split, args.n, args.seed)
    start = time.perf_counter()
    protocol = parts.config.protocol.prolonged(LIMITS[-1] / TRAINED)
    scored = evaluate(problems, parts.collector(protocol, True), args.temperature, args.seed).scored
    trajectories = [s.trajectory for s in scored]
    print(f"{args.split}, n = {args.n}, temperature {args.temperature:g}, {time.perf_counter() - start:.0f} s\n")

    def show(name: str, rows: Sequence[Sequence[float]]) -> Estimate:
        estimate = bootstrap(rows)
        print(f"{name:<44}{estimate}")
        return estimate

    most = LIMITS[-1] + 1
    right = [outcomes_by_answer(t, most) for t in trajectories]
    tokens = [tokens_by_answer(t, most) for t in trajectories]
    final = {limit: show(f"accuracy, {limit} revisions", [[row[limit]] for row in right]) for limit in LIMITS}
    spent = {limit: show(f"sampled tokens, {limit} revisions", [[row[limit]] for row in tokens]) for limit in LIMITS}
    checks = [verdicts(t) for t in trajectories]
    show("check: right or wrong", [[told for told, _ in row] for row in checks])
    show("check: names the first wrong step", [[named for _, named in row] for row in checks])
    kinds = [returns(t, first_wrong_step) for t in trajectories]
    for kind in ("exact", "early", "late", "needless"):
        show(f"backtracks: {kind}", [[float(k == kind) for k in row] for row in kinds])
    again = [retries(t) for t in trajectories]
    show("revisions that repeat the rejected step", [[repeated for repeated, _ in row] for row in again])
    show("revisions that put it right", [[fixed for _, fixed in row] for row in again])
    show("turns that break the protocol", [[float(u.violation is not None) for u in t.turns] for t in trajectories])
    show("trajectories that break the protocol", [[float(t.stop is StopReason.VIOLATION)] for t in trajectories])
    show("V_0", [[float(s.values[0])] for s in scored if s.values is not None])

    print("\nmean V by the number of blocks that the standing answer has right")
    for (blocks, phase), column in sorted(values_by_right_blocks(scored).items()):
        cells = "  ".join(f"{k}: {np.mean(column[k]):.3f} ({len(column[k])})" for k in sorted(column))
        print(f"  {blocks} blocks, after {phase:<10} {cells}")

    checked = CheckedAttempt(**parts.config.protocol.model_dump())
    several = problems[: args.restart_problems]
    collector = parts.collector(checked, False)
    attempted = evaluate(several, collector, args.temperature, ATTEMPTS, args.seed + 1).scored
    curve = restarts(attempted, ATTEMPTS)
    print("\nbacktracking against independent attempts at equal sampled tokens: restarts until a check accepts, votes")
    for limit in (TRAINED, LIMITS[-1]):
        budget = spent[limit].mean
        other = np.interp(budget, curve[:, 0], curve[:, 1])
        votes = majority_at_tokens(attempted, 1, budget)
        print(f"  {budget:.0f} tokens ({limit} revisions): {final[limit].mean:.3f} against {other:.3f}, {votes}")


if __name__ == "__main__":
    main()
