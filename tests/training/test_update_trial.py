"""The update scores the tokens of every architecture as the model itself does, packed or in padded rows."""

from __future__ import annotations

import pytest
import torch
from support.architectures import CACHED, PLAIN, SCORED_OTHERWISE, random_model
from trl.trainer.utils import add_fused_lm_head

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.arithmetic import evaluating
from backtrack_mrt.training.packing import aligned_rows, packable, packed_attention, packed_rows
from backtrack_mrt.training.update_trial import check_update

IDS = torch.tensor([[0, 0, 5, 6, 7, 8, 9, 10], [3, 4, 5, 6, 7, 11, 12, 0], [0, 9, 9, 8, 1, 1, 0, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 0, 0]])
COMPLETIONS = 4


@pytest.mark.parametrize("config", [*CACHED.values(), *PLAIN.values()], ids=[*CACHED, *PLAIN])
def test_scores_are_the_models(config):
    model = random_model(config)
    check_update(model, "mine")
    assert "forward" not in vars(model)
    assert packable(model) == (config in CACHED.values())
    expected = torch.zeros(3, COMPLETIONS)
    with torch.no_grad(), evaluating(model):
        for row, (ids, mask) in enumerate(zip(IDS, MASK, strict=True)):
            own, said = ids[mask.bool()], int(mask[-COMPLETIONS:].sum())
            logprobs = model(input_ids=own[None], use_cache=False).logits[0].log_softmax(-1)[:-1]
            expected[row, :said] = logprobs.gather(1, own[1:, None])[-said:, 0]
        add_fused_lm_head(model)
        rows = aligned_rows(IDS, MASK, COMPLETIONS)
        found = model(**rows.inputs(), shift_labels=rows.targets, fused_lm_head=True).log_probs.gather(1, rows.scored)
        spoken = MASK[:, -COMPLETIONS:]
        assert torch.allclose(found * spoken, expected, atol=1e-4)
        if packable(model):
            packed = packed_rows(IDS, MASK, COMPLETIONS, model)
            with packed_attention(model.config):
                scores = model(**packed.inputs(), shift_labels=packed.targets[None], fused_lm_head=True).log_probs[0]
            assert torch.allclose(scores[packed.scored] * spoken, expected, atol=1e-4)


def test_an_architecture_that_would_be_trained_on_something_else_is_one_line():
    model = random_model(SCORED_OTHERWISE)
    with pytest.raises(UserError, match=r"cannot be trained by TRL \(log-probabilities are off by") as error:
        check_update(model, "mine")
    assert "\n" not in str(error.value)
    assert "forward" not in vars(model)
