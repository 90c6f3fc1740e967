"""Configs: merging, overrides, help, what a run saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import command

from backtrack_mrt.algos.grpo import Grpo
from backtrack_mrt.algos.mrt_rl import MrtRl
from backtrack_mrt.cli.command import parser_of
from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import Config
from backtrack_mrt.config.files import read_config, read_layer, shipped_configs
from backtrack_mrt.config.schema import field_paths
from backtrack_mrt.config.yaml_text import as_yaml
from backtrack_mrt.envs.backtrack import Backtrack
from backtrack_mrt.envs.single import Single
from backtrack_mrt.runs.directory import RunDir

ROOT = Path(__file__).parents[2]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_no_config_is_the_embedded_default():
    request = read_request([])
    assert request == read_request(["--config", "tiny.yaml"])
    assert request.config.model.name_or_path == "tiny"
    assert isinstance(request.config.algorithm, MrtRl)
    assert isinstance(request.config.protocol, Backtrack)
    assert (request.existing, request.dry_run) == ("refuse", None)


def test_files_merge_left_to_right_and_flags_override(tmp_path):
    first = write(
        tmp_path / "a.yaml", "training: {steps: 5, learning_rate: 1e-5}\nseed: 3\ndata: {train: [a.jsonl, b.jsonl]}"
    )
    second = write(tmp_path / "b.yaml", "training: {steps: 6}\ndata: {train: [c.jsonl]}\nengine:\n")
    config = read_request(["--config", first, second, "--training.steps", "7", "--data.train_size", "null"]).config
    assert (config.training.steps, config.training.learning_rate, config.seed) == (7, 1e-5, 3)
    assert config.data.train == ["c.jsonl"]  # lists are replaced
    assert config.data.train_size is None
    assert config.engine.type == "hf"  # a section left empty changes nothing
    assert read_request(["--config", second, "--config", first]).config.training.steps == 5


@pytest.mark.parametrize("part", ["train", "eval", "validation"])
def test_a_size_belongs_to_the_sets_that_are_named_with_it(part, tmp_path):
    named = write(tmp_path / "a.yaml", f"data: {{{part}: [a.jsonl], {part}_size: 64}}")
    for flags, size in ((), 64), (("b.jsonl",), None), (("b.jsonl", f"--data.{part}_size", "48"), 48):
        line = ["--config", named, *(("--data." + part, *flags) if flags else ())]
        assert getattr(read_request(line).config.data, f"{part}_size") == size


def test_the_whole_command_line():
    line = """--algo mrt_rl --env backtrack --training.steps=10 --algorithm.alpha 2 --protocol.max-revisions 4
        --model.full_finetuning true --model.lora.targets q_proj v_proj --report-to tensorboard wandb
        --output_dir X --resume --dry-run"""
    request = read_request(line.split())
    config = request.config
    default = read_request([]).config
    assert config.algorithm == default.algorithm.model_copy(update={"alpha": 2.0})
    assert config.protocol == default.protocol.model_copy(update={"max_revisions": 4})
    assert config.model.full_finetuning is True
    assert config.model.lora.targets == ["q_proj", "v_proj"]
    assert read_request(["--model.lora.targets", "all-linear"]).config == read_request([]).config
    assert config.report_to == ["tensorboard", "wandb"]
    assert read_request(["--report-to", "[]"]).config.report_to == []
    assert config.run_path == Path("X")
    assert (request.existing, request.dry_run) == ("resume", "here")
    assert read_request(["--overwrite"]).existing == "overwrite"
    assert read_request(["--dry-run", "h100"]).dry_run == "h100"


ALGORITHMS = "algorithms: {mrt-rl: {alpha: 3.0}, grpo: {scale_outcome: true}}\n"


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        (ALGORITHMS, [], MrtRl(alpha=3)),
        (ALGORITHMS, ["--algo", "grpo"], Grpo(scale_outcome=True)),
        (ALGORITHMS, ["--algorithm.alpha", "4"], MrtRl(alpha=4)),
        (ALGORITHMS + "algorithm: {credit: return_to_go}", [], MrtRl(alpha=3, credit="return_to_go")),
        ("algo: mrt-rl\nalgorithm: {alpha: 5}", [], MrtRl(alpha=5)),
        ("algo: mrt-rl\nalgorithm: {alpha: 5}", ["--algo", "grpo"], Grpo()),  # its settings are not grpo's
        ("algo: grpo", [], Grpo()),
        ("algorithms: {mrt_rl: }", [], MrtRl()),
    ],
)
def test_one_file_serves_every_algorithm(tmp_path, text, flags, expected):
    path = write(tmp_path / "c.yaml", text)
    assert read_request(["--config", path, *flags]).config.algorithm == expected


def test_protocols_are_chosen_like_algorithms(tmp_path):
    path = write(
        tmp_path / "c.yaml", "env: backtrack\nprotocol: {max_revisions: 9}\nprotocols: {single: {token_budget: 7}}"
    )
    assert read_request(["--config", path]).config.protocol == Backtrack(max_revisions=9)
    assert read_request(["--config", path, "--env", "single"]).config.protocol == Single(token_budget=7)


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_loads_and_comes_back_from_its_run(name, tmp_path):
    config = read_request(["--config", name]).config
    assert read_request(["--config", f"configs/{name}"]).config == config  # from anywhere, by either name
    saved = write(tmp_path / "saved.yaml", yaml.safe_dump(config.resolved()))
    assert read_config(saved) == config


def test_help_documents_every_field(capsys):
    for algo, env in (("mrt-rl", "backtrack"), ("grpo", "single")):
        with pytest.raises(SystemExit) as exit_:
            read_request(["--algo", algo, "--env", env, "--help"], description="What it does.")
        assert exit_.value.code == 0
        shown = capsys.readouterr().out
        config = read_request(["--algo", algo, "--env", env]).config
        for model in (Config, type(config.algorithm), type(config.protocol)):
            for path in field_paths(model):
                field = path.rpartition(".")[2]
                assert f"{field} " in shown, path
        for part in ("What it does.", "--resume", "--output-dir", "mrt-rl", "llama31_8b.yaml", "(default: 0.01)"):
            assert part in shown
    assert all(field.description for field in Config.model_fields.values() if not _is_section(field))


def _is_section(field) -> bool:
    return hasattr(field.annotation, "model_fields")


@given(text=st.text(st.sampled_from("0123456789eE+-._: xyn'[{"), min_size=1), number=st.floats(1e-9, 1e9))
def test_what_is_saved_comes_back(text, number, tmp_path_factory):
    values = {"model": {"revision": text}, "training": {"learning_rate": number}}
    path = write(tmp_path_factory.mktemp("saved") / "c.yaml", as_yaml(values))
    assert read_layer(path).values == values


def test_numbers_are_read_as_numbers(tmp_path):
    layer = read_layer(write(tmp_path / "c.yaml", "a: 1e-3\nb: 1_000\nc: 010\nd: yes\n"))
    assert layer.values == {"a": 0.001, "b": 1000, "c": 10, "d": "yes"}


def test_help_shows_what_is_in_effect(capsys, tmp_path):
    path = write(tmp_path / "c.yaml", "training: {lr_schedule: linear}\nalgorithms: {grpo: {scale_outcome: true}}")
    with pytest.raises(SystemExit):
        read_request(["--config", "tiny.yaml", path, "--algo", "grpo", "--training.kl", "0.25", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "batches that the policy is updated on (default: 128)",
        "all turns together (default: 256)",
        "after the warm-up (default: linear)",
        "β of the KL to the reference (default: 0.25)",
        "--algorithm.scale_outcome {true,false}",
        "standard deviation (default: true)",
        "{tensorboard,wandb,trackio}",
        "--data.sets.NAME.path",
        "training options: Updates of the policy.",
    ):
        assert part in shown
    for word in ("undefined", "ifdef", "Undefined", "None", "True", "Literal", "dict[", "SUPPRESS"):
        assert word not in shown


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "backtrack-mrt-rl-seed0"),
        (["--config", "countdown.yaml"], "tiny-countdown-backtrack-countdown-mrt-rl-seed0"),
        (["--model.name_or_path", "meta-llama/Llama-3.2-3B-Instruct"], "Llama-3.2-3B-Instruct-backtrack-mrt-rl-seed0"),
        (["--model.name_or_path", "runs/warm/model/", "--grader", "exact"], "warm-backtrack-exact-mrt-rl-seed0"),
        (["--model.name_or_path", "."], "backtrack-mrt-rl-seed0"),
        (["--config", "countdown.yaml", "--output-dir", "mine"], "mine"),
    ],
)
def test_a_run_without_a_name_is_called_after_its_task(flags: list[str], name: str) -> None:
    assert read_request(flags).config.run_path.name == name


def test_home_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files and behind `=` no shell replaces it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", "output_dir: ~/kept")
    config = read_request(["--config", "~/mine.yaml"]).config
    assert config.run_path == tmp_path / "kept"
    RunDir.create(config)
    assert read_request(["--resume", "~/kept"]).config.run_path == tmp_path / "kept"
    assert parser_of("export").parse(["~/kept", "--out=~/exported"]).out == tmp_path / "exported"
    assert f"'{tmp_path}/gone.jsonl'" in command("show", "~/gone.jsonl").stderr
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--model.name_or_path", "~nobody.such/x"], "model.name_or_path"),
        (["--data.train", "~nobody.such/x.jsonl"], "data.train"),
        (["--algo", "sft", "--data.traces", "~nobody.such/x.jsonl"], "data.traces"),
        (["--env", "~nobody.such/x.py"], "--env"),
        (["--prompts", "~nobody.such/x"], "prompts"),
        (["--resume", "~nobody.such/x"], "--resume"),
    ],
)
def test_the_home_of_nobody_is_a_mistake_like_another(flags: list[str], field: str, tmp_path: Path) -> None:
    told = command("train", *flags, cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr.startswith(f"error: {field}")
    assert told.stderr.count("\n") == 1
