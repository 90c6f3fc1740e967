"""A model or a data set is data: nothing that comes with one is run or unpickled."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from backtrack_mrt.config import ModelSection
from backtrack_mrt.data.sources import read_rows
from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.models import load_model, load_policy, load_tokenizer, untrained

ROOT = Path(__file__).parents[2]
MEANT = (
    "plugins.py",
    "sandbox/answer_side.py",
    "sandbox/test_side.py",
)  # execute what is given, on purpose
CODE = "from pathlib import Path\nPath({mark!r}).touch()\n"


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def section(path: Path, **said: Any) -> ModelSection:
    return ModelSection(name_or_path=str(path), **said)


def loaded(path: Path) -> Any:
    return load_model(section(path), load_tokenizer(section(path)), seed=0)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_pickled_weights_are_refused(copied: Path, tmp_path: Path) -> None:
    weights = copied / "model.safetensors"
    torch.save(load_file(weights), copied / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match=r"only pickled weights \(\.bin\), which are not read"):
        loaded(copied)
    (copied / "other.safetensors").touch()  # not the model's
    mark = tmp_path / "ran"
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(mark)))
    with pytest.raises(UserError, match="cannot be loaded"):
        loaded(copied)
    assert not mark.exists()


def test_a_pickled_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    model, _ = load_policy(section(folder), seed=0)
    model.save_pretrained(tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (folder / name).is_file():
            shutil.copy(folder / name, tmp_path / "adapter")
    mark, weights = tmp_path / "ran", tmp_path / "adapter" / "adapter_model.safetensors"
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(pickle.dumps(Touch(mark)))
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        loaded(tmp_path / "adapter")
    assert not mark.exists()


@pytest.mark.parametrize("model_type", ["llama", "its-own"])
def test_code_that_comes_with_a_model_is_not_run(model_type: str, copied: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (copied / "its_own.py").write_text(CODE.format(mark=str(mark)))
    own = {"AutoConfig": "its_own.Config", "AutoModelForCausalLM": "its_own.Model"}
    change(copied / "config.json", model_type=model_type, auto_map=own)
    change(copied / "tokenizer_config.json", auto_map={"AutoTokenizer": ["its_own.Tokenizer", None]})
    if model_type == "llama":  # transformers has code of its own for it
        loaded(copied)
        untrained(section(copied))
    else:
        with pytest.raises(UserError, match="its-own needs code that comes with the model"):
            loaded(copied)
    assert not mark.exists()


def test_a_data_set_with_a_script_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    monkeypatch.chdir(tmp_path)
    mark, script = tmp_path / "ran", tmp_path / "owner" / "name" / "name.py"
    script.parent.mkdir(parents=True)
    script.write_text(CODE.format(mark=str(mark)))
    with pytest.raises(UserError, match="the folder holds no rows"):
        list(read_rows("owner/name", "data.train", "owner/name"))
    assert not mark.exists()


def test_no_code_of_ours_unpickles_or_trusts() -> None:
    forbidden = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for path in (path for folder in ("backtrack_mrt", "scripts", "envs") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not forbidden & {name.partition(".")[0] for name in names}, path
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called != "torch.load" or said.get("weights_only") == "True", path
            assert said.get("trust_remote_code", "False") == "False", path
            assert said.get("allow_pickle", "False") == "False", path
            # A plug-in that the user named by its path; a policy's program, in a process that may do nothing else.
            meant = called == "exec" and path in [ROOT / "backtrack_mrt" / name for name in MEANT]
            assert meant or called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load"), path
