"""Every architecture is served exactly, by the fast engine or the slow one, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.architectures import CACHED, PLAIN, REFUSED, SHAPE, random_model
from transformers import Phi3Config

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.arithmetic import step_at
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.hf.plain_engine import PlainEngine
from backtrack_mrt.policy.hf.trial import ordinary_tokens, serving_engine, too_far
from backtrack_mrt.types import Request, Sampling


@pytest.mark.parametrize("name", CACHED)
def test_what_is_served_passes_and_is_not_changed(name: str) -> None:
    model = random_model(CACHED[name]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert serving_engine(model, "mine") is HFEngine
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", PLAIN)
def test_the_slow_engine_is_exact_where_the_fast_one_is_not(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model(PLAIN[name])
    assert serving_engine(model, "mine") is PlainEngine
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "slower" in told
    engine = PlainEngine(model, max_rows=2)
    asked = [Request(tuple(range(3, 3 + length)), 9, seed) for seed, length in enumerate((1, 7, 7, 7, 12))]
    for request, done in zip(asked, engine.generate(asked, Sampling(0.8)), strict=True):
        ids = request.prefix_ids + done.token_ids
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
        scores = engine.score([request.prefix_ids], [done.token_ids])[0]
        for temperature, found in ((0.8, done.logprobs), (1.0, scores)):
            rows = (logits / temperature).log_softmax(-1)[-len(done.token_ids) :]
            truth = [float(row[token]) for row, token in zip(rows, done.token_ids, strict=True)]
            np.testing.assert_allclose(found, truth, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match="its architecture bert is not served") as error:
        serving_engine(random_model(REFUSED[name]), "mine")
    assert "\n" not in str(error.value)
    assert "vllm" in error.value.remedy


def test_a_difference_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(CACHED["llama"])
    score = HFEngine.score
    monkeypatch.setattr(HFEngine, "score", lambda *args: [scores - 0.01 for scores in score(*args)])
    assert serving_engine(model, "mine") is PlainEngine


def test_long_rope_is_used_up_to_where_its_angles_change() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 64
    config = Phi3Config(**SHAPE | {"max_position_embeddings": 256}, rope_parameters=rope)
    config.original_max_position_embeddings = 64
    for kind in (HFEngine, PlainEngine):
        engine = kind(random_model(config), max_rows=2)
        assert engine.context_length == 64
        with pytest.raises(ValueError, match="exceed the context of 64"):
            engine.score([(1,) * 60], [(2,) * 5])


def test_large_logits_of_a_short_type_are_rounded_more_and_served_all_the_same() -> None:
    """A trained model's reach 30, where two right ways of computing differ by tenths of a nat in bfloat16."""
    model = random_model(CACHED["experts"]).bfloat16()
    with torch.no_grad():
        model.lm_head.weight.mul_(32)
    assert serving_engine(model, "mine", compiled=False) is not PlainEngine
    ids = ordinary_tokens(model, 8)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    scores = logits.float().log_softmax(-1)[range(7), ids[1:]].double().numpy()
    step = step_at(logits.float(), model.dtype)
    assert step > 0.2
    assert too_far(model, ids, scores + step) is None
    assert too_far(model, ids, scores - 20 * step) == f"log-probabilities are off by {20 * step:.2g}"
