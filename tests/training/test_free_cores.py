"""A run has as many threads as there are free cores; its numbers do not tell how many these were."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
import torch
from support.short_runs import assert_same_run, request

from backtrack_mrt.policy.hf import kernels
from backtrack_mrt.training.train import train


class Coming:
    """Other programs come and go at every look."""

    def __init__(self) -> None:
        self._free, self.seen = cycle((1, 2)), set[int]()

    @property
    def free(self) -> int:
        self.seen.add(torch.get_num_threads())
        return next(self._free)


@pytest.mark.skipif(kernels.library() is None, reason="no C compiler")
def test_the_same_bits_whatever_comes_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, others, short = torch.get_num_threads(), Coming(), ("--training.steps", "2", "--data.eval_size", "4")
    try:
        torch.set_num_threads(1)
        train(request(tmp_path / "alone", *short))
        torch.set_num_threads(2)
        monkeypatch.setattr(kernels, "cores", lambda: others)
        train(request(tmp_path / "beside", *short))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert_same_run(tmp_path / "alone", tmp_path / "beside")
    assert others.seen == {1, 2}  # torch has those that the code has
