"""Configs that begin with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config.files import read_config
from backtrack_mrt.errors import UserError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_file_lies_on_top_of_what_it_extends(tmp_path: Path) -> None:
    write(tmp_path / "below.yaml", "extends: tiny.yaml\nseed: 7\ntraining: {steps: 3, kl: 0.5}\n")
    top = write(tmp_path / "deep" / "top.yaml", "extends: [../below.yaml]\ntraining: {steps: 4}\nalgo: grpo\n")
    config = read_request(["--config", top]).config
    assert (config.seed, config.training.steps, config.training.kl, config.algo) == (7, 4, 0.5, "grpo")
    assert config.training.problems_per_step == read_request([]).config.training.problems_per_step
    assert "extends" not in config.resolved()


def test_its_own_name_in_front_is_what_a_mistake_names(tmp_path: Path) -> None:
    write(tmp_path / "below.yaml", "training: {stps: 3}\n")
    top = write(tmp_path / "top.yaml", "extends: below.yaml\n")
    with pytest.raises(UserError, match=r"training\.stps \(.*below\.yaml, line 1\)"):
        read_request(["--config", top])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("extends: nowhere.yaml", "no such file"),
        ("extends: 3", "no name of a file"),
        ("extends: [top.yaml]", "extends this file in turn"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_request(["--config", write(tmp_path / "top.yaml", text)])


def test_a_run_s_config_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extends"):
        read_config(write(tmp_path / "config.yaml", "extends: tiny.yaml\n"))


def test_the_paper_s_recipe() -> None:
    config = read_request(["--config", "paper_table1.yaml"]).config
    assert config.training.rows == 256
    assert (config.training.group_size, config.training.temperature) == (4, 0.9)
    assert config.protocol.token_budget == 24_576
    assert config.evaluation.small_set_samples == 20
    assert len(config.data.eval) == 5
    star = read_request(["--config", "paper/star_7b.yaml"]).config
    assert star.model.name_or_path.endswith("7B")
    assert star.rows_per_update == 256
    assert star.training.epochs == 3
