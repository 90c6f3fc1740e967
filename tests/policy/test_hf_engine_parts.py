"""The parts of the Hugging Face engine by themselves: cached rows and their memory, packing, branches, randomness."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from support.engine_subjects import FREE, random_llama, requests

from backtrack_mrt.errors import Collapsed
from backtrack_mrt.policy.hf import engine as engine_module
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.kv_cache import CacheRow, RowCache, RowIndex, common_prefix
from backtrack_mrt.policy.hf.packed_forward import PACK, Branches, packs
from backtrack_mrt.policy.hf.plain_engine import PlainEngine
from backtrack_mrt.policy.sampling import BLOCK, draw, uniforms
from backtrack_mrt.types import Request, Sampling, TokenIds

ids_strategy = st.lists(st.integers(0, 2), max_size=8).map(tuple)


@settings(max_examples=50)
@given(ids_strategy, ids_strategy)
def test_common_prefix(a: TokenIds, b: TokenIds) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(a, b) == expected


@settings(max_examples=50)
@given(st.lists(ids_strategy, max_size=6), ids_strategy.filter(bool))
def test_index_finds_the_longest_match(rows: list[TokenIds], prefix: TokenIds) -> None:
    index = RowIndex([CacheRow(i, ids) for i, ids in enumerate(rows[::2])])
    for i, ids in enumerate(rows[1::2]):
        index.add(CacheRow(100 + i, ids))
    common, holders = index.find(prefix)
    assert common == max((min(common_prefix(prefix, ids), len(prefix) - 1) for ids in rows), default=0)
    assert bool(holders) == bool(rows)
    assert all(common_prefix(prefix, row.ids) >= common for row in holders)


@pytest.mark.parametrize("block", [1, 16])
def test_more_rows_take_the_memory_of_what_the_others_hold(block: int) -> None:
    cache = RowCache(max_rows=128, block=block)

    def place(first: int) -> list[CacheRow]:
        prefixes = [(number,) * 20 for number in range(first, first + 64)]
        return cache.place(prefixes, cache.claim(prefixes))

    rows = place(0)
    cache.reserve(512)
    cache.open(1, kv_heads=4, depth=64, like=torch.zeros(()))
    for row in rows:
        row.ids = (row.index,) * 20
        cache.buffers[0][:, row.index, :, : 32 // block] = row.index
    whole = cache.size // getpagesize()
    before = getrusage(RUSAGE_SELF).ru_minflt
    place(64)
    assert len(cache.rows) == 128
    assert getrusage(RUSAGE_SELF).ru_minflt - before < whole / 4
    assert all((cache.buffers[0][:, row.index, :, : 20 // block] == row.index).all() for row in rows)


@pytest.mark.skipif(
    "linux" not in sys.platform or Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2",
    reason="a system that promises no more than it has",
)
def test_room_that_may_never_be_used_may_be_more_than_there_is() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * getpagesize()
    cache = RowCache(max_rows=1, block=16)
    cache.place([(1, 2)], cache.claim([(1, 2)]))
    cache.reserve(2 * memory // (2 * 4 * 64 * 4))
    cache.open(1, kv_heads=4, depth=64, like=torch.zeros(()))
    assert cache.size > memory


@settings(max_examples=50)
@given(st.lists(st.integers(1, 3000), max_size=40))
def test_packs_cover_all_rows_in_order(widths: list[int]) -> None:
    runs = list(packs(widths))
    assert [i for run in runs for i in run] == list(range(len(widths)))
    for run in runs:
        tokens, widest = sum(widths[i] for i in run), max(widths[i] for i in run)
        assert len(run) == 1 or (tokens <= PACK and widest * len(run) <= 2 * tokens)


def test_branches_share_their_beginnings() -> None:
    tree = Branches(length=5)
    first, second, third = tree.add(3, (7, 8, 9)), tree.add(3, (7, 8, 1)), tree.add(4, (7, 8))
    assert (first, second, third) == ([0, 1, 2], [0, 1, 3], [4, 5])
    assert tree.positions == [3, 4, 5, 5, 4, 5]
    assert tree.visible()[3].tolist() == [True, True, False, True, False, False]
    assert tree.visible()[5].tolist() == [False, False, False, False, True, True]


def test_uniforms_are_uniform_and_independent() -> None:
    values = uniforms(range(2000), 50)
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    histogram = torch.histc(values, bins=100, min=0, max=1)
    assert float(((histogram - 1000) ** 2 / 1000).sum()) < 149  # 99.9 % quantile, 99 degrees of freedom
    rows, steps = torch.corrcoef(values[:50]), torch.corrcoef(values.T)
    assert float(rows.fill_diagonal_(0).abs().max()) < 0.65
    assert float(steps.fill_diagonal_(0).abs().max()) < 0.1
    assert torch.equal(uniforms([7, -1, 1 << 80], 3)[0], uniforms([7], 9)[0, :3])  # nothing but seed and step counts


@settings(max_examples=50)
@given(st.integers(2, 3000) | st.sampled_from([4 * BLOCK, 4 * BLOCK + 1, 8 * BLOCK]), st.integers(0, 2**32 - 1))
def test_a_draw_is_the_inverse_cdf_whatever_the_vocabulary_and_the_other_rows(tokens: int, seed: int) -> None:
    """Up to the rounding of the sums; a token of probability 0 is never drawn, not even at the edges."""
    logits = 4 * torch.randn(6, tokens, generator=torch.Generator().manual_seed(seed))
    logits[:, :: 1 + seed % 3] = -torch.inf
    logits[:, 1] = 0.0
    uniform = torch.cat([torch.tensor([0.0, 1 - 2.0**-50], dtype=torch.float64), uniforms([seed], 4)[0]])
    drawn, logprobs = draw(logits, uniform, Sampling())
    probs = logits.softmax(-1).double()
    cdf = probs.cumsum(-1) / probs.sum(-1, keepdim=True)
    at = drawn[:, None]
    assert (probs.gather(1, at) > 0).all()
    assert (cdf.gather(1, at).squeeze(1) >= uniform - 1e-6).all()
    assert ((cdf - probs).gather(1, at).squeeze(1) <= uniform + 1e-6).all()
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(1, at).squeeze(1))
    assert torch.equal(draw(logits[3:4], uniform[3:4], Sampling())[0], drawn[3:4])


@pytest.mark.parametrize("tokens", [40, 8 * BLOCK + 1])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.0), Sampling(top_p=0.9)])
def test_logits_that_are_not_finite_draw_a_token_without_a_probability(tokens: int, sampling: Sampling) -> None:
    logits = torch.zeros(2, tokens)
    logits[1] = torch.nan
    drawn, logprobs = draw(logits, uniforms([3, 3], 1)[:, 0], sampling)
    assert (drawn < tokens).all()
    assert logprobs.isnan().tolist() == [False, True]


@pytest.mark.parametrize("engine", [HFEngine, partial(HFEngine, compiled=False), PlainEngine])
def test_finite_weights_with_logits_that_are_not_are_a_breakdown(engine: Any) -> None:
    model = random_llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
    asked = [Request((1, 2, 3), 4, seed) for seed in range(2)]
    with pytest.raises(Collapsed, match="logits are not finite"):
        engine(model, max_rows=2).generate(asked, Sampling())


@pytest.mark.parametrize(("more", "kept"), [(1, True), (0, False)])
def test_a_little_memory_of_a_cpu_is_kept_during_updates(
    more: int, kept: bool, policy: PeftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HFEngine(policy, max_rows=4)
    first = engine.generate(requests(3, 5), FREE)
    monkeypatch.setattr(engine_module, "KEPT_BY_CPU", engine._policy.size + more)
    for end in (engine.release, engine.sync):
        end()
        assert (engine._policy.size > 0) is kept
        assert [c.token_ids for c in engine.generate(requests(3, 5), FREE)] == [c.token_ids for c in first]
    engine.close()
    assert engine._policy.size == 0


@pytest.mark.parametrize("compiled", [True, False])
def test_weights_that_are_not_finite_leave_nothing_behind(compiled: bool, policy: PeftModel) -> None:
    """The memory of histories is used again, and a masked NaN would still be one."""
    asked = requests(3, 5)
    expected = HFEngine(policy, max_rows=4, compiled=compiled).generate(asked, FREE)
    weight = policy.get_base_model().model.layers[0].self_attn.v_proj.base_layer.weight
    engine, before = HFEngine(policy, max_rows=4, compiled=compiled), weight.detach().clone()
    for asks in (lambda: engine.generate(requests(3, 40), FREE), lambda: engine.score([(1, 2, 3) * 15], [(4, 5)])):
        with torch.no_grad():
            weight.fill_(float("nan"))
        engine.sync()
        with suppress(Collapsed):
            asks()
        with torch.no_grad():
            weight.copy_(before)
        engine.sync()
        assert [c.token_ids for c in engine.generate(asked, FREE)] == [c.token_ids for c in expected]
