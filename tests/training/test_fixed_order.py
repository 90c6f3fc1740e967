"""training.deterministic: what happens around an update; that runs repeat is shown on a GPU (docs/gpu.md)."""

from __future__ import annotations

import os

import pytest
import torch

from backtrack_mrt.errors import RunError
from backtrack_mrt.runs import environment
from backtrack_mrt.training.fixed_order import in_fixed_order


@pytest.mark.parametrize(("gpu", "wanted"), [(True, True), (True, False), (False, True)])
def test_only_a_gpu_is_told_and_only_within_the_block(gpu: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with in_fixed_order(wanted):
        assert torch.are_deterministic_algorithms_enabled() is (gpu and wanted)
    with pytest.raises(KeyError), in_fixed_order(wanted):
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_an_operation_without_such_a_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RunError, match=r"put_.*training\.deterministic to false"), in_fixed_order(True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    with pytest.raises(RuntimeError, match="shape"), in_fixed_order(True):
        torch.zeros(3).view(2)


def test_cublas_repeats_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    environment.prepare()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    environment.prepare()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
