"""Every kind of bad input in files and flags is told in one line, all of it at once, before torch loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError

ROOT = Path(__file__).parents[2]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# What is said wrongly (the YAML file's text, the flags), and what the message must name.
BAD = {
    "unknown algorithm": ("", ["--algo", "mrtrl"], ["algo", "'mrtrl'", "Did you mean 'mrt-rl'"]),
    "unknown protocol": ("", ["--env", "backtrak"], ["env", "'backtrak'", "Did you mean 'backtrack'"]),
    "unknown flag": ("", ["--training.step", "3"], ["--training.step", "Did you mean 'training.steps'"]),
    "flag of another section": ("", ["--steps", "3"], ["--steps", "Did you mean 'training.steps'"]),
    "flag of another algorithm": (
        "",
        ["--algo", "grpo", "--algorithm.alpha", "1"],
        ["algo 'grpo' has no such setting"],
    ),
    "flag without a value": ("", ["--seed"], ["--seed", "expected one argument"]),
    "no run to resume": ("", ["--resume", "nowhere"], ["--resume = 'nowhere'", "no such directory"]),
    "two ways with a run": ("", ["--resume", "--overwrite"], ["--overwrite", "exclude each other"]),
    "stray word": ("", ["grpo"], ["'grpo'", "--help"]),
    "unknown section": ("trianing: {steps: 3}", [], ["trianing", "line 1", "Did you mean 'training'"]),
    "unknown key": ("\ntraining:\n  stepz: 3", [], ["training.stepz", "line 3", "Did you mean 'training.steps'"]),
    "unknown key of the algorithm": ("algorithm: {beta: 3}", [], ["algorithm.beta", "line 1", "alpha"]),
    "unknown algorithm chosen in a file": ("algo: gropo", [], ["algo (", "line 1", "Did you mean 'grpo'"]),
    "unknown algorithm in a file": ("algorithms: {mrrt: {}}", [], ["algorithms.mrrt", "line 1", "unknown name"]),
    "key of an algorithm not chosen": ("algorithms: {grpo: {alpha: 1}}", [], ["algorithms.grpo.alpha", "line 1"]),
    "value of an algorithm not chosen": (
        "algorithms: {grpo: {scale_outcome: 7}}",
        [],
        ["algorithms.grpo.scale_outcome"],
    ),
    "wrong type": (
        "training:\n  steps: ten",
        [],
        ["training.steps", "line 2", "'ten'", "integer", "batches that"],
    ),
    "wrong type by flag": ("", ["--seed", "one"], ["seed (command line)", "'one'", "integer"]),
    "yes for a number": ("seed: true", [], ["seed", "line 1", "True", "not a number"]),
    "the word yes for a number": ("seed: yes", [], ["seed", "line 1", "'yes'", "integer"]),
    "text for a list": ("data: {train: a.jsonl}", [], ["data.train", "'a.jsonl'", "list"]),
    "text for a section": ("training: fast", [], ["training", "'fast'"]),
    "too small": ("", ["--training.steps", "0"], ["training.steps", "'0'", "greater than 0"]),
    "not a number": ("training: {learning_rate: .nan}", [], ["training.learning_rate", "nan", "finite"]),
    "no such choice": ("", ["--prover.estimator", "best"], ["prover.estimator", "'best'", "likelihood"]),
    "no such tracker": ("", ["--report-to", "wandbb"], ["report_to", "'wandbb'", "tensorboard"]),
    "batch not divisible": (
        "",
        ["--training.problems_per_step", "3"],
        ["training.micro_batch_size", "3 problems × group size 8"],
    ),
    "data set smaller than a batch": ("data: {train_size: 8}", [], ["data.train_size", "line 1", "one batch of 32"]),
    "endless data set": ("", ["--data.eval_size", "null"], ["data.eval_size", "no end"]),
    "endless trials": ("", ["--data.validation_size", "null"], ["data.validation_size", "no end"]),
    "server without vllm": ("", ["--engine.server", "http://a:1"], ["engine.server", "'http://a:1'", "engine.type"]),
    "vllm without a reference": (
        "engine: {type: vllm}\nmodel: {full_finetuning: true}",
        ["--prover.policy", "reference"],
        ["prover.policy", "'reference'", "one set of weights"],
    ),
    "packed weights for vllm": (
        "engine: {type: vllm}",
        ["--model.quantization", "nf4"],
        ["model.quantization", "'nf4'", "packed"],
    ),
    "a server twice": (
        "engine: {type: vllm, server: ['http://a:1', 'http://b:1', 'http://a:1/']}",
        [],
        ["engine.server", "'http://a:1'", "twice"],
    ),
    "rank beyond vllm": ("engine: {type: vllm}", ["--model.lora.r", "1024"], ["model.lora.r", "1024", "512"]),
    "half an architecture": (
        "model: {architecture: {hidden_size: 8}}",
        [],
        ["model.architecture.", "required", "vocab_size"],
    ),
    "empty file": ("# nothing\n", [], ["--config", "bad.yaml", "empty"]),
    "invalid YAML": ("seed: 1\ntraining: {steps: 3", [], ["--config", "bad.yaml", "line 2"]),
    "not a mapping": ("- seed", [], ["bad.yaml", "line 1", "mapping"]),
    "key twice": ("seed: 1\nseed: 2", [], ["seed", "line 2", "twice"]),
    "key that is no name": ("1: 2", [], ["'1'", "line 1"]),
    "missing file": (
        None,
        ["--config", "smollm.yaml"],
        ["--config", "'smollm.yaml'", "Did you mean 'smollm2_135m.yaml'"],
    ),
    "directory for a file": (None, ["--config", "."], ["--config", "directory"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(case, tmp_path, monkeypatch):
    text, flags, parts = BAD[case]
    monkeypatch.chdir(tmp_path)
    files = ["--config", write(tmp_path / "bad.yaml", text)] if text else []
    with pytest.raises(UserError) as error:
        read_request([*files, *flags])
    message = str(error.value)
    assert message.split("\n") == [str(mistake) for mistake in error.value.mistakes]
    assert len(error.value.mistakes) == (6 if case == "half an architecture" else 1)  # each is told
    for part in parts:
        assert part in message
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.yaml"}


def mistakes(text: str, *flags: str, path: Path, **settings) -> list[str]:
    with pytest.raises(UserError) as error:
        read_request(["--config", write(path / "bad.yaml", text), *flags], **settings)
    return [str(mistake).replace(f"{path}/", "") for mistake in error.value.mistakes]


def test_all_mistakes_are_told_at_once(tmp_path):
    text = """
trianing: {group_size: 2}
training: {steps: ten, micro_batch_size: 7}
seed: 1
seed: -1
data: {eval_size: null, eval: [signs/test]}
algorithms: {grpo: {alpha: 1}, nope: {}}
protocols: {single: {token_budget: 0}}
"""
    flags = ("--algorithm.alpha", "x", "--engine.server", "http://a", "--report-to", "a", "--overwite", "--seeds", "1")
    told = mistakes(text, *flags, path=tmp_path)
    fields = [line.partition(" = ")[0] for line in told]
    assert fields == [
        "bad.yaml, line 5",  # written twice
        "--overwite",
        "algorithms.grpo.alpha (bad.yaml, line 7)",
        "algorithms.nope (bad.yaml, line 7)",
        "protocols.single.token_budget (bad.yaml, line 8)",
        "trianing (bad.yaml, line 2)",
        "--algorithm.alpha (command line)",
        "training.steps (bad.yaml, line 3)",
        "--report_to (command line)",
        "data.eval_size (bad.yaml, line 6)",
        "--engine.server (command line)",
    ]


def test_a_rule_that_needs_a_wrong_field_is_silent(tmp_path):
    (told,) = mistakes("training: {group_size: many, micro_batch_size: 7}", path=tmp_path)
    assert "training.group_size" in told
    (told,) = mistakes("training: {micro_batch_siz: 8, problems_per_step: 3}", path=tmp_path)
    assert "Did you mean 'training.micro_batch_size'" in told
    told = mistakes("training: {group_size: many, problems_per_step: 9000}", path=tmp_path)
    assert ["training.group_size" in told[0], "data.train_size" in told[1]] == [True, True]


def test_the_flag_is_blamed_and_not_the_file_that_it_overrides(tmp_path):
    (told,) = mistakes("algo: grpo\nseed: 3", "--algo", "mrtrl", path=tmp_path)
    assert told.startswith("--algo (command line) = 'mrtrl'")
    (told,) = mistakes("algo: mrtrl", "--seed", "3", path=tmp_path)
    assert told.startswith("algo (bad.yaml, line 1) = 'mrtrl'")


def test_a_command_that_does_not_train_needs_no_training_set(tmp_path):
    text = "data: {train_size: null}\ntraining: {micro_batch_size: 7}\nprover: {estimator: none}"
    path = write(tmp_path / "c.yaml", text)
    assert read_request(["--config", path], training=False).config.data.train_size is None
    assert len(mistakes(text, path=tmp_path)) == 3


def test_null_goes_for_sections_and_optional_fields(tmp_path):
    shape = "model: {architecture: {hidden_size: 8}}\nengine: {max_rows: 3}\ntraining: {steps: 3}"
    path = write(tmp_path / "c.yaml", shape)
    empty = write(tmp_path / "d.yaml", "training:\n  # steps: 9\n")
    flags = ["--model.architecture", "null", "--engine", "null", "--data.v0", "null"]
    config = read_request(["--config", path, empty, *flags]).config
    assert config.model.architecture is None
    assert config.engine.max_rows == 256  # its defaults again
    assert config.training.steps == 3  # a section left empty in a file changes nothing


HOSTILE = {
    "aliases": "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 12)),
    "an alias of itself": "seed: &a {b: *a}",
    "deep nesting": "seed: " + "[" * 50_000,
    "many digits": "seed: " + "9" * 100_000,
    "size": "#" * 2_000_000,
    "a Python object": "seed: !!python/object/apply:os.getcwd x",
    "a date that is none": "seed: 2020-99-99",
    "a control character": "seed: \0",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_refused_in_one_line(case, tmp_path):
    (told,) = mistakes(HOSTILE[case], path=tmp_path)
    assert "bad.yaml" in told
    assert len(told.splitlines()) == 1
    assert len(told) < 600


def test_the_process_ends_with_2_and_never_loads_torch(tmp_path):
    """One process for all cases: what each of them exits with and prints."""
    write(tmp_path / "bad.yaml", BAD["unknown key"][0])
    lines = [
        ["--config", "bad.yaml"],
        ["--algo", "mrtrl"],
        ["--seed", "one"],
        ["--training.problems_per_step", "3"],
        ["--help"],
    ]
    program = """
import sys
from backtrack_mrt.cli.main import run
for line in eval(sys.argv[1]):
    try:
        run(["train", *line])
    except SystemExit as end:
        print("exit", end.code, file=sys.stderr)
print("torch" if "torch" in sys.modules else "light", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program, repr(lines)], cwd=tmp_path, capture_output=True, text=True)
    *told, last = done.stderr.splitlines()
    assert last == "light"
    assert [line for line in told if line.startswith("exit")] == ["exit 2"] * 4 + ["exit 0"]
    assert len([line for line in told if line.startswith("error: ")]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_librarys_sentence_ends_once() -> None:
    told = str(UserError("model.name_or_path", "gone", "cannot be had: check the network.", "Give a directory."))
    assert told.endswith("check the network. Give a directory.")
