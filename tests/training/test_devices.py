"""The update on a device of its own, without one: nothing in it may mix devices, and the numbers are the CPU's."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.fixed_rollouts import FixedCollector, make_setup
from support.simulated_device import DEVICE, Placed, place, placed, simulated_device

from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.training.packing import packed_attention
from backtrack_mrt.training.rl import PolicyTrainer


def updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool, packs: bool, lora: bool) -> Any:
    """Loss and gradient of a batch, by the trainer on the CPU or on the simulated device: batch, regrouping, forward
    and backward pass."""
    setup, collector = make_setup(tmp_path), FixedCollector()
    if lora:
        torch.manual_seed(0)
        adapter = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        setup = replace(setup, model=get_peft_model(setup.model, adapter))
    collector.exact = False  # the correction computes, too
    trainer = PolicyTrainer(setup, problems=collector.problems, collector=cast(Collector, collector))
    assert trainer.packs
    trainer.packs, trainer.current_gradient_accumulation_steps = packs, 1  # set by `train`
    rows = next(iter(trainer.get_train_dataloader()))
    with monkeypatch.context() as patched, simulated_device(monkeypatch) if elsewhere else nullcontext():
        if elsewhere:
            place(setup.model)
            patched.setattr(type(trainer.accelerator), "device", property(lambda _: DEVICE))
            patched.setattr(type(trainer.args), "device", property(lambda _: DEVICE))
        with packed_attention(setup.model.config) if packs else nullcontext():
            loss = trainer.compute_loss(setup.model, trainer._prepare_inputs(rows))
            loss.backward()
        assert isinstance(loss, Placed) == elsewhere
        gradient = {name: weight.grad for name, weight in setup.model.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach(), **gradient}


@pytest.mark.parametrize(("packs", "lora"), [(True, True), (True, False), (False, False)])
def test_the_update_mixes_no_devices(packs: bool, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = updated(tmp_path, monkeypatch, elsewhere=False, packs=packs, lora=lora)
    there = updated(tmp_path, monkeypatch, elsewhere=True, packs=packs, lora=lora)
    assert here.keys() == there.keys()
    assert all(isinstance(found, Placed) for found in there.values())
    for name, found in here.items():
        torch.testing.assert_close(there[name].held, found, rtol=1e-4, atol=1e-6)


def test_mixing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_device(monkeypatch):
        there, here = placed(torch.ones(3)), torch.ones(3)
        for mixed in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        assert there.device == DEVICE == torch.zeros(2, device=there.device).device
        assert (there * 2 + torch.tensor([1, 2, 3], device=there.device)).tolist() == [3, 4, 5]
        assert there[torch.tensor([0, 2])].cpu().tolist() == [1, 1]
        assert float((there * torch.tensor(2.0)).sum()) == 6
