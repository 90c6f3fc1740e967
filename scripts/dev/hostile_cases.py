"""The inputs of `hostile.py`: one generator for each kind."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from hostile_values import PLACEHOLDERS, VALUES, WORDS, damaged, dumped, mutated

from backtrack_mrt.config import Config
from backtrack_mrt.config.schema import field_paths

TRAIN = ("train", "--output-dir", "run", "--training.steps", "1", "--data.eval_size", "2", "--data.train_size", "32")


@dataclass(frozen=True)
class Case:
    """A command line, what is odd about it, and the environment. may_fail: exit code 1 is documented for it."""

    kind: str
    told: str
    arguments: tuple[object, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    may_fail: bool = False


def flag(rng: random.Random, folder: Path) -> Case:
    """A setting, or an option, with a word that it was not made for."""
    names = [*field_paths(Config), "config", "compare", "seeds", "dry-run", "resume", "overwrite", "nope", "model", ""]
    given = [f"--{rng.choice(names)}", *rng.choices(WORDS, k=rng.choice((0, 1, 1, 1, 1, 2)))]
    return Case("flags", repr(given)[:200], (*TRAIN, *given))


_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
_YAML = (
    *(_BOMB, "[" * 20_000, "a: " * 5_000, "training: {steps: " + "9" * 100_000 + "}", "training: *nope", "? [a]\n: b"),
    *("!!python/object/apply:os.system [ls]", "%YAML 9.9\n---\na: 1", "a: 1\na: 2", "\t- a", "<<: [1]"),
    *("training: 2001-01-01", "- training", "training", "1", "training: {steps: .inf}", "training: {steps: 0o17}"),
    *("a: |\n  " + "x" * 100_000, "--- a\n--- b"),
)


def yaml_file(rng: random.Random, folder: Path) -> Case:
    """A file for ``--config``."""
    data, training = {"eval_size": 4, "v0": [0, 1]}, {"steps": 2, "learning_rate": 1e-3}
    good = {"training": training, "data": data, "model": {"lora": {"r": 4}}}
    text = rng.choice(_YAML).encode() if rng.random() < 0.4 else _text([mutated(rng, good)])
    if rng.random() < 0.2:
        text = damaged(rng, text)
    (folder / "c.yaml").write_bytes(text)
    return Case("YAML files", repr(text[:150]), (*TRAIN, "--config", "c.yaml"))


def _text(rows: Iterable[Any]) -> bytes:
    """The rows as JSON, one a line, whatever is in them."""
    return "\n".join(map(dumped, rows)).encode("utf-8", "surrogatepass")


def _rows(rng: random.Random, odd: int) -> list[Any]:
    rows: list[Any] = [{"id": str(n), "question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(40)]
    for n in rng.sample(range(40), odd):
        extra = {"rel_tol": rng.choice(VALUES), "v0": rng.choice(VALUES), "source": rng.choice(VALUES)}
        chosen = dict(rng.sample(sorted(extra.items(), key=repr), rng.choice((0, 1))))
        rows[n] = mutated(rng, rows[n] | chosen | ({"answer": rng.choice(PLACEHOLDERS)} if rng.random() < 0.3 else {}))
    return rows


def data_rows(rng: random.Random, folder: Path) -> Case:
    """Rows that are no problems."""
    rows = _rows(rng, odd=rng.choice((1, 1, 3)))
    (folder / "d.jsonl").write_bytes(_text(rows))
    odd = [row for row in rows if not isinstance(row, dict) or list(map(type, row.values())) != [str] * 3]
    flags = rng.choice(((), ("--data.bad_golds", "skip"), ("--data.v0", "0", "1")))
    given = ("--data.train", "d.jsonl", "--data.train_size", "null", *flags)
    return Case("rows of data", dumped(odd)[:200], (*TRAIN, *given))


def data_file(rng: random.Random, folder: Path) -> Case:
    """Files that are not what their names say."""
    name = rng.choice(("d.jsonl", "d.json", "d.csv", "d.parquet", "d.jsonl.gz", "d.json.zst", "D.NDJSON", "d.txt", "d"))
    content = _text(_rows(rng, odd=0))
    how = rng.choice(("damaged", "folder", "link", "pipe name", "damaged"))
    path = folder / name
    if how == "folder":
        path.mkdir()
        inner = rng.choice(("state.json", "dataset_info.json", "train.jsonl", "x.bin"))
        (path / inner).write_bytes(damaged(rng, content))
    elif how == "link":
        path.symlink_to(rng.choice((path, Path("/nope"), Path("/dev/null"), folder)))
    else:
        path.write_bytes(damaged(rng, content))
    command = (*TRAIN, rng.choice(("--data.train", "--data.eval")), f"./{name}")
    return Case("files of data", f"{name}, {how}", command, may_fail=how == "link")


def _model(folder: Path) -> Path:
    model = folder / "m"
    shutil.copytree(Path(str(files("backtrack_mrt.policy.tiny"))), model, ignore=shutil.ignore_patterns("__*"))
    return model


_WHOLE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_TEMPLATES = (
    *("", " ", "{% for", "{{ messages[99]['content'] }}", "{{ 1 / 0 }}", "{{ messages.__class__.__mro__ }}"),
    *("{{ nope.a.b }}", "{{ raise_exception('no\nno') }}", "{% for i in range(10**9) %}x{% endfor %}"),
    *("{% include 'x' %}", "{% import 'os' as os %}", "{{ cycler.__init__.__globals__ }}", "{{ strftime_now(3) }}"),
    *(_WHOLE.replace("m['content']", f"m['content']{more}") for more in ("[:3]", " | upper")),
    *(_WHOLE.replace("{{ eos_token }}", ""), _WHOLE * 2, _WHOLE.replace("{{ bos_token }}", "{{ bos_token }}" * 2)),
    *(_WHOLE.replace("<assistant>", ""), "{{ messages | tojson }}", "{{ messages | length }}" + _WHOLE, "x" * 10_000),
    *("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{% set x = namespace(a=1) %}{{ x.b.c }}"),
    _WHOLE.replace("<{{ m['role'] }}>", "{{ loop.index }}"),
)


def template(rng: random.Random, folder: Path) -> Case:
    """A chat template that breaks what one promises."""
    text = rng.choice(_TEMPLATES)
    if rng.random() < 0.3:
        at = rng.randrange(len(_WHOLE))
        text = _WHOLE[:at] + _WHOLE[at + rng.choice((1, 5, 20)) :]
    model = _model(folder)
    (model / "chat_template.jinja").write_text(text)
    return Case("chat templates", repr(text)[:150], (*TRAIN, "--model.name_or_path", "m"))


def model_folder(rng: random.Random, folder: Path) -> Case:
    """A folder with a model that is none, or another."""
    model = _model(folder)
    how = rng.choice(("config", "config", "config", "file", "file", "gone", "adapter"))
    path = model / "config.json"
    if how in ("config", "adapter"):
        read = json.loads(path.read_text())
        if how == "adapter":
            path.unlink()
            path = model / "adapter_config.json"
            read = {"peft_type": "LORA", "base_model_name_or_path": "m", "r": 4, "task_type": "CAUSAL_LM"}
            read |= {"target_modules": ["q_proj"]}
        changed = mutated(rng, read)
        path.write_bytes(_text([changed]))
        odd = {k: v for k, v in changed.items() if read.get(k, "") != v} if isinstance(changed, dict) else changed
        told = f"{path.name}: {dumped(odd)}"[:200]
    else:
        path = rng.choice(sorted(p for p in model.iterdir() if p.is_file()))
        told = f"{path.name}, {how}"
        if how == "file":
            path.write_bytes(damaged(rng, path.read_bytes()))
        else:
            path.unlink()
    command = rng.choice((TRAIN, ("export", "m", "--out", "exported")))
    return Case("model folders", told, (*command, "--model.name_or_path", "m") if command == TRAIN else command)


def _trajectory() -> dict[str, Any]:
    turn = {"phase": "attempt", "text": "\\boxed{2}", "token_ids": [1, 2], "logprobs": [-0.5, -0.1], "finish": "stop"}
    parsed = {"answer": "2", "steps": [], "step": None, "verdict": None}
    turn |= {"parsed": parsed, "instruction_ids": [], "max_new_tokens": 4}
    problem = {"id": "a", "question": "1 + 1?", "answer": "2", "source": "x", "rel_tol": None}
    ended = {"stop": "finished", "answer": "2", "outcome": 1.0, "values": [0.5, 1.0]}
    return {"problem": problem, "prompt_ids": [1], "turns": [turn], **ended}


def trajectories(rng: random.Random, folder: Path) -> Case:
    """A file of trajectories for the commands that read them."""
    rows = [_trajectory() for _ in range(4)]
    rows[rng.randrange(4)] = mutated(rng, rows[0])
    odd = "".join(dumped(row) for row in rows if row != _trajectory())
    text = _text(rows)
    (folder / "t.jsonl").write_bytes(damaged(rng, text) if rng.random() < 0.2 else text)
    commands = ("show t.jsonl", "audit t.jsonl --workers 1", "report --traces t.jsonl --out r.html")
    command = tuple(rng.choice((*commands, "evaluate --traces t.jsonl")).split())
    return Case("trajectories", f"{command[0]}: {odd[:200]}", command, may_fail=command[0] == "audit")


def answers(rng: random.Random, folder: Path) -> Case:
    """Rows for the command `grade`."""
    rows: list[Any] = [{"gold": "2", "answer": "2"}, {"gold": rng.choice(PLACEHOLDERS), "answer": "1"}]
    rows.append(mutated(rng, {"gold": "2", "answer": "2", "form": "answer", "id": 3}))
    text = _text(rows)
    (folder / "g.jsonl").write_bytes(damaged(rng, text) if rng.random() < 0.2 else text)
    return Case("rows to grade", dumped(rows[1:])[:200], ("grade", "g.jsonl"))


_VARIABLES = "WORLD_SIZE RANK LOCAL_RANK COLUMNS LINES TERM HF_HOME HF_ENDPOINT MPLBACKEND NO_COLOR"


def environment(rng: random.Random, folder: Path) -> Case:
    """Variables of launchers, terminals and libraries."""
    name, value = rng.choice(_VARIABLES.split()), rng.choice(("", "two", "-1", "1.5", "9" * 30, "½", "x" * 300, "0"))
    command = TRAIN if rng.random() < 0.7 else ("check-env",)
    return Case("environment", f"{name}={value[:40]}", command, {name: value}, may_fail=command != TRAIN)


KINDS: tuple[Callable[[random.Random, Path], Case], ...] = (
    *(flag, yaml_file, data_rows, data_file, template, model_folder, trajectories, answers, environment),
)
