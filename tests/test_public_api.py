"""`import backtrack_mrt as bt`: the names and signatures that programs may rely on, loaded when they are used."""

from __future__ import annotations

import enum
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import blocks
from support.finished_runs import finished

import backtrack_mrt as bt
from backtrack_mrt import plugins
from backtrack_mrt.cli.request import read_request

FACE = {  # what changes here is a change for users: say so in CHANGELOG.md
    "Problem": "id question answer source='' rel_tol=None canary=False",
    "Turn": "spec text parsed instruction_ids completion violation=None reward=None",
    "TurnSpec": "phase max_new_tokens fields=<factory>",
    "Parsed": "answer=None steps=() step=None verdict=None",
    "Completion": "token_ids logprobs finish",
    "Trajectory": "problem prompt_ids=() turns=() stop=None answer=None outcome=nan verdict=None given=0",
    "Scored": "trajectory values=None weights=None baselines=None frozen_values=None",
    "Group": "problem members",
    "Sampling": "temperature=1.0 top_p=1.0 stop_ids=frozenset()",
    "StopReason": "finished turn_limit budget violation",
    "Phase": "attempt force",
    "EpisodeProtocol": "* marker=None token_budget=1024",
    "ProtocolViolation": "name detail",
    "standing_steps": "turns",
    "extract_boxed": "text",
    "Algorithm": "* unit='token'",
    "SelfTraining": "* unit='token' iterations=2 from_base=True",
    "outcome_advantages": "outcomes_G scale=False",
    "turn_progress": "values",
    "progress_to_go": "values",
    "credit": None,  # a module: see CREDIT
    "MRTTrainer": "*args values=None prompts='instruct' algo='mrt-rl' settings=None cuts=None **kwargs",
    "Stack": "",
    "Grader": "",
    "Grade": "verdict reward",
    "MetaProver": "dialogue engine policy='policy'",
    "Config": None,  # its fields are the settings: docs/configuration.md
    "load_config": "*files **settings",
    "train": "config existing='refuse' * accept_changes=False",
    "evaluate": "what save=None",
    "compare": "*runs",
    "read_run": "path",
    "read_trajectories": "path",
    "assemble": "config * training=False",
    "make": "protocol problems=None * prompts='instruct' grade=None chat=None render_mode=None **settings",
    "Verdict": "right partial wrong unevaluated unparsable timeout",
    "ScriptedEngine": "script=None * vocabulary=512 context_length=4096",
    "UserError": "field value reason remedy",
    "RunError": "reason remedy",
}
CREDIT = {
    "turn_index": "mask",
    "token_advantages": "turns outcomes values=None * problems=None baselines=None algo='mrt-rl' **settings",
    "cut_turns": "turns token_ids tokenizer cuts",
    "trajectory": "problem prompt_ids token_ids turns tokenizer outcome=nan",
    "conversation": "messages tokenizer problem * outcome=nan cuts=None",
    "served_prover": "url tokenizer * env='open-ended' prompts='instruct' estimator='likelihood' samples=8 "
    "max_answer_tokens=64 model=None grader=Math(forms='numeral', workers=2)",
}
NEEDS_TORCH = {"assemble", "ScriptedEngine", "MRTTrainer"}
PROTOCOL = (
    "max_turns max_answers next_turn parse parse_piece final_answer cuts turns_left with_answers prolonged persistent"
)
REPORTED = "summary phases metrics moves"
ALGORITHM = "turn_weights weigh collection objection summary loss needs_values asks_prover"


def signature(name: str, owner: object = bt) -> str:
    """The parameters of a callable, without annotations; the values of an enumeration."""
    found = getattr(owner, name)
    if isinstance(found, enum.EnumType):
        return " ".join(member.value for member in found)
    told, starred = [], False
    for parameter in inspect.signature(found).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            told.append("*")
        starred |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        told.append(str(parameter.replace(annotation=parameter.empty)))
    return " ".join(told)


def test_the_names_are_these() -> None:
    assert sorted(bt.__all__) == sorted(FACE)
    assert set(FACE) <= set(dir(bt))
    with pytest.raises(AttributeError, match="Problems"):
        _ = bt.Problems


@pytest.mark.parametrize("name", [name for name, said in FACE.items() if said is not None])
def test_the_signatures_are_these(name: str) -> None:
    assert signature(name) == FACE[name]


@pytest.mark.parametrize("name", CREDIT)
def test_the_credits_are_these(name: str) -> None:
    assert signature(name, bt.credit) == CREDIT[name]


def test_the_hooks_of_plug_ins_are_these() -> None:
    assert all(hasattr(bt.EpisodeProtocol, name) for name in f"{PROTOCOL} {REPORTED}".split())
    assert all(hasattr(bt.Algorithm, name) for name in ALGORITHM.split())


@pytest.mark.parametrize("name", FACE)
def test_everything_is_documented(name: str) -> None:
    assert (getattr(bt, name).__doc__ or "").strip()


def test_torch_is_loaded_only_where_it_is_needed() -> None:
    light = [name for name in FACE if name not in NEEDS_TORCH]
    plugged_in = [
        f"{package}.{name}" for package in ("envs", "algos") for name in plugins.names(f"backtrack_mrt.{package}")
    ]
    code = f"""import sys
import backtrack_mrt as bt
assert not {{"numpy", "pydantic", "yaml", "torch"}} & set(sys.modules), "import backtrack_mrt loads more than itself"
for name in {light}:
    getattr(bt, name)
    assert "torch" not in sys.modules, name
for name in {[name.replace("-", "_") for name in plugged_in]}:
    __import__("backtrack_mrt." + name)
    assert "torch" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow  # a cold cache takes half a minute
def test_type_checkers_know_the_face(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import backtrack_mrt as bt\n"
        "def shown(config: bt.Config) -> float:\n"
        "    return bt.train(config, existing='resume').trained.accuracy.mean\n"
        "bt.train(bt.load_config(), existing='never')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(tmp_path / "user.py")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert 'user.py:4: error: Argument "existing"' in done.stdout
    assert "Found 1 error" in done.stdout


def test_a_config_is_files_then_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {steps: 5, group_size: 4}\nseed: 3\n")
    config = bt.load_config("tiny.yaml", tmp_path / "mine.yaml", algo="grpo", training={"steps": 6})
    same = ["--config", "tiny.yaml", str(tmp_path / "mine.yaml"), "--algo", "grpo", "--training.steps", "6"]
    assert config == read_request(same).config
    assert bt.load_config() == read_request([]).config
    assert bt.load_config(env="retry", protocol={"max_retries": 1}).protocol.max_answers == 2
    with pytest.raises(bt.UserError, match=r"training\.step .*load_config.*Did you mean 'training\.steps'"):
        bt.load_config(training={"step": 6})
    with pytest.raises(bt.UserError, match="Did you mean 'grpo'"):
        bt.load_config(algo="grop")


def test_train_evaluate_compare_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"problems_per_step": 4, "group_size": 4, "micro_batch_size": 8, "steps": 1}
    config = bt.load_config(training=small, data={"train_size": 40, "eval_size": 8}, output_dir="one")
    result = bt.train(config)
    with pytest.raises(bt.UserError, match="is in use"):
        bt.train(config)
    assert bt.read_run("one").mean("trained", "accuracy") == result.trained.accuracy.mean
    again = bt.evaluate("one", save="kept")
    assert again.accuracy.mean == result.trained.accuracy.mean
    (file,) = Path("kept").glob("*.jsonl")
    assert len(bt.read_trajectories(str(file))) == 8
    assert bt.evaluate(config).accuracy.mean == result.base.accuracy.mean
    with pytest.raises(bt.UserError, match="save = 'kept': exists already"):
        bt.evaluate("one", save="kept")
    assert bt.compare("one").reference == bt.compare(bt.read_run("one")).reference == "mrt-rl"
    with pytest.raises(bt.UserError, match="a folder of runs"):
        bt.evaluate(tmp_path)


def test_what_the_page_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = blocks("docs/api.md", "python")
    small = "'steps': 1, 'problems_per_step': 4, 'group_size': 4, 'micro_batch_size': 8"
    short = shown.replace('training={"steps": 8}', f"training={{{small}}}, data={{'train_size': 40, 'eval_size': 8}}")
    assert short != shown
    monkeypatch.chdir(tmp_path)
    for name, algo in (("a", "mrt-rl"), ("b", "grpo")):
        finished(tmp_path / "runs" / name, algo, seed=0, accuracy=0.5)
    exec(compile(short, "docs/api.md", "exec"), {})
    assert {path.name for path in Path("comparison").iterdir()} == {"comparison.json", "comparison.md"}
