"""--dry-run's verdict: six configs on six devices beside arithmetic of its own, and advice that holds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import ceil

import pytest
from support.command_line import command

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError
from backtrack_mrt.training.plan import Plan, plan
from backtrack_mrt.training.roofline import ON_GPU, PACK, VLLM, Clock, Network, device
from backtrack_mrt.training.sizes import GIB, room
from backtrack_mrt.training.sizes import memory as sizes_memory

pytestmark = pytest.mark.usefixtures("no_network")

# parameters, of the adapter, layers, hidden, feed-forward, vocabulary, bytes of cache per token, bytes of a weight
MODELS = {
    "llama31_8b": (8_030_261_248, 83_886_080, 32, 4096, 14336, 128256, 32 * 2 * 8 * 128 * 2, 2),
    "llama32_3b": (3_212_749_824, 48_627_712, 28, 3072, 8192, 128256, 28 * 2 * 8 * 128 * 2, 2),
    "r1_distill_qwen_1_5b": (1_777_088_000, 36_929_536, 28, 1536, 8960, 151936, 28 * 2 * 2 * 128 * 2, 2),
    "deepscaler_1_5b": (1_777_088_000, 36_929_536, 28, 1536, 8960, 151936, 28 * 2 * 2 * 128 * 2, 2),
    "smollm2_135m": (134_515_008, 4_884_480, 30, 576, 1536, 49152, 30 * 2 * 3 * 64 * 2, 2),
    "tiny": (897_920, 157_696, 4, 128, 352, 367, 4 * 2 * 4 * 32 * 4, 4),
}
MEMORY = {"h100": 79.6, "a100": 80.0, "b200": 179.1, "l40s": 45.0, "rtx4090": 24.0, "48GiB": 48.0}  # GiB
DOES_NOT_FIT = {
    ("llama31_8b", "rtx4090", "vllm"),  # its share does not hold the weights
    *(("llama31_8b", on, "hf") for on in ("h100", "a100", "l40s", "rtx4090", "48GiB")),  # 67 GiB of cache
    *(("llama32_3b", on, "hf") for on in ("h100", "a100", "l40s", "rtx4090", "48GiB")),
    *((name, on, "hf") for name in ("r1_distill_qwen_1_5b", "deepscaler_1_5b") for on in ("l40s", "rtx4090", "48GiB")),
}


def planned(name: str, on: str, *flags: str) -> Plan:
    return plan(read_request(["--config", f"{name}.yaml", *flags]).config, device(on))


@cache
def named(name: str, engine: str) -> Plan:
    return planned(name, "h100", "--engine.type", engine)


def moved(found: Plan, on: str) -> Plan:
    """The same run on another device."""
    where, sizes = device(on), found.sizes
    return replace(found, device=where, memory=sizes_memory(sizes, where), room=room(sizes, where))


def by_hand(found: Plan, name: str, memory: float) -> float:
    """GiB at the peak, by the shapes above."""
    parameters, adapter, layers, hidden, wide, vocabulary, cache, weight = MODELS[name]
    config = found.sizes.config
    held = parameters * weight + adapter * 4 * (1 + 1 + 2)  # weights, gradients, two moments of AdamW
    tokens = config.training.micro_batch_size * found.sizes.length
    block = (10 * hidden + 4 * wide) * weight
    kept = layers * hidden * weight + block if config.model.gradient_checkpointing else layers * block
    update = tokens * kept + min(tokens * vocabulary, 4096 * 8192) * (weight + 4)
    if config.engine.type == "vllm":
        return (held + update) / GIB + config.engine.gpu_memory * memory
    histories = min(config.training.rows, config.engine.max_rows)
    histories += config.engine.max_rows if config.prover.estimator == "auto" else 0  # sampled answers have their own
    cached = histories * found.sizes.length * cache
    stays = cached < memory * GIB / 8
    return (held + (update + cached if stays else max(update, cached))) / GIB


@pytest.mark.parametrize("on", MEMORY)
@pytest.mark.parametrize("engine", ["hf", "vllm"])
@pytest.mark.parametrize("name", MODELS)
def test_verdicts_are_those_of_arithmetic(name: str, engine: str, on: str) -> None:
    found, memory = moved(named(name, engine), on), MEMORY[on]
    expected = by_hand(found, name, memory)
    assert found.peak / GIB == pytest.approx(expected, rel=0.02)
    parameters, *_, cache_bytes, weight = MODELS[name]
    least = 1.5 + (parameters * weight + found.sizes.length * cache_bytes) / GIB  # of vLLM: the weights, and one row
    holds = engine == "hf" or found.sizes.config.engine.gpu_memory * memory > least
    assert found.fits == (holds and expected < 0.95 * memory - 1)
    assert found.fits == ((name, on, engine) not in DOES_NOT_FIT)
    assert found.verdict().startswith("fits" if found.fits else "does not fit")


@pytest.mark.parametrize(("rows", "stays"), [("64", True), ("1024", False)])
def test_a_small_cache_stays_on_a_cpu_too(rows: str, stays: bool) -> None:
    found = planned("tiny", "here", "--training.problems_per_step", rows, "--engine.max_rows", rows)
    cached, update = found.memory["KV cache"], found.memory["activations"] + found.memory["logits"]
    assert (cached < 2**29) is stays
    assert sum(found.memory.values()) - found.peak == (0 if stays else min(cached, update))


def test_sampled_answers_have_histories_also_where_a_step_has_few_rows() -> None:
    def rows(*flags: str) -> float:
        found = planned("smollm2_135m", "h100", "--training.problems_per_step", "2", *flags)
        return found.memory["KV cache"] / (found.sizes.length * MODELS["smollm2_135m"][-2])

    assert rows() == 16 + 128
    assert rows("--prover.estimator", "likelihood") == 16
    turns = read_request(["--config", "smollm2_135m.yaml"]).config.protocol.max_turns
    assert rows("--prover.estimator", "greedy", "--training.group_size", "4") == 8 + 8 * (turns + 1)


@pytest.mark.parametrize(("name", "on", "engine"), sorted(DOES_NOT_FIT))
def test_advice_makes_it_fit(name: str, on: str, engine: str) -> None:
    verdict = moved(named(name, engine), on).verdict()
    if "It fits with " in verdict:
        advised = verdict.partition("It fits with ")[2].rstrip(".").split()
        assert planned(name, on, "--engine.type", engine, *advised).fits
    else:
        assert (name, on, engine) == ("llama31_8b", "rtx4090", "vllm")  # two copies of the weights are 30 GiB
        assert "engine.server" in verdict
        assert "fsdp.yaml" not in verdict  # each process has both copies until training begins


def test_a_step_of_8b_on_one_h100_waits_for_the_cache() -> None:
    """256 histories of 2,156 tokens are 67 GiB; vLLM's share holds fewer, and they are read again."""
    found = planned("llama31_8b", "h100")
    per_row = found.sizes.length * MODELS["llama31_8b"][-2]
    assert 256 * per_row / GIB == pytest.approx(67, abs=1)
    assert found.room == int((0.4 * 79.647 * GIB - 2 * 8_030_261_248 - 1.5 * GIB) // per_row)
    assert f"{found.room} of 256 have room" in "\n".join(found.lines())
    again = planned("llama31_8b", "h100", "--engine.max_rows", str(found.room))
    assert "have room" not in "\n".join(again.lines())
    assert found.seconds is not None
    exact = named("llama31_8b", "hf").seconds
    assert exact is not None
    assert found.seconds.update == pytest.approx(exact.update)  # the mismatch is read off the loss's own pass


def test_the_exit_code_is_the_verdict() -> None:
    config = ["train", "--config", "llama31_8b.yaml", "--dry-run"]
    small, large = command(*config, "RTX4090"), command(*config, "B200")
    assert (small.returncode, large.returncode) == (1, 0)
    assert "verdict           does not fit: " in small.stdout
    assert "verdict           fits: " in large.stdout


@pytest.mark.parametrize(("name", "memory"), [("48GiB", 48 * GIB), ("24 GB", 24 * 10**9), ("B200", 183_359 * 2**20)])
def test_devices_by_their_memory(name: str, memory: int) -> None:
    assert device(name).memory == memory
    with pytest.raises(UserError, match="no such device"):
        device("48GiBs")


def test_the_clock_agrees_with_published_speeds() -> None:
    """docs/scale.md has the sources."""
    network, h100 = named("llama31_8b", "hf").sizes.network, device("h100")
    network = replace(network, adapter=0)
    trained = 8192 / Clock(network, h100, "bfloat16", ON_GPU).reading(8192, 4096, passes=4)  # 2 backwards, 1 recomputed
    assert trained == pytest.approx(5762, rel=0.05)
    a100 = replace(device("a100"), bandwidth=1.555e12)  # the one of 40 GB
    assert 1 / Clock(network, a100, "bfloat16", VLLM).decoding(1, 1, 1, 1088) == pytest.approx(75, rel=0.25)


def decoded(clock: Clock, rows: int, prompt: int, new: int) -> float:
    """Seconds of a call of groups of 8: prompts are read once a group, then all rows sample."""
    read = rows / 8 * prompt
    return clock.reading(read, prompt / 2, batches=ceil(read / PACK)) + clock.decoding(rows, 256, new, prompt + new / 2)


MEASURED = {  # config, dtype: what was done on an H200, and the seconds that it took (docs/gpu.md)
    ("tiny", "float32", "256 × 48 tokens"): (lambda c: decoded(c, 256, 120, 48), 256 * 48 / 108_750),
    ("tiny", "float32", "update"): (lambda c: c.reading(2400, 75, 2, 2) + 2 * c.overhead.batch, 0.10),
    ("tiny", "bfloat16", "update"): (lambda c: c.reading(2400, 75, 2, 2) + 2 * c.overhead.batch, 0.12),
    ("smollm2_135m", "bfloat16", "256 × 48 tokens"): (lambda c: decoded(c, 256, 120, 48), 256 * 48 / 14_000),
    ("smollm2_135m", "float32", "256 × 48 tokens"): (lambda c: decoded(c, 256, 120, 48), 256 * 48 / 14_050),
    ("llama31_8b", "bfloat16", "rollout"): (lambda c: decoded(c, 32, 26, 486), 10.0),
    ("llama31_8b", "bfloat16", "prover"): (lambda c: c.reading(320, 512, 1, 1) + c.decoding(320, 256, 64, 544), 4.9),
    ("llama31_8b", "bfloat16", "update"): (lambda c: c.reading(16_384, 256, 3, 8) + 8 * c.overhead.batch, 3.8),
}


@pytest.mark.parametrize(("name", "dtype", "part"), MEASURED)
def test_the_clock_agrees_with_what_was_measured(name: str, dtype: str, part: str) -> None:
    config = read_request(["--config", f"{name}.yaml", "--engine.type", "hf", "--model.dtype", dtype]).config
    on = device("h200")
    clock = Clock(plan(config, on).sizes.network, on, dtype, ON_GPU)
    work, seconds = MEASURED[name, dtype, part]
    assert 1 / 1.5 < seconds / work(clock) < 1.5


def test_every_overhead_costs() -> None:
    """Each by its own: the plan is the roofline, and what is named on top of it."""
    on = device("h100")
    clock = Clock(Network(matrix=10**9, read=2 * 10**9, cache=10**5, layers=10, width=10**4), on, "bfloat16", ON_GPU)
    least = clock.ideal
    assert least.reading(4096, 10, 3) == pytest.approx(3 * clock.network.forward(4096, 10) / on.bfloat16)
    assert least.decoding(1, 1, 100, 0) == pytest.approx(100 * 2e9 / on.bandwidth)
    for name, calls in {"host": 2, "capture": 2, "kernels": 100, "step": 100}.items():
        alone = replace(clock, overhead=replace(least.overhead, **{"capture": 1e-9, name: 1.0}))
        layers = 1 if name == "step" else 10
        assert alone.decoding(1, 1, 100, 0) - least.decoding(1, 1, 100, 0) == pytest.approx(calls * layers)
    slow = replace(clock, overhead=replace(least.overhead, host=1.0))
    assert slow.reading(4096, 10, passes=3, batches=2) == 3 * 2 * 10  # Python is the slower one
    beside = replace(least, network=replace(least.network, adapter=10**9))
    assert beside.reading(10, 0) - least.reading(10, 0) == pytest.approx(10 * 1e9 / on.bandwidth)


def test_without_a_speed_there_is_no_time() -> None:
    assert "the speed of 48GiB is not known" in "\n".join(planned("tiny", "48GiB").lines())
