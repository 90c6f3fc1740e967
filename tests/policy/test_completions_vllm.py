"""A meta-prover on a real `vllm serve`, as anybody starts it: values of SmolLM2 without its weights here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.server_process import served

import backtrack_mrt as bt
from backtrack_mrt.cli.main import main
from backtrack_mrt.credit import served_prover
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.rollouts.prover import LikelihoodProver
from backtrack_mrt.runs.records import read_trajectories

MODEL = Path(__file__).parents[2] / "models" / "smollm2-135m-instruct"
ROWS = '{"id": "shop/1", "question": "Tom has 3 apples and buys 4. How many?", "answer": "7", "completion": "%s"}\n'

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM: make test-vllm"),
    pytest.mark.skipif(not MODEL.is_dir(), reason="no SmolLM2: python scripts/fetch_smollm2.py"),
]


def test_values_and_audit_of_a_served_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with served(MODEL) as url:
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        prover = served_prover(url, tokenizer, env="backtrack")
        problem = bt.Problem("p", "Tom has 3 apples and buys 4. How many?", "7")
        messages = [{"role": "user", "content": problem.question}]
        messages += [{"role": "assistant", "content": "He has 3 + 4 = 7 apples."}]
        episodes = [bt.credit.conversation(messages, tokenizer, problem)]
        found = prover.values(episodes)
        with monkeypatch.context() as here:
            here.setattr("backtrack_mrt.rollouts.assembly.load_model", lambda *_: pytest.fail("a model was loaded"))
            (tmp_path / "traces.jsonl").write_text(ROWS % "3 + 4 = 7.\\n\\nSo \\\\boxed{7}")
            flags = ["--server", url, "--env", "open-ended", "--prompts", "instruct", "--protocol.paragraphs", "true"]
            flags += ["--protocol.min_characters", "1", "--votes", "2", "--out", str(tmp_path / "out")]
            main(["audit-thinking", "--traces", str(tmp_path / "traces.jsonl"), *flags])
    (audited,) = read_trajectories(tmp_path / "out" / "traces.jsonl")
    assert len(audited.trajectory.turns) == 2
    assert audited.trajectory.outcome == 1.0
    model = AutoModelForCausalLM.from_pretrained(MODEL).eval()
    truth = LikelihoodProver(prover.dialogue, HFEngine(model, max_rows=4)).values(episodes)
    np.testing.assert_allclose(found[0], truth[0], atol=2e-3)  # of the tokens that close the box, the 20 likeliest
