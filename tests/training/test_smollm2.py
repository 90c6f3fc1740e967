"""The whole line on a real language model and real problems: SmolLM2-135M-Instruct and MAWPS."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.config import RunRequest
from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.envs.backtrack import Backtrack, BacktrackPhase
from backtrack_mrt.graders.math import MATH
from backtrack_mrt.rollouts.assembly import Assembly, assemble
from backtrack_mrt.rollouts.collector import Collector
from backtrack_mrt.rollouts.rollout import trajectory_seeds
from backtrack_mrt.rollouts.spelling import Speller
from backtrack_mrt.runs.records import read_trajectories
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Parsed, Problem, Sampling, Scored, StopReason, Turn

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "smollm2-135m-instruct"
MAWPS = [ROOT.parent / "shared" / "data" / f"mawps_{part}.jsonl" for part in ("singleop", "addsub")]
pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(not MODEL.is_dir(), reason="no models/smollm2-135m-instruct: python scripts/fetch_smollm2.py"),
    pytest.mark.skipif(not all(map(Path.is_file, MAWPS)), reason="the data sets are not here (../shared/data)"),
]
TEMPERATURE = 0.7


class Permissive(Backtrack):
    """Takes whatever is written, so that an untaught model comes through all four phases."""

    def parse(self, phase: str, text: str, turns: Sequence[Turn]) -> Parsed:
        if phase == BacktrackPhase.DETECT:
            return Parsed(verdict=False, step=1)
        return Parsed(step=0) if phase == BacktrackPhase.BACKTRACK else Parsed(answer="1", steps=(text,))


def request(*flags: str) -> RunRequest:
    data = ["--data.train", str(MAWPS[0]), "--data.eval", str(MAWPS[1])]
    model = ["--model.name_or_path", str(MODEL), "--model.dtype", "float32"]  # to compare closely
    return read_request(["--algo", "mrt-rl", "--config", "smollm2_135m.yaml", *data, *model, *flags])


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return assemble(request().config)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return load_problems([str(MAWPS[0])], 3, seed=0)


@pytest.fixture(scope="module")
def scored(parts: Assembly, problems: list[Problem]) -> list[Scored]:
    """One trajectory per problem through all four phases, with likelihood values. Turns end early, at a full stop or
    a line's end: one that runs into its limit would be a violation."""
    chat = parts.dialogue.chat
    stop_ids = chat.stop_ids | {chat.encode(mark)[0] for mark in (".", ",", "\n", ":", "?")}

    class Curt(Collector):
        def sampling(self, temperature: float) -> Sampling:
            return Sampling(temperature, stop_ids=stop_ids)

    collector = Curt(**vars(parts.collector(Permissive(max_revisions=1), with_values=True)))
    return collector.collect(problems, trajectory_seeds(0, 1, len(problems)), TEMPERATURE).scored


def plain_logprobs(parts: Assembly, ids: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of every token after the first, given those before it, shape (T−1,): one forward, no cache."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = parts.model(tokens).logits[0, :-1].float() / temperature
    return logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]


def test_the_chat_segments_make_the_template_s_text(parts: Assembly, problems: list[Problem]) -> None:
    chat, question = parts.dialogue.chat, problems[0].question
    rendered = parts.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    assert parts.tokenizer.decode(chat.opening(question)) == rendered
    for text in (question, "## Step 1: 3 × 4 = 12\n\\boxed{12}", "a <|im_end|> b", "  é\t⟨x⟩ "):
        ids = chat.encode(text)
        assert chat.decode(ids) == text
        assert not chat.stop_ids & set(ids)


def test_a_rollout_goes_through_all_phases(scored: list[Scored]) -> None:
    for member in scored:
        phases = [turn.spec.phase for turn in member.trajectory.turns]
        assert phases == [
            BacktrackPhase.ATTEMPT,
            BacktrackPhase.DETECT,
            BacktrackPhase.BACKTRACK,
            BacktrackPhase.REVISE,
        ]
        assert member.trajectory.stop is StopReason.TURN_LIMIT
        assert math.isfinite(member.trajectory.outcome)


def test_logprobs_are_those_of_a_plain_forward(parts: Assembly, scored: list[Scored]) -> None:
    for member in scored:
        trajectory = member.trajectory
        plain = plain_logprobs(parts, trajectory.token_ids, TEMPERATURE)[len(trajectory.prompt_ids) - 1 :]
        index = torch.tensor(trajectory.turn_index())
        sampled = torch.tensor([x for turn in trajectory.turns for x in turn.completion.logprobs])
        torch.testing.assert_close(sampled, plain[index >= 0], rtol=0, atol=1e-4)


def test_values_are_those_of_a_plain_forward(parts: Assembly, scored: list[Scored]) -> None:
    trajectory, values = scored[0].trajectory, scored[0].values
    assert values is not None
    assert len(values) == 5
    spellings = Speller(parts.dialogue, MATH.spellings).spellings(trajectory.problem)
    assert max(len(spelling.endings) for spelling in spellings) > 10, "many tokens close a box"
    for j, value in enumerate(values):
        forced, plain = parts.dialogue.forced(trajectory, j), 0.0
        for spelling in spellings:
            ids = torch.tensor([forced + spelling.ids[:-1]])
            with torch.no_grad():
                logprobs = parts.model(ids).logits[0, len(forced) - 1 :].float().log_softmax(-1)
            begun = logprobs[:-1].gather(1, ids[0, len(forced) :, None]).sum()
            plain += math.exp(float(begun + logprobs[-1, list(spelling.endings)].logsumexp(0)))
        assert value == pytest.approx(plain, rel=1e-3, abs=1e-7)


def test_texts_are_the_decoded_ids(parts: Assembly, scored: list[Scored]) -> None:
    for turn in (turn for member in scored for turn in member.trajectory.turns):
        assert parts.dialogue.chat.decode(turn.completion.token_ids) == turn.text


def test_a_step_of_mrt_rl_runs_to_the_end(tmp_path: Path) -> None:
    sizes = [
        "--training.steps",
        "1",
        "--training.problems_per_step",
        "2",
        "--training.group_size",
        "2",
        "--training.micro_batch_size",
        "4",
    ]
    tokens = ["--protocol.attempt_tokens", "32", "--data.train_size", "4", "--data.eval_size", "2"]
    credit = ["--algorithm.credit", "turn"]  # no outcome is to be expected of an untaught model: progress alone
    result = train(request("--output-dir", str(tmp_path / "run"), *sizes, *tokens, *credit))
    assert result.base.accuracy.n == result.trained.accuracy.n == 2
    assert 0 <= result.trained.clean_turns.mean <= 1
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert math.isfinite(row["loss"])
    assert row["grad_norm"] > 0
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()
    assert len(read_trajectories(tmp_path / "run" / "trajectories" / "step_000001.jsonl")) == 4
