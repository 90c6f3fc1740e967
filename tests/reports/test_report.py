"""report.html without a browser: what it says, and that nothing gets out of it or into it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.report_pages import Page, unpacked, viewer
from support.report_subjects import broken, fixed, hostile, run_folder, spoiled

from backtrack_mrt.cli.main import main
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.comparison import Comparison
from backtrack_mrt.reports.archive import TraceSource, shared_out
from backtrack_mrt.reports.build import report_comparison, report_run, report_traces
from backtrack_mrt.reports.curves import training_charts
from backtrack_mrt.reports.headline import paired_gain
from backtrack_mrt.reports.inputs import policies
from backtrack_mrt.reports.outcomes import outcome_charts
from backtrack_mrt.reports.trace_html import signed, trace_html
from backtrack_mrt.reports.trace_view import Piece, claim, strength, view
from backtrack_mrt.runs.finished import read_run
from backtrack_mrt.runs.trace import visible
from backtrack_mrt.types import Scored


def test_of_very_many_turns_the_first_and_the_last_are_shown() -> None:
    first = fixed().trajectory
    many = replace(first, turns=tuple(first.turns[k % len(first.turns)] for k in range(3_000)))
    page = trace_html(view("run:1", "trained", Scored(many, np.linspace(0, 1, 3_001)), Backtrack.phases))
    assert page.count('<li class="turn') == 1_001
    assert "… 2,000 turns, which `backtrack-mrt show` prints …" in page
    assert page.index('"number">500<') < page.index("… 2,000 turns") < page.index('"number">2501<')
    assert len(re.findall(r"[\d.]+,[\d.]+ ", page)) < 5_000


def test_a_trace_says_what_happened() -> None:
    trace = view("run:1", "trained", fixed(), Backtrack.phases)
    assert trace.headline.startswith("Corrected itself")
    assert [t.claim for t in trace.turns] == [
        "answer 3",
        "error in step 2",
        "back to step 1",
        "answer 2",
    ]
    assert trace.turns[0].pieces == [Piece("## Step 1: one", 1), Piece("## Step 2: three\n\\boxed{3}", 2, 3)]
    assert trace.turns[3].pieces == [Piece("## Step 2: 2", 2)]
    html = trace_html(trace)
    assert "the model discards steps" in html
    assert html.count("<del ") == 1
    assert "progress ▲ +0.50" in html
    assert "progress ▼ −0.30" in html
    # ∫ V over 8 tokens: 2 · (.35 + .25 + .35 + .65)
    assert trace.regret == pytest.approx(1 - 2 * (0.35 + 0.25 + 0.35 + 0.65) / 8)


@pytest.mark.parametrize(("scored", "kind"), [(fixed(), "fixed"), (spoiled(), "spoiled"), (broken(), "violation")])
def test_every_trace_is_of_a_kind(scored: Scored, kind: str) -> None:
    assert view("run:1", "trained", scored, {}).kind == kind


def test_progress_in_classes() -> None:
    assert [strength(p) for p in (None, 0.0, 0.019, -0.02, 0.1, -0.31, 1.0)] == [0, 0, 0, -1, 2, -3, 3]
    assert [signed(v) for v in (None, 0.001, -0.001, 0.5, -0.5)] == ["–", "±0", "±0", "+0.50", "−0.50"]


def test_a_violation_is_told() -> None:
    assert claim(broken().trajectory.turns[0]) == "violation: missing_step"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    text = viewer(tmp_path, fixed(), hostile(2))
    page = Page(text)
    fragments = [Page(html) for html in unpacked(text, "traces-0")]
    assert [tag for tag, _ in page.tags].count("script") == text.count("<script")
    for part in (page, *fragments):
        assert not {"img", "iframe", "link", "object", "base"} & {tag for tag, _ in part.tags}
        assert not [name for _, attributes in part.tags for name in attributes if name.startswith("on")]
        assert not part.attributes("style")
        assert not part.attributes("src")
    html = text + "".join(unpacked(text, "traces-0"))
    assert "<script>document" not in html
    assert "⟨U+202E⟩evil" in html
    assert "\u202e" not in html + json.dumps([unpacked(text, "index"), unpacked(text, "tokens-0")], ensure_ascii=False)


def test_nothing_may_be_loaded_and_only_our_script_may_run(tmp_path: Path) -> None:
    page = Page(viewer(tmp_path, fixed()))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "style-src", "script-src", "base-uri", "form-action"}
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in page.raw}
    assert {rules["style-src"], rules["script-src"]} <= digests
    assert all(url.startswith("#") for url in page.attributes("href"))


def test_a_long_turn_is_folded(tmp_path: Path) -> None:
    html = trace_html(view("run:1", "trained", hostile(), {}))
    assert "more characters</summary>" in html
    assert html.count("x" * 1000) > 50


def test_marks_that_are_not_seen_are_shown() -> None:
    assert visible("a\u202eb\u0000\ud800\n\tü") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+D800⟩\n\tü"


def test_the_index_leads_to_every_trace(tmp_path: Path) -> None:
    text = viewer(tmp_path, *(make(n) for n in range(20) for make in (fixed, spoiled, broken)))
    index = unpacked(text, "index")
    rows = [dict(zip(index["columns"], row, strict=True)) for row in index["rows"]]
    assert len(rows) == 60
    assert len(index["problems"]) == 20
    for place, row in enumerate(rows):
        html = unpacked(text, f"traces-{place // index['pack']}")[place % index["pack"]]
        assert f'data-name="{row["name"]}"' in html
    assert rows[0] == {
        "source": 0,
        "problem": 0,
        "name": "traces:1",
        "kind": "fixed",
        "stop": "turn_limit",
        "path": "✗✓",
        "progress": 0.4,
        "largest": 0.5,
        "tokens": 8,
        "turns": 4,
        "regret": 0.6,
        "violation": None,
    }


def test_trajectories_of_other_programs(tmp_path: Path) -> None:
    problem = {"id": "aime24/3", "question": "?", "answer": "116"}
    turns = [{"text": "… \\boxed{113}", "tokens": 812}, {"answer": "116", "tokens": 430}]
    files = [tmp_path / name / "traces.jsonl" for name in ("ours", "theirs")]
    for file in files:
        file.parent.mkdir()
        file.write_text(json.dumps({"problem": problem, "turns": turns}) + "\n")
    text = report_traces(files, tmp_path / "traces.html").read_text()
    index = unpacked(text, "index")
    rows = [dict(zip(index["columns"], row, strict=True)) for row in index["rows"]]
    assert [(row["name"], row["kind"], row["path"], row["tokens"]) for row in rows] == [
        ("ours/traces:1", "fixed", "✗✓", 1242),
        ("theirs/traces:1", "fixed", "✗✓", 1242),
    ]
    assert "V 0" not in unpacked(text, "traces-0")[0]
    assert unpacked(text, "tokens-0") == [{"ids": []}] * 2
    with pytest.raises(UserError, match="the file is empty"):
        report_traces([write_empty(tmp_path)], tmp_path / "traces.html")


def test_the_grader_of_traces_is_named_and_that_of_a_run_its_own(tmp_path: Path) -> None:
    problem = {"id": "1", "question": "?", "answer": "2"}
    (traces := tmp_path / "traces.jsonl").write_text(
        json.dumps({"problem": problem, "turns": [{"answer": "2.0", "tokens": 3}]})
    )
    paths = []
    for grader in ("math", "exact"):
        main(["report", "--traces", str(traces), "--grader", grader, "--out", str(tmp_path / "page.html")])
        index = unpacked((tmp_path / "page.html").read_text(), "index")
        paths.append(index["rows"][0][index["columns"].index("path")])
    assert paths == ["✓", "✗"]
    with pytest.raises(UserError, match="RUN = '--grader exact': a run has its own settings"):
        main(["report", str(tmp_path), "--grader", "exact"])


def write_empty(folder: Path) -> Path:
    (folder / "empty.jsonl").write_text("")
    return folder / "empty.jsonl"


def test_tokens_are_kept_for_their_own_view(tmp_path: Path) -> None:
    (tokens,) = unpacked(viewer(tmp_path, spoiled()), "tokens-0")
    assert tokens["ids"] == [1, 2, 4, 5, 6, 4, 5, 6]
    assert tokens["logprobs"] == [10, 300, 10, 300]
    assert tokens["turns"] == [["attempt", 1, 2, False], ["revise", 1, 2, False]]


def test_many_traces_are_cut_alike() -> None:
    found = [TraceSource(name, name, [fixed()] * n) for name, n in (("a", 50), ("b", 2), ("c", 50))]
    assert [len(source.scored) for source in shared_out(found, 42)] == [20, 2, 20]
    assert [len(source.scored) for source in shared_out(found, 1000)] == [50, 2, 50]
    assert shared_out(found, 42)[0].total == 50


def test_the_report_of_a_run(tmp_path: Path) -> None:
    path = report_run(run_folder(tmp_path / "run", "mrt-rl"))
    text = path.read_text()
    for heading in ("Results", "Over training", "Best and worst traces", "26 traces", "What was run"):
        assert heading in text
    assert re.search(
        r"final accuracy \(as trained\)</th><td>0\.000 \[[0-9., ]*\]</td><td>0\.500 \[[0-9., ]*\]</td>",
        text,
    )
    assert "algo: mrt-rl" in text
    assert ">128</td>" in text  # the ledger
    charts = {name.removeprefix("figure-") for name in Page(text).attributes("id") if name.startswith("figure-")}
    assert {"accuracy", "regret", "acc_at_turn", "changed_answers", "training_outcome", "training_violations"} <= charts
    assert {f"{name}.csv" for name in charts} == {p.name for p in (tmp_path / "run" / "figures").glob("*.csv")}
    assert text.count("<svg") > len(charts)
    (tokens,) = unpacked(text, "tokens-0")[-1:]
    assert tokens["weights"] == [0.5, 0.0, -0.25, 1.0]
    head, _, rest = text.partition('id="results"')
    assert "held-out accuracy 0.000 → 0.500, a gain of +0.500 [" in head
    assert 'id="figure-before_and_after"' in head
    assert {"training_gradient", "training_clipped", "training_learning_rate", "training_entropy"} <= charts
    assert {"training_without_signal", "training_progress_by_phase"} <= charts
    assert re.search(r"detect</th><td>mrt-rl</td><td>0\.500 \[[0-9., ]*\]</td><td>2\.000", rest)
    assert path.read_text() == report_run(tmp_path / "run").read_text()


def test_the_report_while_training(tmp_path: Path) -> None:
    text = report_run(run_folder(tmp_path / "run", "mrt-rl", trained=False)).read_text()
    assert "Still training" in text
    assert "change</th>" not in text
    assert "14 traces" in text


def test_the_report_of_a_comparison(tmp_path: Path) -> None:
    runs = [read_run(run_folder(tmp_path / algo, algo)) for algo in ("mrt-rl", "grpo")]
    text = report_comparison(Comparison(runs), tmp_path).read_text()
    index = unpacked(text, "index")
    assert [name for name, _, _ in index["sources"]] == [
        "mrt-rl/evaluation_base",
        "mrt-rl/evaluation_trained",
        "grpo/evaluation_trained",
        *(f"{algo}/step_00000{step}" for algo in ("mrt-rl", "grpo") for step in (1, 2)),
    ]
    assert "− mrt-rl&#39;s" in text
    head, _, rest = text.partition('id="results"')
    assert re.search(r"mrt-rl gains [+−-]\d\.\d+.* in accuracy over the base.*grpo.*at equal tokens, 1 seed\.", head)
    assert 'id="figure-gain"' in head  # the sentence and its picture come first
    assert 'id="figure-accuracy"' in rest
    assert "config.yaml of grpo" in text


def test_a_violation_that_did_not_occur_is_none(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "outcome": 0.5},
        {"step": 2, "outcome": 0.5, "violation/step_order": 0.25},
        {"step": 3, "loss": 1},
    ]
    run = replace(read_run(run_folder(tmp_path / "run", "mrt-rl")), history=rows)
    (line,) = next(chart for chart in training_charts({"run": run}) if chart.name == "training_violations").series
    assert (line.label, line.x.tolist(), line.y.tolist()) == ("step_order", [1, 2], [0, 0.25])


def test_turns_are_counted_from_1_and_steps_are_whole(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "run", "mrt-rl"))
    drawn = [*training_charts({"run": run}), *outcome_charts(policies({"run": [run]}))]
    charts = {chart.name: chart for chart in drawn}
    assert charts["value_by_turn"].series[0].x.tolist() == [0, 1, 2, 3, 4]
    assert [line.label for line in charts["training_progress_by_phase"].series] == ["attempt", "detect"]
    ticks = re.findall(r'id="[^"]*xtick_\d+".*?<text[^>]*>([^<]*)</text>', charts["training_outcome"].svg(), re.DOTALL)
    assert ticks == ["1", "2"]


def test_a_gain_is_paired_by_problem() -> None:
    base = [spoiled(n) for n in range(8)]
    gain = paired_gain(base, [fixed(n) for n in range(8)], 2)
    assert (gain.mean, gain.low, gain.high) == (1.0, 1.0, 1.0)  # no spread of what all problems gain
    assert paired_gain(base, [fixed(9)], 2).n == 0
