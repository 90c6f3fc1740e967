"""The compiled forward pass: the modules' numbers, the same in any batch, and nothing lost where it is not there."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from ctypes import CDLL
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.decoders import LLAMA, SERVED, SHAPE, VOCABULARY, model_of
from transformers import LlamaConfig

from backtrack_mrt.policy.hf import kernels
from backtrack_mrt.policy.hf.compiled import CompiledDecoder, code_for
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.trial import serving_engine
from backtrack_mrt.types import Completion, Request, Sampling, TokenIds

FREE = Sampling()
NOT_SERVED = {
    "small heads": LlamaConfig(**SHAPE, head_dim=4),
    "another activation": LlamaConfig(**SHAPE, head_dim=32, hidden_act="gelu"),
}

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler")


def played(engine: HFEngine, groups: int = 3, members: int = 3) -> list[tuple[TokenIds, tuple[Completion, ...]]]:
    """Ragged turns of groups, with a word from outside between them: each history and what was drawn in it."""
    chance = random.Random(0)
    histories = [tuple(chance.choices(range(VOCABULARY), k=17 + 9 * p)) for p in range(groups) for _ in range(members)]
    drawn: list[list[Completion]] = [[] for _ in histories]
    for turn in range(3):
        asked = [Request(ids, 3 + (5 * row + turn) % 11, 10 * row + turn) for row, ids in enumerate(histories)]
        for row, done in enumerate(engine.generate(asked, FREE)):
            drawn[row].append(done)
            histories[row] = (*histories[row], *done.token_ids, *range(1, 2 + (row + turn) % 4))
    return [(ids, tuple(done)) for ids, done in zip(histories, drawn, strict=True)]


def forced(histories: list[TokenIds]) -> tuple[list[TokenIds], list[TokenIds]]:
    prefixes = [(*ids[:cut], 7, 8) for ids in histories for cut in (16, 20, len(ids))]
    return prefixes * 2, [(3, 4, 5)] * len(prefixes) + [(3, 9)] * len(prefixes)


@torch.no_grad()
def plain(model: Any, prefix: TokenIds, continuation: TokenIds) -> np.ndarray:
    rows = model(torch.tensor([prefix + continuation]), use_cache=False).logits[0].log_softmax(-1)
    at = range(len(prefix) - 1, len(prefix) + len(continuation) - 1)
    return np.array([float(rows[i, token]) for i, token in zip(at, continuation, strict=True)])


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("adapter", [True, False])
def test_the_numbers_are_the_models(kind: str, adapter: bool) -> None:
    model = model_of(SERVED[kind], adapter)
    engine = HFEngine(model, max_rows=9)
    assert engine._policy.compiled is not None
    assert serving_engine(model, "mine") is HFEngine
    trajectories = played(engine)
    for ids, turns in trajectories[::4]:
        start = next(i for i in range(len(ids)) if ids[i : i + len(turns[0].token_ids)] == turns[0].token_ids)
        truth = plain(model, ids[:start], turns[0].token_ids)
        np.testing.assert_allclose(turns[0].logprobs, truth, atol=1e-4)
    prefixes, answers = forced([ids for ids, _ in trajectories])
    scores = engine.score(prefixes, answers)
    for i in range(0, len(prefixes), 5):
        np.testing.assert_allclose(scores[i], plain(model, prefixes[i], answers[i]), atol=1e-4)
    assert played(HFEngine(model, max_rows=9, compiled=False))[4][1][2].token_ids == trajectories[4][1][2].token_ids
    if adapter:
        with engine.reference(), model.disable_adapter():
            np.testing.assert_allclose(
                engine.score([(1, 2, 3)], [(4, 5)])[0], plain(model, (1, 2, 3), (4, 5)), atol=1e-4
            )


def test_the_same_bits_in_any_batch_and_with_any_number_of_threads() -> None:
    model, threads = model_of(LLAMA), torch.get_num_threads()
    together = played(HFEngine(model, max_rows=9))
    assert played(HFEngine(model, max_rows=2)) == together
    try:
        torch.set_num_threads(3)
        assert played(HFEngine(model, max_rows=4)) == together
    finally:
        torch.set_num_threads(threads)


def test_beside_others_passes_have_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    code, free, threads = kernels.library(), [1], torch.get_num_threads()
    assert code
    monkeypatch.setattr(kernels, "cores", lambda: SimpleNamespace(free=free[0]))
    try:
        torch.set_num_threads(3)
        for free[0], given in ((1, 1), (2, 2), (8, 3)):
            with kernels.in_free_cores(code):
                assert code.set_threads(0) == given
            assert torch.get_num_threads() == code.set_threads(0) == 3
    finally:
        torch.set_num_threads(threads)


def test_full_weights_are_read_anew_after_a_sync() -> None:
    model = model_of(LLAMA, adapter=False)
    engine = HFEngine(model, max_rows=4)
    before = engine.score([(1, 2, 3)], [(4, 5)])[0]
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(0.5)
    engine.sync()
    after = engine.score([(1, 2, 3)], [(4, 5)])[0]
    assert abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, plain(model, (1, 2, 3), (4, 5)), atol=1e-4)


@pytest.mark.parametrize("kind", NOT_SERVED)
def test_other_shapes_are_left_to_the_modules(kind: str) -> None:
    model = model_of(NOT_SERVED[kind])
    assert HFEngine(model, max_rows=2)._policy.compiled is None


def test_other_weights_are_left_to_the_modules() -> None:
    model = model_of(LLAMA)
    for changed in (model_of(LLAMA).to(torch.bfloat16), get_peft_model(model.unload(), LoraConfig(use_dora=True, r=2))):
        assert code_for(changed.get_base_model()) is None


def test_compiled_code_that_is_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = CompiledDecoder.forward
    monkeypatch.setattr(CompiledDecoder, "forward", lambda *args: forward(*args).roll(1, -1))
    found = serving_engine(model_of(LLAMA), "mine")
    assert isinstance(found, partial)
    assert found.keywords == {"compiled": False}
    assert "off by" in capsys.readouterr().err


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing is compiled yet; where compiled files will be kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernels.library.cache_clear()
    yield tmp_path / "cache"
    kernels.library.cache_clear()


@pytest.mark.parametrize(("compiler", "why"), [("/nowhere/cc", "No such file"), ("false", "exit"), ("cc '", "quot")])
def test_without_a_compiler_the_modules_answer_and_one_line_says_why(
    anew: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], compiler: str, why: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    model = model_of(LLAMA)
    done = played(HFEngine(model, max_rows=4))
    assert HFEngine(model, max_rows=4)._policy.compiled is None
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert why in told
    monkeypatch.undo()  # here is a compiler, and what it has compiled already
    kernels.library.cache_clear()
    assert [ids for ids, _ in played(HFEngine(model, max_rows=4))] == [ids for ids, _ in done]


def compiler(folder: Path, does: str) -> str:
    """A program that does that."""
    file = folder / "compiler"
    file.write_text(f"#!/bin/sh\n{does}\n")
    file.chmod(0o755)
    return str(file)


def test_the_compiler_s_own_words(
    anew: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does = "echo working >&2; echo \"clang: error: unsupported option '-fopenmp'\" >&2; exit 1"
    monkeypatch.setenv("CC", compiler(tmp_path, does))
    assert kernels.library() is None
    assert "(clang: error: unsupported option '-fopenmp'): steps take" in capsys.readouterr().err


def test_the_first_compiler_that_is_there_is_asked_with_and_without_native_code(
    anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[list[str]]()

    def compiled(command: list[str]) -> CDLL:
        asked.append(command)
        raise OSError("no")

    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(kernels, "_compiled", compiled)
    assert kernels.library() is None
    native, plain = asked
    assert native == [*plain, "-march=native"]


def test_one_that_does_not_end_is_asked_once(
    anew: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, f"echo >> {tmp_path}/asked; exec sleep 60"))
    monkeypatch.setattr(kernels, "_PATIENCE", 0.3)
    assert kernels.library() is None
    assert "(it takes more than 0.3 seconds)" in capsys.readouterr().err
    assert (tmp_path / "asked").read_text() == "\n"


def test_compiled_once_and_kept(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.library() is not None
    (kept,) = (anew / "backtrack-mrt").iterdir()
    monkeypatch.setattr(kernels, "_build", lambda *_: pytest.fail("compiled again"))
    kernels.library.cache_clear()
    assert kernels.library() is not None
    assert list((anew / "backtrack-mrt").iterdir()) == [kept]


def test_half_of_a_kept_file_is_not_loaded(anew: Path) -> None:
    """The system kills a process that runs code behind a file's end."""
    assert kernels.library() is not None
    (kept,) = (anew / "backtrack-mrt").iterdir()
    whole = kept.read_bytes()
    kept.unlink()  # in this process it stays loaded
    kept.write_bytes(whole[: len(whole) // 2])
    kernels.library.cache_clear()
    assert kernels.library() is not None
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written(anew: Path) -> None:
    anew.write_text("a file where the folder should be")
    assert kernels.library() is not None


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    kernels.library.cache_clear()
    assert kernels.library() is not None
    kernels.library.cache_clear()


def test_where_nothing_runs_in_tmp(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(file: str) -> CDLL:
        if Path(file).is_relative_to(anew):
            return CDLL(file)
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(kernels, "CDLL", load)
    assert kernels.library() is not None


@pytest.mark.parametrize("kind", ["llama", "scaled rope", "rope by length"])
def test_positions_are_turned_as_by_the_model(kind: str) -> None:
    """To the bit; a rope that depends on the longest position of a pass does so here, too."""
    factors = {"short_factor": [1.0] * 16, "long_factor": [4.0] * 16, "original_max_position_embeddings": 64}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    by_length = LlamaConfig(**SHAPE, head_dim=32, rope_parameters=rope)
    decoder = model_of({**SERVED, "rope by length": by_length}[kind], adapter=False)
    compiled = CompiledDecoder(decoder, kernels.library(), adapted=False)
    like = torch.zeros(())
    for positions in ([3, 0, 40], [700, 2], [5, 511]):
        at = torch.tensor(positions)
        expected = [each[0] for each in decoder.model.rotary_emb(like[None], at[None])]
        assert all(map(torch.equal, compiled._turned(at, like), expected))
