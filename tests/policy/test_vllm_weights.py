"""All weights of a model, given to a real vLLM server while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BARE, SPECIAL, byte_tokenizer
from support.engine_subjects import FREE, NEEDS_VLLM, random_llama, requests
from support.server_process import served
from transformers import LlamaForCausalLM

from backtrack_mrt.errors import UserError
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.vllm.remote import ServerEngine
from backtrack_mrt.policy.vllm.servers import Servers

pytestmark = NEEDS_VLLM


def test_a_server_answers_by_the_weights_that_it_was_given_last(tmp_path: Path) -> None:
    """Whatever its prefix cache holds; and those of another model leave it as it is."""
    model = random_llama().eval()
    model.save_pretrained(tmp_path)
    byte_tokenizer(BARE, SPECIAL[BARE]).save_pretrained(tmp_path)
    asked = [replace(r, prefix_ids=tuple((k + 3 * i) % 36 for i in range(40))) for k, r in enumerate(requests(4))]
    seen = []
    with served(tmp_path, whole=True) as url:
        engine = ServerEngine(model, Servers([url], 6), max_rows=6)
        for factor in (1.0, 0.8, 1.3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(factor)
            engine.sync()
            drawn, truth = (each.generate(asked, FREE) for each in (engine, HFEngine(model, max_rows=6)))
            assert [c.token_ids for c in drawn] == [c.token_ids for c in truth]
            for ours, theirs in zip(drawn, truth, strict=True):
                np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
            seen.append(drawn)
        assert seen[0] != seen[1] != seen[2]
        config = type(model.config)(**(model.config.to_dict() | {"num_hidden_layers": 1}))
        with pytest.raises(UserError, match=r"another model's: its num_hidden_layers is 1, here 2"):
            ServerEngine(LlamaForCausalLM(config).eval(), Servers([url], 6), max_rows=6)
        assert engine.generate(asked, FREE) == seen[-1]
        engine.close()
