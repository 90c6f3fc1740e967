"""--dry-run: sizes and times of a run, without weights or a network."""

from __future__ import annotations

import re

import pytest
from support.documents import text_of

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config.files import shipped_configs
from backtrack_mrt.errors import UserError
from backtrack_mrt.training.plan import GIB, Plan, plan
from backtrack_mrt.training.roofline import DEVICES, HERE, ON_GPU, device

pytestmark = pytest.mark.usefixtures("no_network")


def planned(*flags: str, on: str = "h100") -> Plan:
    return plan(read_request(flags).config, DEVICES[on])


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_planned_without_its_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = planned("--config", name)
    assert 0 < found.sizes.trained < found.sizes.parameters / 5  # an adapter
    assert found.tokens_per_step >= found.rows * found.sizes.config.protocol.token_budget
    text = "\n".join(found.lines())
    for part in ("tokens per step", "parameters", "GiB  weights", "AdamW", "KV cache", "at the peak", "time per step"):
        assert part in text
    assert min(found.seconds.rollout, found.seconds.prover, found.seconds.update) > 0


@pytest.mark.parametrize(
    ("name", "parameters", "lora"),
    [("llama31_8b", 8_030_261_248, 83_886_080), ("llama32_3b", 3_212_749_824, 48_627_712)],
)
def test_parameters_are_the_published_ones(name, parameters, lora):
    found = planned("--config", name)
    assert (found.sizes.parameters, found.sizes.trained) == (parameters, lora)
    assert found.memory["weights"] == parameters * 2 + lora * 4
    copied = ["--model.full_finetuning", "true", "--prover.policy", "reference", "--engine.type", "hf"]
    full = planned("--config", name, *copied)
    assert (full.sizes.parameters, full.sizes.trained) == (parameters, parameters)
    assert full.memory["reference"] == full.memory["weights"] == full.memory["gradients"] == parameters * 2
    assert full.peak > found.peak > 16 * GIB


def test_the_plan_follows_the_batch(folder):
    small = ["--model.name_or_path", str(folder), "--protocol.token_budget", "100", "--training.problems_per_step", "8"]
    first = planned(*small, "--training.group_size", "4", "--training.micro_batch_size", "8", "--data.train_size", "8")
    second = planned(
        *small, "--training.group_size", "8", "--training.micro_batch_size", "16", "--data.train_size", "8"
    )
    assert (first.rows, second.rows) == (32, 64)
    assert second.tokens_per_step == 2 * first.tokens_per_step
    assert second.memory["activations"] == 2 * first.memory["activations"]
    assert first.memory["weights"] == second.memory["weights"]
    assert planned(*small[:2], "--algo", "grpo", "--protocol.token_budget", "64").prover == 0
    assert first.sizes.length <= 512  # a trajectory ends where the context does


def test_the_plan_follows_the_engine(folder):
    model = ["--model.name_or_path", str(folder), "--protocol.token_budget", "100"]
    hf, vllm = planned(*model), planned(*model, "--engine.type", "vllm")
    server = planned(*model, "--engine.type", "vllm", "--engine.server", "http://host:8000")
    assert vllm.memory["vLLM"] == round(0.4 * DEVICES["h100"].memory)  # taken at the start, and kept
    assert hf.memory["KV cache"] > server.memory["KV cache"] == 0
    assert vllm.peak == server.peak + vllm.memory["vLLM"]
    asleep = planned(*model, "--engine.type", "vllm", "--engine.sleep", "true")
    assert sum(asleep.memory.values()) == sum(vllm.memory.values())
    assert asleep.peak == vllm.peak - server.memory["activations"] - server.memory["logits"]  # its share is more


EIGHT = ("--config", "llama31_8b.yaml", "--engine.max_rows", "64", "--engine.type", "hf")


def test_time_follows_the_operations_and_the_bytes():
    """An update of 8 B frozen weights with checkpointing: 2 operations per weight forwards, 2 again, 2 backwards."""
    found = planned(*EIGHT)
    weights = found.sizes.network.matrix
    assert weights == found.sizes.parameters - 128256 * 4096 - 65 * 4096  # all but the embedding and the norms
    inputs, outputs = 32 * (6 * 4096 + 14336), 32 * (2 * 4096 + 2 * 1024 + 2 * 14336 + 4096)
    assert found.sizes.network.adapter == 14 * inputs + 12 * outputs
    beside = found.sizes.network.adapter / (0.6 * 3.35e12)  # the adapter's own way through memory, a token
    around = 64 * ON_GPU.batch
    least = found.tokens_per_step * (6 * weights / (0.4 * 989e12) + 3 * beside)
    assert least < found.seconds.update - around < 1.1 * least, "attention is a small part at this length"
    read = 2 * weights + 64 * found.sizes.length / 2 * (32 * 2 * 8 * 128 * 2)  # with the cache of 64 rows, half full
    decoded = 4 * 1024 * (read / (0.6 * 3.35e12) + 64 * beside + 32 * ON_GPU.kernels + ON_GPU.step)  # 4 × 64 rows
    assert decoded < found.seconds.rollout < 1.15 * decoded, "prompts and instructions are read, shapes recorded"
    frozen = planned(*EIGHT, "--model.gradient_checkpointing", "false")
    assert frozen.seconds.update - around == pytest.approx((found.seconds.update - around) * 2 / 3)
    twice = planned(*EIGHT, "--training.epochs", "2")  # and a pass for the logprobs that both compare with
    assert twice.seconds.update - 2 * around == pytest.approx((found.seconds.update - around) * 7 / 3)
    whole = planned(*EIGHT, "--model.full_finetuning", "true")
    assert whole.sizes.network.adapter == 0
    four = 4 / 3 * (found.seconds.update - around - 3 * beside * found.tokens_per_step)
    assert whole.seconds.update - around == pytest.approx(four)
    assert planned(*EIGHT, "--algo", "grpo").seconds.prover == 0
    assert planned(*EIGHT, "--algorithm.values", "stated").seconds.prover == 0
    exact, drawn = (planned(*EIGHT, "--prover.estimator", name) for name in ("likelihood", "monte_carlo"))
    assert drawn.seconds.prover > 10 * exact.seconds.prover
    slower = planned(*EIGHT, on="a100").seconds
    assert slower.update > 2 * found.seconds.update


@pytest.mark.parametrize(
    "more",
    [
        ("--training.problems_per_step", "128"),
        ("--protocol.token_budget", "2048"),
        ("--prover.estimator", "greedy", "--protocol.max_revisions", "6"),
    ],
)
def test_more_rows_or_tokens_take_more_time(more):
    exact = (*EIGHT, "--prover.estimator", "likelihood")
    first, second = planned(*exact).seconds, planned(*exact, *more).seconds
    assert second.rollout > first.rollout or second.prover > first.prover
    assert second.total > first.total
    assert second.update >= first.update


def test_processes_share_rows_and_sharding_the_weights(monkeypatch):
    alone = planned(*EIGHT)
    monkeypatch.setenv("WORLD_SIZE", "8")
    shared = planned(*EIGHT)
    assert shared.seconds.update == pytest.approx(alone.seconds.update / 8)
    assert shared.memory["weights"] == alone.memory["weights"]
    rows = [plan.memory["KV cache"] / (plan.sizes.length * plan.sizes.cache) for plan in (alone, shared)]
    assert rows == [64 + 64, 32 + 64]  # trajectories, and sampled answers of which each process has hundreds
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert planned(*EIGHT).memory["weights"] == alone.memory["weights"] // 8
    assert "8 processes, cut up by FSDP" in "\n".join(planned(*EIGHT).lines())


def test_four_bits_take_less_memory_for_the_frozen_base():
    plain, packed = (planned(*EIGHT, "--engine.type", "hf", *more) for more in ((), ("--model.quantization", "nf4")))
    in_layers = plain.sizes.network.matrix - 128256 * 4096
    assert plain.memory["weights"] - packed.memory["weights"] == pytest.approx(in_layers * (2 - 0.516))
    assert packed.memory["activations"] == plain.memory["activations"]
    assert packed.seconds.rollout < plain.seconds.rollout


def test_devices_by_name():
    assert device("a100").name == "a100"
    with pytest.raises(UserError, match=r"--dry-run = 'h10': no such device.*'h100'"):
        device("h10")
    assert device(HERE).bandwidth > 1e8


def test_a_budget_beyond_the_context_is_refused(folder):
    with pytest.raises(UserError, match=r"protocol\.token_budget = 9999: the model's context holds 512 tokens"):
        planned("--model.name_or_path", str(folder), "--protocol.token_budget", "9999")


def test_rollouts_one_update_off_hide_the_shorter_part() -> None:
    served = ("--config", "llama31_8b.yaml", "--engine.type", "vllm", "--engine.server", "http://host:8000")
    one, ahead = (planned(*served, *flags).seconds for flags in ((), ("--training.asynchronous",)))
    assert one is not None
    assert ahead is not None
    assert one.total == one.rollout + one.prover + one.update
    assert ahead.total == max(one.rollout + one.prover, one.update)


PLANNED = r"^\| `(\w+\.yaml)` \| (\d+) GiB, .* \| at most (\d+) min a step, ([\d.]+) h in all \|$"


@pytest.mark.parametrize(
    ("name", "memory", "minutes", "hours"), re.findall(PLANNED, text_of("docs/models.md"), re.MULTILINE)
)
def test_the_page_has_these_plans(name: str, memory: str, minutes: str, hours: str) -> None:
    found = planned("--config", name)
    lines = "\n".join(found.lines())
    assert f"at most {minutes} min on h100" in lines
    assert f"at most {float(hours):.1f} h for" in lines
    assert round(found.peak / GIB) == int(memory)
