"""Where there can be no report: a mistake of one line, which stops no run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.report_subjects import run_folder

from backtrack_mrt.errors import RunError, UserError
from backtrack_mrt.reports.build import rebuild, report_run


def test_no_report_stops_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rebuild(tmp_path)
    assert "no report: " in capsys.readouterr().err
    with pytest.raises(UserError, match="and no run"):
        report_run(tmp_path)


def test_damaged_alarms_are_a_mistake_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", "mrt-rl")
    (run / "alarms.json").write_text("{")
    with pytest.raises(UserError, match=r"alarms\.json = '.*/alarms\.json': not alarms by name: .* Delete it"):
        report_run(run)
    rebuild(run)
    assert capsys.readouterr().err.startswith("no report: alarms.json = '")


def test_a_full_disk_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise RunError("report.html cannot be written", "Free some space.")

    monkeypatch.setattr("backtrack_mrt.reports.build.report_run", full)
    rebuild(tmp_path)
    assert capsys.readouterr().err.startswith("no report: report.html cannot be written. Free some space; ")
