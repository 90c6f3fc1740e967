"""What a protocol is rehearsed with: texts that a model might write, texts that none should, and made up claims."""

from __future__ import annotations

from backtrack_mrt.types import Parsed

HOSTILE = (  # what a model may write as well; parse may refuse it, and nothing else
    *("", " \n\t", "\x00\x1b[2J\u2028", "<<question>>", "\\boxed{", "}" * 99, "\\boxed{" * 2_000),
    *("\\boxed{" + "9" * 5_000 + "}", "## Step 99999999999999999:\n\\boxed{1}", "Error in step 99999999999999999"),
    *("Backtrack to step -1", "No error\nError in step 1", "a " * 10_000, "½ ² ٣ 𝟚"),
)
CLAIMS = (
    *(Parsed(answer="2", steps=("1 + 1 = 2",)), Parsed(answer="3", steps=("1 + 1 = 3",)), Parsed(verdict=True)),
    *(Parsed(verdict=False, step=1), Parsed(step=0), Parsed()),
)


def likely_replies(standing: int) -> list[str]:
    """What a model might write, with so many steps standing."""
    solutions = [f"## Step {standing + 1}: 1 + 1 = {n}\n\\boxed{{{n}}}" for n in (2, 3)]
    two_steps = f"## Step {standing + 1}: 1 = 1\n## Step {standing + 2}: 1 + 1 = 2\n\\boxed{{2}}"
    again = f"That is wrong.\nBacktrack to line {standing}\n{solutions[0]}"
    checks = ["No error", f"Error in step {standing}", "Error in step 1", "yes", "no", "1", "2"]
    targets = ["Backtrack to step 0", f"Backtrack to step {max(standing - 1, 0)}"]
    stream = "The sum of one and one is three, I think.\n\nWait, let me count that again on my fingers. " * 2
    thought = f"<think>\n{stream}\n</think>\n\nThe answer is \\boxed{{2}}."
    mended = f"{solutions[1]}\n{again}"
    return [
        *(*solutions, two_steps, again, mended, "\\boxed{2}", "\\boxed{3}"),
        *(*checks, *targets, f"{stream}\\boxed{{2}}", thought),
    ]
