"""The meta-prover's question, whatever the template begins a reply with."""

from __future__ import annotations

import re

import pytest

from backtrack_mrt.rollouts.dialogue import closing_of_thought
from backtrack_mrt.rollouts.prompts import load_prompts

TEMPLATES = {"no thought": "", "opened": "<think>\n", "opened and closed": "<think>\n\n</think>\n\n"}
STREAMS = {"nothing": "", "bare": "So 5.", "opened": "<think>\nSo 5.", "closed": "<think>\nSo 5.\n</think>\n\nIt is"}


@pytest.mark.parametrize("style", ["instruct", "mrt-official"])
@pytest.mark.parametrize("begun", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("said", STREAMS.values(), ids=STREAMS)
def test_a_forced_answer_is_well_formed_in_every_template(style, begun, said):
    """Every thought that is opened is closed, once, and none is closed that was not opened."""
    if begun == TEMPLATES["opened"] and "<think>" in said:
        said = said.removeprefix("<think>\n")
    close = load_prompts("open-ended", style).texts["close"]
    written = begun + said + closing_of_thought(close, begun, said)
    tags = re.findall("</?think>", written)
    assert tags == ["<think>", "</think>"] * (len(tags) // 2)
    assert len(tags) == 2 * written.count("<think>")
    assert ("Time is up" in written) == (style == "mrt-official")
    assert said or not closing_of_thought(close, begun, said).startswith("\n") or begun == TEMPLATES["opened"]
