"""A trajectory as plain text for people."""

from __future__ import annotations

import textwrap

from backtrack_mrt.types import FloatArray, Problem, StopReason, Trajectory, Turn

LONGEST = 120  # characters of an answer within a line


def render_trace(trajectory: Trajectory, values: FloatArray | None = None) -> str:
    """The problem, each turn with what it claims, and how it ended. With the meta-prover's `values` (E+1,) each turn
    also shows V before and after it. Whatever the texts hold, they neither steer a terminal nor begin a line."""
    blocks = [
        problem_block(trajectory.problem),
        *(turn_block(trajectory, j, values) for j in range(len(trajectory.turns))),
        ending(trajectory),
    ]
    return "\n\n".join(blocks) + "\n"


def problem_block(problem: Problem) -> str:
    """The problem, its question quoted."""
    source = f" ({inline(problem.source)})" if problem.source else ""
    return f"Problem {inline(problem.id)}{source}\n{_quoted(problem.question)}"


def turn_block(trajectory: Trajectory, j: int, values: FloatArray | None = None) -> str:
    """Turn `j` (from 0): what it claims, V before and after it and its progress, and its text, quoted."""
    turn = trajectory.turns[j]
    progress = ""
    if values is not None:
        before, after = values[j], values[j + 1]
        progress = f" · V {before:.2f} → {after:.2f} ({after - before:+.2f})"
    head = f"Turn {j + 1} · {inline(turn.spec.phase)} · {len(turn.completion.token_ids)} tokens · {inline(claim(turn))}"
    return f"{head}{progress}\n{_quoted(turn.text)}"


def claim(turn: Turn) -> str:
    """What a turn says about the solution, in words."""
    if turn.violation is not None:
        return f"violation: {turn.violation}"
    if turn.parsed is None:
        return "cut off by the budget"
    claims, parsed = [], turn.parsed
    if parsed.verdict is not None:
        claims.append("no error" if parsed.verdict else f"error in step {parsed.step}")
    elif parsed.step is not None:
        claims.append(f"back to step {parsed.step}" if parsed.step else "back to the beginning")
    if parsed.answer is not None:
        claims.append(f"answer {inline(parsed.answer)}")
    return " · ".join(claims) or "accepted"


def ending(trajectory: Trajectory) -> str:
    """How it ended, or that it is still going on."""
    if trajectory.stop is None:
        return "(under way)"
    answer = "no answer" if trajectory.answer is None else f"answer {inline(trajectory.answer)}"
    graded = trajectory.verdict and trajectory.stop is not StopReason.VIOLATION
    verdict = f" · {inline(str(trajectory.verdict))}" if graded else ""
    gold = inline(trajectory.problem.answer)
    return f"End: {trajectory.stop} · {answer}{verdict} (gold {gold}) · {trajectory.sampled_tokens} tokens sampled"


def _quoted(text: str) -> str:
    return textwrap.indent(visible(text), "  | ", lambda line: True) if text else "  | (nothing)"


def inline(text: str) -> str:
    """Text within a line, for a terminal: whatever it holds, it neither steers it nor ends the line, nor fills it."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
    return visible(short).replace("\n", "\\n").replace("\t", "\\t")


def visible(text: str) -> str:
    """Text that steers neither a terminal nor a page: what is not seen, or turns the direction of writing, is shown by
    its name, which a reader can look up: ⟨U+202E⟩."""
    seen = text.replace("\n", "").replace("\t", "").isprintable()
    return text if seen else text.translate(_SHOWN)


class _Shown(dict[int, str]):
    """What stands for each character, found when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if character.isprintable() or character in "\n\t" else f"⟨U+{code:04X}⟩"
        return self[code]


_SHOWN = _Shown()
