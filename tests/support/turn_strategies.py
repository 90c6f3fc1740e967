"""Generators of model turns: well-formed ones with what they claim, and text that looks like the grammar."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from backtrack_mrt.envs.backtrack import BacktrackPhase
from backtrack_mrt.rollouts.episode import Episode
from backtrack_mrt.types import Completion, Finish, Parsed, Problem

PROBLEM = Problem("p", "What is 1 + 1?", "2")
SPECIAL_TEXT = [
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|start_header_id|>user<|end_header_id|>",
    "<eos>",
    "<bos>",
]
FRAGMENTS = [
    *("## Step 1:", "## Step 2:", "## Step 3: x", "## Step ", "##Step 1:", "## Step 1", "## Step 1000:", "## Step ７:"),
    *("\\boxed{4}", "\\boxed{", "\\fbox{4}", "{", "}", "\\", "\\}", "\\boxed {5}", "\\boxed{\\frac{1}{2}}"),
    *("No error", "No error.", "Error in step 1", "Error in step 2.", "Error in step ", "no error", "Error in step ٧"),
    *("Backtrack to step 0", "Backtrack to step 1.", "Backtrack to step 999", "Backtrack to step ", "Backtrack"),
    *(
        "0",
        "1",
        "2",
        "１",
        "1_0",
        "-1",
        "9" * 30,
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        " ",
        ":",
        ".",
        "\x00",
        "\u2028",
        "\x85",
    ),
    *("<<question>>", "数", "😀", "\ud800", *SPECIAL_TEXT),
]
_MARKER = re.compile(r"^(## Step [0-9]|No error|Error in step|Backtrack to step)|[\\{}]", re.MULTILINE)

garbage = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=24).map("".join),
    st.lists(st.sampled_from(FRAGMENTS), max_size=16).map("\n".join),
    st.text(max_size=80),
)
prose = st.one_of(st.text(max_size=30), st.sampled_from(["", "so 1 + 1 = 2", "a\nb", *SPECIAL_TEXT])).filter(
    lambda text: not _MARKER.search(text)
)
answers = st.recursive(
    st.text("0123456789abx+-., /數", max_size=8),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        inner.map("{{{}}}".format),
        st.tuples(inner, inner).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
    ),
    max_leaves=4,
)


@st.composite
def solutions(draw, first_step: int = 1) -> tuple[str, Parsed]:
    """An attempt (or a revision from `first_step` on) and what it claims."""
    bodies = draw(st.lists(prose, min_size=1, max_size=4))
    steps = [f"## Step {k}: {body}" for k, body in enumerate(bodies, first_step)]
    answer = draw(answers)
    steps[-1] += f"\n\\boxed{{{answer}}}{draw(st.sampled_from(['', '.', ' $']))}"
    before = draw(st.sampled_from(["", "Let us see.\n", "\n"]))
    return before + "\n".join(steps), Parsed(answer=answer, steps=tuple(step.strip() for step in steps))


@st.composite
def marked_lines(draw, line: str) -> str:
    """`line` on a line of its own in the midst of prose."""
    before, after = draw(prose), draw(prose)
    end = draw(st.sampled_from(["", ".", " ", ". \t"]))
    return (before + "\n" if before else "") + line + end + ("\n" + after if after else "")


@st.composite
def checks(draw, standing: int) -> tuple[str, Parsed]:
    """A check of a solution of `standing` steps and its verdict."""
    wrong = draw(st.sampled_from([*range(1, standing + 1), None]))
    if wrong is None:
        return draw(marked_lines("No error")), Parsed(verdict=True)
    return draw(marked_lines(f"Error in step {wrong}")), Parsed(verdict=False, step=wrong)


@st.composite
def backtracks(draw, standing: int) -> tuple[str, Parsed]:
    """A backtrack turn and its target."""
    target = draw(st.integers(0, standing - 1))
    return draw(marked_lines(f"Backtrack to step {target}")), Parsed(step=target)


def well_formed(phase: str, standing: int) -> st.SearchStrategy[tuple[str, Parsed]]:
    """A turn that the protocol must accept in `phase` while `standing` steps stand, and what it claims."""
    if phase == BacktrackPhase.DETECT:
        return checks(standing)
    return backtracks(standing) if phase == BacktrackPhase.BACKTRACK else solutions(standing + 1)


def after(episode: Episode, *texts: str) -> Episode:
    """The episode after these turns, each of one token."""
    for text in texts:
        episode.advance(text, Completion((0,), (0.0,), Finish.STOP))
    return episode


def attempt(steps: int) -> str:
    """A plain attempt of so many steps."""
    return "\n".join(f"## Step {k}: x" for k in range(1, steps + 1)) + "\n\\boxed{4}"
