"""The engine's logprobs beside the trainer's: measured for every engine, corrected where they differ."""

from __future__ import annotations

import random
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.architectures import CACHED, PLAIN, random_model
from support.short_runs import SHORT
from transformers import PretrainedConfig

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.policy.hf import plain_engine, runner
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.trial import serving_engine
from backtrack_mrt.policy.models import load_policy
from backtrack_mrt.runs.directory import RunDir
from backtrack_mrt.training.packing import aligned_rows, packable, packed_attention, packed_rows
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Request, Sampling

MEAN = "sampling/sampling_logp_difference/mean"
RATIO = "sampling/importance_sampling_ratio/max"


def logged(folder: Path, dtype: str) -> dict[str, float]:
    """The last step's metrics, when there is an adapter that does something."""
    train(read_request(["--output-dir", str(folder), *SHORT, "--training.steps", "2", "--model.dtype", dtype]))
    return RunDir(folder).metrics()[-1]


def test_in_float32_the_engine_is_exact(tmp_path: Path) -> None:
    metrics = logged(tmp_path / "run", "float32")
    assert 0 < metrics[MEAN] < 1e-5
    assert metrics[RATIO] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_in_bfloat16_both_sides_compute_alike_and_the_rest_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = logged(tmp_path / "alike", "bfloat16")
    assert 1e-4 < alike[MEAN] < 5e-3
    assert alike[RATIO] > 1.001
    monkeypatch.setattr(runner, "as_trained", lambda model: nullcontext())
    assert logged(tmp_path / "apart", "bfloat16")[MEAN] > alike[MEAN]


ARCHITECTURES = (*CACHED, "sliding window", "soft-capped logits", "windows in some layers", "one key head")
ARCHITECTURES += ("part of a head turned",)
NEW = 24  # tokens of a row


def mean_gap(config: PretrainedConfig) -> float:
    """Of 24 rows that the engine draws from a random model in bfloat16 with an adapter, in nats a token."""
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(random_model(config).bfloat16(), adapter).eval()
    engine = serving_engine(model, "random")(model, max_rows=24)
    rng = random.Random(0)
    asked = [Request(tuple(rng.choices(range(3, 64), k=rng.randint(2, 12))), NEW, seed) for seed in range(24)]
    drawn = engine.generate(asked, Sampling())
    width = max(len(request.prefix_ids) for request in asked)
    padding = [width - len(request.prefix_ids) for request in asked]
    ids = torch.tensor([[*[0] * n, *r.prefix_ids, *c.token_ids] for n, r, c in zip(padding, asked, drawn, strict=True)])
    mask = (torch.arange(ids.size(1)) >= torch.tensor(padding)[:, None]).long()
    packs = packable(model)
    rows = packed_rows(ids, mask, NEW, model) if packs else aligned_rows(ids, mask, NEW)
    packing = packed_attention(model.config) if packs else nullcontext()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), packing:
        logprobs = model(**rows.inputs()).logits.float().log_softmax(-1)
    told = logprobs.gather(2, rows.targets.view(*logprobs.shape[:2], 1).clamp(min=0))[..., 0]
    ours = told[0][rows.scored] if packs else told.gather(1, rows.scored)
    return float((ours - torch.tensor([completion.logprobs for completion in drawn])).abs().mean())


@pytest.mark.slow
def test_in_bfloat16_nine_architectures_are_nearer_under_one_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of docs/engines.md: with `-s` it is printed."""
    configs = {name: (CACHED | PLAIN)[name] for name in ARCHITECTURES}
    alike = {name: mean_gap(config) for name, config in configs.items()}
    for module in (runner, plain_engine):
        monkeypatch.setattr(module, "as_trained", lambda model: nullcontext())
    apart = {name: mean_gap(config) for name, config in configs.items()}
    for name in configs:
        print(f"| {configs[name].model_type} | {apart[name]:.4f} | {alike[name]:.4f} |")
    assert len(configs) == 9
    assert all(alike[name] <= apart[name] for name in configs)
    assert max(alike.values()) < 0.05


def test_only_float32_is_called_exact() -> None:
    for dtype in ("float32", "bfloat16"):
        section = read_request(["--model.dtype", dtype]).config.model
        assert HFEngine(load_policy(section, 0)[0], max_rows=2).exact == (dtype == "float32")
