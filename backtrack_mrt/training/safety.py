"""What keeps a training safe: whole checkpoints, no step from numbers that are not finite, stopping when asked to.

`SafeTrainer` comes before TRL's trainer in the bases of a class. It knows nothing of algorithms.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PrinterCallback, Trainer, TrainerState

from backtrack_mrt.errors import Collapsed, Interrupted
from backtrack_mrt.policy.whole import name_cut_layers, own_piece
from backtrack_mrt.runs import interrupts, processes
from backtrack_mrt.runs.checkpoints import Checkpoint
from backtrack_mrt.runs.out_of_memory import told_when_out_of_memory
from backtrack_mrt.runs.progress import progress
from backtrack_mrt.training.fixed_order import in_fixed_order
from backtrack_mrt.training.gradient_noise import GradientNoise, parts_together
from backtrack_mrt.training.trainer_setup import RunLog, Setup, step_is_over, whole_steps

MOST_SKIPPED = 3  # steps in a row; then the training ends
KEPT_BATCHES = 10  # of skipped steps, the newest

_BYTES_PER_PARAMETER = 4 + 2 * 4  # the parameter and AdamW's two moments, in float32 at most


class SafeTrainer(Trainer):
    """Mixed into TRL's trainers, whose methods of the same names it extends.

    title: of the progress bar. total: what there is to do, in steps, or in what the metrics `counted` count.
    first_step: steps that the run did before this training. record: what is saved with its checkpoints. Between two
    steps, and in a step's first update, it can be interrupted.
    seconds: of the step under way, by part.
    """

    model: Any
    state: TrainerState

    def __init__(
        self,
        setup: Setup,
        *,
        title: str,
        total: int,
        counted: Sequence[str] = (),
        first_step: int = 0,
        record: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.setup, self.run, self.run_config = setup, setup.run, setup.config
        self.first_step, self.record = first_step, record or {}
        self._shown, self._counted = partial(progress, total, title, counted=counted), counted
        self._batches: list[Mapping[str, Any]] = []  # the micro-batches of the update under way
        self._losses_finite = True
        self._skipped = 0  # steps, in a row
        self._left_out = False  # an update of the step under way
        self._step_began = 0, torch.get_rng_state()  # tokens seen, and random numbers: TRL shuffles the rows of a step
        self._output_dir: Path | None = None  # of the checkpoint under way
        self.seconds: dict[str, float] = {}
        self._noise = _gradient_noise(setup)
        self._log = RunLog(self.run, self.seconds, first_step)
        processes.join()
        name_cut_layers(setup.model)
        super().__init__(model=setup.model, processing_class=setup.tokenizer, callbacks=[self._log], **settings)

    def fit(self, checkpoint: Checkpoint | None = None) -> None:
        """Train to the end, from a checkpoint on if there is one. Whoever interrupts it finds the last whole step
        saved."""
        self.remove_callback(PrinterCallback)
        try:
            with self._shown(done=self._resumed_from(checkpoint)) as self._log.bar:
                self.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        except Interrupted:
            self.state.num_input_tokens_seen, random_state = self._step_began
            torch.set_rng_state(random_state)
            if self.step:
                self._save_checkpoint(self.model, None)
            raise

    def _resumed_from(self, checkpoint: Checkpoint | None) -> int:
        """What this training had done before, in units of the progress bar."""
        if not self._counted:
            return checkpoint.step - self.first_step if checkpoint else 0
        return sum(round(row[name]) for row in self.run.metrics() for name in self._counted)

    @property
    def step(self) -> int:
        """Whole steps of this training so far."""
        return whole_steps(self.args, self.state)

    @property
    def steps_done(self) -> int:
        """Whole steps of the run so far."""
        return self.first_step + self.step

    def recorded(self, step: int) -> Mapping[str, Any]:
        """What is saved with a checkpoint, for the run that goes on with it. step: the last whole one of this
        training; the one under way may have been interrupted."""
        return self.record

    def between_steps(self) -> float:
        """What is done after every step but the last. Returns the seconds that it took."""
        return self.setup.between_steps(self.steps_done)

    def note(self, batch: Mapping[str, Any]) -> None:
        """Remember a micro-batch until its update is done. The trainers call this before they compute its loss."""
        self._batches.append(batch)

    def training_step(self, *args: Any, **settings: Any) -> torch.Tensor:
        """A micro-batch's. A loss that is not finite counts as 0 in the sum that is logged at the end of the step: it
        would stay in that sum for good. `log` says what it was."""
        first = step_is_over(self.args, self.state)  # update of a step: until its end the last step's weights are there
        if first and not self._batches:
            self._step_began = self.state.num_input_tokens_seen, torch.get_rng_state()
            interrupts.common_safe_point()
            if self.step and (spent := self.between_steps()):
                self.seconds["evaluate"] = spent
        if first:
            interrupts.safe_point()
        settings_to_lower = ("training.micro_batch_size", "the protocol's token limits", "model.lora.r")
        fixed = in_fixed_order(self.run_config.training.deterministic)
        with told_when_out_of_memory(self._doing, settings_to_lower), fixed:
            loss: torch.Tensor = super().training_step(*args, **settings)
        if self._noise is not None and first:
            self._noise.see()
        finite = torch.isfinite(loss)
        self._losses_finite &= bool(finite)
        return torch.where(finite, loss, 0.0)

    def _get_grad_norm(self, *args: Any, **settings: Any) -> float | None:
        """After the last micro-batch, before the optimizer's step: here the step can still be left out."""
        norm: float | None = super()._get_grad_norm(*args, **settings)  # type: ignore[no-untyped-call]
        finite = self._losses_finite and (norm is None or math.isfinite(norm))
        if not all(processes.gathered([finite])):
            self._skip(norm)
        self._batches, self._losses_finite = [], True
        return norm

    def _skip(self, norm: float | None) -> None:
        """Leave out the update under way: without gradients AdamW changes nothing."""
        self.model.zero_grad(set_to_none=True)
        self._skipped += 0 if self._left_out else 1
        self._left_out = True
        step = self.steps_done + 1
        self._dump(step, norm)
        if self._skipped == MOST_SKIPPED:
            raise Collapsed(
                f"{MOST_SKIPPED} steps in a row had numbers that are not finite, the last one step {step}",
                f"Their batches are in {self.run.skipped}. Lower training.learning_rate, or take model.dtype float32. "
                "The weights of the checkpoints are finite.",
            )

    @processes.main_only
    def _dump(self, step: int, norm: float | None) -> None:
        """Keep the micro-batches of a skipped step, as tensors `{micro-batch}.{name}`, and say so."""
        self.run.skipped.mkdir(exist_ok=True)
        for old in sorted(self.run.skipped.iterdir())[: 1 - KEPT_BATCHES]:
            old.unlink()
        tensors = {
            f"{number}.{name}": value.clone(memory_format=torch.contiguous_format)
            for number, batch in enumerate(self._batches)
            for name, value in batch.items()
            if isinstance(value, torch.Tensor)
        }
        path, reason = self.run.skipped / f"step_{step:06d}.safetensors", _not_finite(self._batches)
        save_file(tensors, path, {"reason": reason, "grad_norm": str(norm)})
        processes.tell(f"step {step} is skipped: {reason}; its batch: {path}", file=sys.stderr)

    def log(self, logs: dict[str, float], *args: Any, **settings: Any) -> None:
        """To the trackers and the run's log."""
        if "loss" in logs:
            if self._noise is not None:
                self.seconds["noise"] = self._noise.seconds
                logs |= self._noise.taken()
            logs["skipped"] = float(self._left_out)
            if self._left_out:
                logs["loss"] = math.nan
            else:
                self._skipped = 0
            self._left_out = False
        super().log(logs, *args, **settings)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The trainer's checkpoint, whole or not at all. Every process adds the state of its random numbers."""
        step, trained = self.steps_done, [p for p in self.model.parameters() if p.requires_grad]
        finite = all(bool(own_piece(p).isfinite().all()) for p in trained)
        if not all(processes.gathered([finite])):
            raise Collapsed(f"the weights after step {step} are not finite", "Lower training.learning_rate.")
        if not self.setup.checkpoints.saved(step):
            needed = _BYTES_PER_PARAMETER * sum(getattr(p, "ds_numel", p.numel()) for p in trained)
            self.setup.checkpoints.save(step, self._write_checkpoint, self.recorded(self.step), needed)

    def _write_checkpoint(self, folder: Path) -> None:
        processes.wait()  # the main process has made the folder
        self._output_dir = folder
        super()._save_checkpoint(self.model, None)
        self._output_dir = None
        processes.wait()
        _unpack(folder / f"checkpoint-{self.state.global_step}")

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._output_dir or super()._get_output_dir(trial))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL would write one beside the checkpoints."""

    def _doing(self) -> str:
        if not self._batches:
            return f"preparing step {self.steps_done + 1}"
        rows, tokens = 0, 0
        for name, value in self._batches[-1].items():
            if name.endswith("_ids") and isinstance(value, torch.Tensor):
                rows, tokens = value.size(0), tokens + value.size(1)
        return f"updating on {rows} rows of {tokens} tokens"


def _gradient_noise(setup: Setup) -> GradientNoise | None:
    """None where the parts of a gradient are not to be had: several processes sum theirs at the end of an update, a
    launcher that cuts the model up keeps them elsewhere, a second copy of those of a whole model is too large, and an
    update of fewer than two parts (self-training in one micro-batch) tells nothing."""
    if processes.count() > 1 or processes.sharding() or setup.config.model.full_finetuning:
        return None
    training, rl = setup.config.training, setup.config.algorithm.loss == "rl"
    together = parts_together(training.group_size, training.micro_batch_size) if rl else 1
    rows = setup.config.rows_per_update
    if rows // min(training.micro_batch_size, rows) < 2 * together:
        return None
    return GradientNoise([p for p in setup.model.parameters() if p.requires_grad], together)


@processes.main_only
def _unpack(nested: Path) -> None:
    """Move what is in a directory into the one around it."""
    for path in nested.iterdir():
        shutil.move(path, nested.parent)
    nested.rmdir()


def _not_finite(batches: list[Mapping[str, Any]]) -> str:
    """What is not finite, told by the batches; the loss or the gradients if these are."""
    for batch in batches:
        for name, value in batch.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
                return f"{name} is not finite"
    return "the loss or a gradient is not finite"
