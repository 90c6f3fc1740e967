"""The logits processor alone: what it draws as rows join, leave and move; and that it never waits for a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.engine_subjects import NEEDS_VLLM
from support.simulated_device import Placed, placed, simulated_device
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backtrack_mrt.policy.sampling import draw, uniforms
from backtrack_mrt.policy.vllm.jobs import Job, forced, sampled
from backtrack_mrt.types import Sampling

pytestmark = NEEDS_VLLM
WIDTH, STEPS = 1500, 6  # a vocabulary whose probabilities are summed in blocks
WAYS = [Sampling(), Sampling(0.7, 0.8), Sampling(0.0)]
ENDINGS = (3, 8, 21)


class Batch:
    """What vLLM keeps: requests by their place, each with its tokens so far. `named` says which is which."""

    def __init__(self, device: Any = "cpu", pins: bool = False) -> None:
        from backtrack_mrt.policy.vllm.draws import Draws

        self.draws = Draws(None, torch.device(device), pins)
        self.named: dict[int, int] = {}
        self.output_ids: dict[int, list[int]] = {}

    def changed(self, added: dict[int, int], removed: tuple[int, ...] = (), moved: tuple[Any, ...] = ()) -> None:
        """`added`: which request joins at which place."""
        from vllm.v1.sample.logits_processor import BatchUpdate

        from backtrack_mrt.policy.vllm.draws import params_of

        for place in removed:
            del self.named[place]
        self.named |= added
        self.output_ids |= {name: [] for name in added.values()}
        rows = [(place, params_of(job(name)), [], self.output_ids[name]) for place, name in added.items()]
        for one, other, kind in moved:
            pair = self.named.pop(one), self.named.pop(other, None)
            self.named[other] = pair[0]
            if kind.name == "SWAP":
                self.named[one] = pair[1]
        self.draws.update_state(BatchUpdate(8, removed, rows, moved))

    def step(self, logits: Tensor) -> Tensor:
        """The processed logits; the likeliest token is added, as vLLM does."""
        found = self.draws.apply(logits)
        for place, name in self.named.items():
            self.output_ids[name].append(int(held(found)[place].argmax()))
        self.draws.update_state(None)
        return found


def held(tensor: Tensor) -> Tensor:
    """Its numbers, wherever it is."""
    return tensor.held if isinstance(tensor, Placed) else tensor


def job(name: int) -> Job:
    """Requests that are drawn in three ways, and forced ones."""
    if name % 4 == 3:
        return Job((1,), STEPS, forced(range(name, name + STEPS), ENDINGS if name > 4 else ()))
    return Job((1,), STEPS, sampled(name, WAYS[name % 4]))


def told(name: int, number: int, logits: Tensor) -> tuple[int, Tensor]:
    """What a request is to be given as its token `number` from its logits (V,): by the HF engine's own function."""
    if name % 4 == 3:
        ends = name > 4 and number == STEPS - 1
        chosen = logits[list(ENDINGS)].logsumexp(-1) if ends else logits[name + number]
        return name + number, chosen - logits.logsumexp(-1)
    token, logprob = draw(logits[None], uniforms([name], STEPS)[:, number], WAYS[name % 4])
    return int(token), logprob[0]


def played(batch: Batch, place: Any = lambda logits: logits) -> None:
    """Six steps of a batch that changes, every row held to its own truth to the bit."""
    from vllm.v1.sample.logits_processor import MoveDirectionality

    torch.manual_seed(0)
    changes: dict[int, Any] = {
        0: ({0: 0, 1: 1, 2: 2, 3: 7, 5: 4},),
        1: ({4: 3, 6: 6}, (1,)),
        3: ({}, (), ((0, 3, MoveDirectionality.SWAP), (6, 1, MoveDirectionality.UNIDIRECTIONAL))),
        4: ({7: 5}, (2, 4)),
    }
    for number in range(STEPS):
        if number in changes:
            batch.changed(*changes[number])
        logits, before = torch.randn(8, WIDTH), {name: len(ids) for name, ids in batch.output_ids.items()}
        found = held(batch.step(place(logits.clone())))
        for row in range(8):
            if row not in batch.named:
                assert found[row].equal(logits[row]), "no request of ours"
                continue
            token, logprob = told(batch.named[row], before[batch.named[row]], logits[row])
            assert found[row].isfinite().nonzero().tolist() == [[token]]
            assert found[row, token] == logprob


def test_every_row_has_its_own_tokens_as_rows_join_leave_and_move() -> None:
    played(Batch())


class Pinned(TorchFunctionMode):
    """`torch.tensor` notes what it was to pin, which without a driver nothing can."""

    def __init__(self, seen: list[Tensor]) -> None:
        self.seen = seen
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        pins = kwargs.pop("pin_memory", False)
        made = func(*args, **kwargs)
        if func is torch.tensor and pins:
            self.seen.append(made)
        return made


class NeverWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: a copy that blocks or is not from pinned memory, an index that is on
    the CPU, a number read back."""

    def __init__(self, pinned: list[Tensor]) -> None:
        self.pinned, self.copies = pinned, 0
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        here = [isinstance(leaf, Placed) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name == "_to_copy" and kwargs.get("device") is not None:
            assert kwargs.get("non_blocking"), "a copy that blocks"
            assert any(args[0] is each for each in self.pinned), "a copy from memory that is not pinned"
            self.copies += 1
        elif any(here):
            assert all(here), f"{name} with a tensor on the CPU"
            assert name not in ("_local_scalar_dense", "nonzero", "item"), name
        return func(*args, **kwargs)


def test_it_never_waits_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []
    with simulated_device(monkeypatch) as device:
        batch, watch = Batch(device, pins=True), NeverWaiting(pinned)
        for name in ("apply", "update_state"):
            work = getattr(batch.draws, name)

            def watched(*args: Any, work: Any = work) -> Any:
                with watch, Pinned(pinned):
                    return work(*args)

            monkeypatch.setattr(batch.draws, name, watched)
        played(batch, placed)
    assert watch.copies > STEPS
