"""Problems are checked where they are made, so by every reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backtrack_mrt.config import DataSection
from backtrack_mrt.data.loading import load_held_out
from backtrack_mrt.data.signs import first_wrong_step, generate, is_signs
from backtrack_mrt.errors import UserError
from backtrack_mrt.types import Problem

BAD_SHARES = [float("inf"), float("nan"), 1e9, True, -0.1, "0.01", 1]


@pytest.mark.parametrize("share", BAD_SHARES)
def test_a_tolerance_that_is_no_share_is_refused(share: Any) -> None:
    with pytest.raises(ValueError, match="rel_tol"):
        Problem("x/1", "1 + 1?", "2", rel_tol=share)


@pytest.mark.parametrize("field", ["id", "question", "answer", "source"])
def test_texts_are_texts(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Problem("x/1", "1 + 1?", "2"), **{field: 7})  # type: ignore[arg-type]


@pytest.mark.parametrize("share", ["Infinity", "NaN", "1e9", "true"])
def test_a_row_with_a_bad_tolerance_is_named(tmp_path: Path, share: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(f'{{"question": "1 + 1?", "answer": "2", "rel_tol": {share}}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rel_tol|line 1 is (?:Infinity|NaN)"):
        load_held_out(DataSection(eval=[str(file)], eval_size=None))


def test_a_source_changes_nothing() -> None:
    (problem,) = generate("train", 1)
    assert is_signs(problem)
    assert is_signs(replace(problem, source="mine"))
    for foreign in (Problem("x/1", "1 + 1?", "2", "signs"), replace(problem, answer="7"), replace(problem, answer="+")):
        assert not is_signs(foreign)
        assert first_wrong_step(foreign, ["## Step 1: 1 + 1 = 2"]) is None
