"""The thinking audit: its numbers by hand, those of `evaluate`, stored traces through a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_completions_server import CompletionsServer
from support.hand_worked import CORRECTED

import backtrack_mrt as bt
from backtrack_mrt.cli.api import evaluate
from backtrack_mrt.cli.main import main
from backtrack_mrt.errors import UserError
from backtrack_mrt.evaluation.metrics.summary import Cuts, summarise
from backtrack_mrt.evaluation.thinking import ALL, Thresholds, thinking_by_set
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.runs.jsonl import json_text
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.types import Scored

SIZE = ["--data.eval_size", "5", "--protocol.max_revisions", "1", "--evaluation.extra_revisions", "1"]


def trajectory(source: str, values: list[float], outcome: float) -> Scored:
    """Turns of `CORRECTED`, as many as the values say."""
    problem = replace(CORRECTED.problem, id=f"{source}/{len(values)}-{outcome}", source=source)
    turns = CORRECTED.turns[: len(values) - 1]
    return Scored(replace(CORRECTED, problem=problem, turns=turns, outcome=outcome), np.array(values))


def test_by_hand() -> None:
    over = trajectory("a", [0.1, 0.95, 0.9, 0.95], 1.0)  # sure after the first turn
    lost = trajectory("a", [0.1, 0.9, 0.2], 0.0)
    starved = trajectory("b", [0.1, 0.3, 0.6], 0.0)  # still rising
    scored = [over, lost, starved]
    lengths = [len(turn.completion.token_ids) for turn in CORRECTED.turns]
    found = thinking_by_set(
        scored, Thresholds(), lambda places: summarise([scored[i] for i in places], Cuts.found(scored))
    )
    assert list(found) == ["a", "b", ALL]
    assert found["a"].overthinking.mean == (lengths[1] + lengths[2] + lengths[1]) / 2
    assert found["a"].overthinking_share.mean == (2 * lengths[1] + lengths[2]) / sum(
        s.trajectory.sampled_tokens for s in scored[:2]
    )
    assert (found["a"].sure.mean, found["a"].lost.mean, found["a"].starved.mean) == (1.0, 0.5, 0.0)
    assert (found["b"].starved.mean, found["b"].last_rise.mean) == (1.0, pytest.approx(0.3))
    assert found["b"].overthinking.mean == 0.0
    assert found[ALL].problems == 3
    assert found[ALL].starved.mean == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return bt.assemble(bt.load_config())


@pytest.fixture(scope="module")
def server(parts: Assembly) -> Iterator[CompletionsServer]:
    with CompletionsServer(parts.model, parts.tokenizer).running() as fake:
        yield fake


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "out"
    main(["audit-thinking", "--model", "tiny", *SIZE, "--votes", "2", "--out", str(out)])
    return out


def numbers(out: Path) -> dict[str, Any]:
    return json.loads((out / "numbers.json").read_text())["sets"]


@pytest.mark.slow  # ten seconds of processor time for the same rollouts again
def test_the_numbers_are_those_of_evaluate(audited: Path) -> None:
    wanted = {"forced_answers": 2, "extra_revisions": 1}
    config = bt.load_config(data={"eval_size": 5}, protocol={"max_revisions": 1}, evaluation=wanted)
    summary = evaluate(config)
    (found,) = numbers(audited).values()
    told = json.loads(json_text(asdict(summary)))
    of_training = {"normalised_regret_frozen", "regret_frozen"}  # nothing was trained
    assert [name for name in told if found["summary"][name] != told[name] and name not in of_training] == []
    assert [found["after_turn"][str(j)]["mean"] for j in range(len(summary.value_at_turn))] == [
        value.mean for value in summary.value_at_turn
    ]


def test_the_report_is_one_file(audited: Path) -> None:
    page = (audited / "report.html").read_text()
    assert "Thinking audit: tiny" in page
    assert "overthinking tax" in page
    assert "Votes against going on" in page
    assert "<script src" not in page
    assert "<link" not in page


def test_stored_traces(audited: Path, tmp_path: Path) -> None:
    """Their own values, without any model."""
    traces = str(audited / "traces.jsonl")
    main(["audit-thinking", "--traces", traces, "--out", str(tmp_path / "again")])
    (before,), (after,) = numbers(audited).values(), numbers(tmp_path / "again").values()
    for name in ("sure", "overthinking", "overthinking_share", "starved", "lost"):
        assert after[name] == before[name]
    assert after["summary"]["accuracy_prolonged"] == before["summary"]["accuracy_prolonged"]


def test_stored_traces_are_graded_by_the_grader_that_is_named(tmp_path: Path) -> None:
    problem = {"id": "1", "question": "What is 1 + 1?", "answer": "2"}
    row = {"problem": problem, "turns": [{"text": "Answer: 2.0", "answer": "2.0", "tokens": 4}], "values": [0.1, 0.9]}
    (traces := tmp_path / "traces.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    for grader, outcome in (("math", 1.0), ("exact", 0.0)):
        main(["audit-thinking", "--traces", str(traces), "--grader", grader, "--out", str(tmp_path / grader)])
        (scored,) = read_trajectories(tmp_path / grader / "traces.jsonl")
        assert scored.trajectory.outcome == outcome


def test_stored_traces_through_a_server(
    audited: Path, server: CompletionsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values are computed anew by the server; no weights are loaded here."""
    monkeypatch.setattr("backtrack_mrt.rollouts.assembly.load_model", lambda *_: pytest.fail("a model was loaded"))
    rows = [json.loads(line) for line in (audited / "traces.jsonl").read_text().splitlines()]
    for row in rows:
        row["values"] = None
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["audit-thinking", "--traces", str(tmp_path / "bare.jsonl"), "--votes", "0"]
    with pytest.raises(UserError, match=r"5 of 5 trajectories have no values.*--server or --model"):
        main([*asked, "--out", str(tmp_path / "none")])
    main([*asked, "--server", server.url, "--model", "tiny", "--out", str(tmp_path / "served")])
    served, own = (read_trajectories(out / "traces.jsonl") for out in (tmp_path / "served", audited))
    for ours, theirs in zip(own, served, strict=True):
        np.testing.assert_allclose(theirs.values, ours.values, atol=1e-5)
    (before,), (after,) = numbers(audited).values(), numbers(tmp_path / "served").values()
    assert after["overthinking"] == before["overthinking"]
    assert after["starved"] == before["starved"]


def test_texts_of_other_programs(server: CompletionsServer, tmp_path: Path) -> None:
    texts = ["## Step 1: +1 = 1;\n## Step 2: +2 = 3;\n\\boxed{3}", "## Step 1: +1 = 1;\n\\boxed{1}"]
    rows = [{"question": "+1 +2", "answer": "3", "completion": text, "source": "mine"} for text in texts]
    rows.append({"messages": [{"role": "user", "content": "+1 +2"}, {"role": "assistant", "content": texts[0]}]})
    rows[-1] |= {"answer": 3, "id": "third", "source": "mine"}
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["audit-thinking", "--traces", str(tmp_path / "texts.jsonl"), "--env", "open-ended", "--votes", "2"]
    with pytest.raises(UserError, match="whose tokens and values only a model knows"):
        main([*asked[:-2], "--out", str(tmp_path / "none")])
    main([*asked, "--server", server.url, "--model", "tiny", "--out", str(tmp_path / "out")])
    scored = read_trajectories(tmp_path / "out" / "traces.jsonl")
    assert [s.trajectory.outcome for s in scored] == [1.0, 0.0, 1.0]
    assert [len(s.trajectory.turns) for s in scored] == [2, 1, 2]
    assert "".join(turn.text for turn in scored[0].trajectory.turns) == texts[0]
    (found,) = numbers(tmp_path / "out").values()
    assert found["problems"] == 2
    assert len(found["summary"]["extras"]["majority_at_turn"]) == 3


def test_a_server_is_asked_for_everything(server: CompletionsServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sizes = ["--data.eval_size", "2", *SIZE[2:], "--votes", "0"]
    main(["audit-thinking", "--server", server.url, "--model", "tiny", *sizes, "--out", str(out)])
    assert len(read_trajectories(out / "traces.jsonl")) == 2


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "nothing to audit"),
        (["--traces", "none.jsonl"], "none.jsonl.*cannot be read"),
        (["--traces", "{empty}"], "the file is empty"),
        (["--traces", "{odd}"], "odd.jsonl:1.*'question' is missing"),
        (["--traces", "{mixed}"], "rows of two forms"),
        (["--traces", "{empty}", "--votes", "3"], "no model to answer"),
        (
            ["--model", "tiny", *SIZE, "--prover.estimator", "monte_carlo", "--prover.max_answer_tokens", "100000"],
            "longer than the context, less 1000.. for a forced answer",
        ),
        (["--model", "tiny", "--high", "1.5"], "at most 1"),
        (["--server", "http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_what_is_wrong_is_told(flags: list[str], reason: str, tmp_path: Path) -> None:
    rows = {"empty": "", "odd": '{"text": "a"}\n'}
    rows["mixed"] = '{"question": "1", "answer": "1", "text": "1"}\n{"problem": {}, "turns": []}\n'
    for name, text in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    places = {name: str(tmp_path / f"{name}.jsonl") for name in rows}
    with pytest.raises(UserError, match=reason):
        main(["audit-thinking", *(flag.format(**places) for flag in flags), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
