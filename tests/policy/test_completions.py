"""Servers with OpenAI's completions as an engine: in token ids as vLLM answers, in text as others do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.documents import blocks
from support.fake_completions_server import CompletionsServer
from tokenizers.processors import TemplateProcessing

import backtrack_mrt as bt
from backtrack_mrt.cli.main import main
from backtrack_mrt.credit import served_prover
from backtrack_mrt.data import signs
from backtrack_mrt.errors import UserError
from backtrack_mrt.graders.choice import MultipleChoice
from backtrack_mrt.graders.python import Python
from backtrack_mrt.grading.markers import LINE
from backtrack_mrt.policy.completions import CompletionsEngine
from backtrack_mrt.rollouts.assembly import Assembly
from backtrack_mrt.rollouts.prover import LikelihoodProver
from backtrack_mrt.types import Finish, Request, Sampling, Trajectory


@pytest.fixture(scope="module")
def parts() -> Assembly:
    return bt.assemble(bt.load_config())


@pytest.fixture(scope="module")
def trajectories(parts: Assembly) -> list[Trajectory]:
    problems = signs.generate("test", 2, seed=5)
    collector = parts.collector(parts.config.protocol, with_values=False)
    return [s.trajectory for s in collector.collect(problems, [1, 2], 1.0).scored]


@pytest.fixture(scope="module", params=[True, False], ids=["ids", "text"])
def server(request: pytest.FixtureRequest, parts: Assembly) -> Iterator[CompletionsServer]:
    fake = CompletionsServer(parts.model, parts.tokenizer, ids=request.param)
    with fake.running():
        yield fake


def test_values_are_those_of_the_model_itself(
    parts: Assembly, trajectories: list[Trajectory], server: CompletionsServer
) -> None:
    engine = CompletionsEngine(f"{server.url}/v1", parts.tokenizer)
    assert engine.speaks_ids is server.ids
    truth = LikelihoodProver(parts.dialogue, parts.engine).values(trajectories)
    for found, values in zip(LikelihoodProver(parts.dialogue, engine).values(trajectories), truth, strict=True):
        np.testing.assert_allclose(found, values, atol=1e-5 if server.ids else 2e-3)
    engine.close()


def test_it_completes(parts: Assembly, trajectories: list[Trajectory], server: CompletionsServer) -> None:
    engine = CompletionsEngine(server.url, parts.tokenizer)
    asked = [Request(t.prompt_ids, 64, seed) for seed, t in enumerate(trajectories)]
    stops = parts.dialogue.chat.stop_ids
    greedy = engine.generate(asked, Sampling(0.0, stop_ids=stops))
    truth = parts.engine.generate(asked, Sampling(0.0, stop_ids=stops))
    assert [c.token_ids for c in greedy] == [c.token_ids for c in truth]
    assert all((c.finish is Finish.STOP) == (c.token_ids[-1] in stops) for c in greedy)
    if server.ids:
        np.testing.assert_allclose(greedy[0].logprobs, truth[0].logprobs, atol=1e-4)
    engine.close()


def test_what_the_page_shows_runs(
    parts: Assembly, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = (block for block in blocks("docs/trainers.md", "python") if "served_prover" in block)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda name: parts.tokenizer)
    exec(compile(shown.replace("http://localhost:8000", server.url), "docs/trainers.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[array([")


def test_a_prover_for_message_lists(parts: Assembly, server: CompletionsServer) -> None:
    """What a stranger writes: a served model, its tokenizer, messages."""
    prover = served_prover(server.url, parts.tokenizer, env="backtrack", prompts="terse")
    problem = signs.generate("test", 1, seed=5)[0]
    messages = [{"role": "user", "content": f"{problem.question}\nSolve."}]
    messages += [{"role": "assistant", "content": f"## Step 1: {problem.question} = {problem.answer}"}]
    (values,) = prover.values([bt.credit.conversation(messages, parts.tokenizer, problem)])
    assert values.shape == (2,)
    assert ((values >= 0) & (values <= 1)).all()
    sampled = served_prover(
        server.url, parts.tokenizer, env="backtrack", prompts="terse", estimator="monte_carlo", samples=4
    )
    (shares,) = sampled.values([bt.credit.conversation(messages, parts.tokenizer, problem)])
    assert set(shares * 4) <= {0, 1, 2, 3, 4}


def test_what_cannot_be_asked_is_told(parts: Assembly, server: CompletionsServer) -> None:
    with pytest.raises(UserError, match=r"it does not serve 'other'.*It serves: base"):
        CompletionsEngine(server.url, parts.tokenizer, model="other")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"--server.*cannot be reached"):
            CompletionsEngine(f"http://127.0.0.1:{free.getsockname()[1]}", parts.tokenizer)


ODD = [  # what a broken gateway answers to every completion
    [],
    {"choices": []},
    {"choices": "none"},
    {"choices": [7]},
    {"choices": [{"text": "4", "token_ids": ["four"]}]},
    {"choices": [{"text": "4", "token_ids": 4}]},
    {"choices": [{"text": "4", "logprobs": {"top_logprobs": 4}}]},
    {"choices": [{"text": "4", "logprobs": {"top_logprobs": [[4]]}}]},
    {"choices": [{"text": "4", "logprobs": {"content": [{"top_logprobs": [{"token": "4"}]}]}}]},
    {"choices": [{"text": 4}]},
]


@pytest.mark.parametrize("answer", ODD, ids=map(str, ODD))
def test_answers_of_another_form_are_told(
    parts: Assembly, answer: Any, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda *_: answer)
    with pytest.raises(UserError, match=r"--server.*http://127.0.0.1"):  # naming what cannot be read, or no logprobs
        CompletionsEngine(server.url, parts.tokenizer)


@pytest.mark.parametrize("odd", [4, ["four"], {}], ids=str)
def test_a_server_that_breaks_down_later_is_told(
    parts: Assembly, odd: Any, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CompletionsEngine(server.url, parts.tokenizer)
    choice = {"text": "4", "token_ids": odd or None} if server.ids else {"text": odd or {"is": "no text"}}
    monkeypatch.setattr(server, "answer", lambda *_: {"choices": [choice]})
    with pytest.raises(UserError, match=r"/v1/completions was not answered as such a server does"):
        engine.generate([Request((1, 5), 4, 0)], Sampling(0.0, 1.0, frozenset({2})))
    engine.close()


def test_a_list_of_models_in_another_form_is_told(
    parts: Assembly, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "models", lambda: {"data": ["base"]})
    with pytest.raises(UserError, match="/v1/models was not answered as such a server does"):
        CompletionsEngine(server.url, parts.tokenizer)


def test_a_narrow_server_is_asked_for_less(parts: Assembly) -> None:
    with CompletionsServer(parts.model, parts.tokenizer, ids=False, told=5).running() as fake:
        engine = CompletionsEngine(fake.url, parts.tokenizer)
        engine.score([(1, 5)], [(6,)])
        engine.close()
    assert fake.asked[-1]["logprobs"] == 5


@pytest.mark.parametrize("wants", [{"silent": True}, {"told": 0}], ids=["left out", "refused"])
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "text"])
def test_answers_need_no_logprobs(
    parts: Assembly, trajectories: list[Trajectory], ids: bool, wants: dict[str, Any]
) -> None:
    """Sampled and greedy answers come from any server; likelihoods are refused before anything is sampled."""
    with CompletionsServer(parts.model, parts.tokenizer, ids=ids, **wants).running() as fake:
        with pytest.raises(UserError, match=r"no logprobs.*take sampled answers"):
            served_prover(fake.url, parts.tokenizer, env="backtrack", prompts="terse")
        for estimator, possible in (("greedy", {0, 1}), ("monte_carlo", {0, 1, 2, 3, 4})):
            prover = served_prover(
                fake.url, parts.tokenizer, env="backtrack", prompts="terse", estimator=estimator, samples=4
            )
            assert not prover.engine.scores
            times = max(possible)
            assert all(set(values * times) <= possible for values in prover.values(trajectories))
            with pytest.raises(UserError, match="no logprobs"):
                prover.engine.score([(1, 5)], [(6,)])
            prover.engine.close()
        truth = parts.prover(parts.config.prover.model_copy(update={"estimator": "greedy"})).values(trajectories)
        greedy = served_prover(fake.url, parts.tokenizer, env="backtrack", prompts="terse", estimator="greedy")
        for found, values in zip(greedy.values(trajectories), truth, strict=True):
            np.testing.assert_array_equal(found, values)


def test_a_server_that_draws_nothing_is_refused(parts: Assembly, trajectories: list[Trajectory]) -> None:
    """Its answers would all be the likeliest one, and V be 0 or 1."""
    with CompletionsServer(parts.model, parts.tokenizer, ids=False, draws=False).running() as fake:
        engine = CompletionsEngine(fake.url, parts.tokenizer)
        asked = [Request(trajectories[0].prompt_ids, 8, 0)]
        assert len(engine.generate(asked, Sampling(0.0))) == 1
        with pytest.raises(UserError, match=r"draws nothing.*ask greedily"):
            engine.generate(asked, Sampling(1.0))


@pytest.mark.parametrize("listed", [None, {"data": []}])
def test_a_server_that_lists_no_models_is_asked(
    parts: Assembly, listed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`transformers serve` lists what lies in its cache, or fails: its model is the one that it was started with."""
    with CompletionsServer(parts.model, parts.tokenizer, ids=False, silent=True).running() as fake:
        monkeypatch.setattr(fake, "models", lambda: listed)
        engine = CompletionsEngine(fake.url, parts.tokenizer, scoring=False)
        assert "model" not in fake.asked[-1]
        assert CompletionsEngine(fake.url, parts.tokenizer, model="base", scoring=False).model == "base"
        assert engine.context_length == parts.tokenizer.model_max_length
        with pytest.raises(UserError, match=r"does not say what it serves.*--model"):
            main(["audit-thinking", "--server", fake.url, "--out", str(tmp_path)])


def test_a_verifier_of_ones_own_has_served_values(parts: Assembly, server: CompletionsServer) -> None:
    problem = bt.Problem("p", "Which? A) 3 B) 4", "B")
    messages = [{"role": "user", "content": problem.question}, {"role": "assistant", "content": "It is B."}]
    episode = bt.credit.conversation(messages, parts.tokenizer, problem)
    prover = served_prover(server.url, parts.tokenizer, env="backtrack", prompts="terse", grader=MultipleChoice())
    assert prover.dialogue.marker is LINE
    (values,) = prover.values([episode])
    assert ((values >= 0) & (values <= 1)).all()
    with pytest.raises(UserError, match="Python cannot list its right answers"):
        served_prover(server.url, parts.tokenizer, grader=Python())


@pytest.mark.parametrize("begins", [True, False])
def test_texts_begin_as_the_tokenizer_begins_them(parts: Assembly, begins: bool) -> None:
    """A server writes BOS where the tokenizer does. ChatML's is the mark of a message, which nobody adds."""
    tokenizer = deepcopy(parts.tokenizer)
    bos = tokenizer.bos_token
    ids = tuple(tokenizer(f"{bos}1 + 2")["input_ids"])
    if begins:
        start = [(bos, tokenizer.bos_token_id)]
        tokenizer._tokenizer.post_processor = TemplateProcessing(f"{bos} $A", special_tokens=start)
    with CompletionsServer(parts.model, tokenizer, ids=False).running() as fake:
        engine = CompletionsEngine(fake.url, tokenizer)
        engine.generate([Request(ids, 4, 0)], Sampling(0.0))
        engine.close()
    assert fake.asked[-1]["prompt"] == ("1 + 2" if begins else f"{bos}1 + 2")
    assert fake._read(fake.asked[-1]["prompt"]) == ids
