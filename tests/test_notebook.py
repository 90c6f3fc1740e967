"""The notebook runs from an empty folder, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "own_protocol.ipynb"


@pytest.mark.slow  # a minute and a half
def test_a_new_protocol_trains(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    told = str([cell.get("outputs") for cell in notebook.cells])
    assert "changed its mind" in told
    assert "Turn 2 · look_again" in told
    assert (tmp_path / "runs" / "second-look-mrt-rl-seed0" / "report.html").is_file()


def test_it_is_kept_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
