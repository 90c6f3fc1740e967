"""Where a run's report goes."""

from __future__ import annotations

from pathlib import Path

from support.command_line import command
from support.report_subjects import run_folder


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_the_report_of_somebody_else_s_run_goes_elsewhere(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "mrt-rl")
    before = files(run)
    told = command("report", run, "--out", tmp_path / "mine")
    assert (told.returncode, told.stdout) == (0, f"report: {tmp_path / 'mine' / 'report.html'}\n")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"report.html", "figures"}
    assert files(run) == before


def test_it_does_not_go_into_another_run(tmp_path: Path) -> None:
    run, other = (run_folder(tmp_path / name, "mrt-rl") for name in ("run", "other"))
    before = files(other)
    told = command("report", run, "--out", other)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert files(other) == before


def test_where_nothing_can_be_written_is_told_first(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "mrt-rl")
    (tmp_path / "file").write_text("")
    told = command("report", run, "--out", tmp_path / "file" / "inside")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "--out" in told.stderr
