"""A trajectory as plain text for people."""

from __future__ import annotations

import textwrap

from backtrack_mrt.types import FloatArray, Parsed, StopReason, Trajectory, Turn


def render_trace(trajectory: Trajectory, values: FloatArray | None = None) -> str:
    """The problem, each turn with what it claims, and how it ended. With the meta-prover's `values` (E+1,) each turn
    also shows V before and after it. Control characters in the model's text are shown escaped."""
    problem = trajectory.problem
    source = f" ({problem.source})" if problem.source else ""
    blocks = [f"Problem {problem.id}{source}\n{_quoted(problem.question)}"]
    for j, turn in enumerate(trajectory.turns):
        progress = "" if values is None else f" · V {values[j]:.2f} → {values[j + 1]:.2f}"
        head = f"Turn {j + 1} · {turn.spec.phase} · {len(turn.completion.token_ids)} tokens · {_claim(turn)}{progress}"
        blocks.append(f"{head}\n{_quoted(turn.text)}")
    return "\n\n".join([*blocks, _end(trajectory)]) + "\n"


def _claim(turn: Turn) -> str:
    if turn.violation is not None:
        return f"violation: {turn.violation}"
    if turn.parsed is None:
        return "cut off by the budget"
    return _describe(turn.parsed)


def _describe(parsed: Parsed) -> str:
    claims = []
    if parsed.verdict is not None:
        claims.append("no error" if parsed.verdict else f"error in step {parsed.step}")
    elif parsed.step is not None:
        claims.append(f"back to step {parsed.step}" if parsed.step else "back to the beginning")
    if parsed.answer is not None:
        claims.append(f"answer {_visible(parsed.answer)}")
    return " · ".join(claims) or "accepted"


def _end(trajectory: Trajectory) -> str:
    if trajectory.stop is None:
        return "(under way)"
    answer = "no answer" if trajectory.answer is None else f"answer {_visible(trajectory.answer)}"
    verdict = f" · {trajectory.verdict}" if trajectory.verdict and trajectory.stop is not StopReason.VIOLATION else ""
    gold = _visible(trajectory.problem.answer)
    return f"End: {trajectory.stop} · {answer}{verdict} (gold {gold}) · {trajectory.sampled_tokens} tokens sampled"


def _quoted(text: str) -> str:
    return textwrap.indent(_visible(text), "  | ", lambda line: True) if text else "  | (nothing)"


def _visible(text: str) -> str:
    """Text that cannot steer a terminal: what is not printable is escaped."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
