"""The client of a vLLM server, against a fake one; no vLLM needed. The contract runs on a real one (marked)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from support.engine_subjects import FREE, VOCABULARY, random_llama, random_policy, requests
from support.fake_vllm_server import FakeServer

from backtrack_mrt.cli.request import read_request
from backtrack_mrt.errors import UserError, run_main
from backtrack_mrt.policy.hf.engine import HFEngine
from backtrack_mrt.policy.vllm.remote import ServerEngine
from backtrack_mrt.policy.vllm.servers import Servers
from backtrack_mrt.rollouts.assembly import assemble
from backtrack_mrt.training.train import train
from backtrack_mrt.types import Sampling


@pytest.fixture
def model() -> PeftModel:
    return random_policy()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(random_llama().eval()).running() as server:
        yield server


@pytest.mark.parametrize("sampling", [FREE, Sampling(0.6, 0.8, frozenset({3, 4})), Sampling(0.0)])
def test_it_draws_and_scores_what_the_hf_engine_does(model: PeftModel, fake: FakeServer, sampling: Sampling) -> None:
    engine, hf = ServerEngine(model, Servers([fake.url], 4), max_rows=4), HFEngine(model, max_rows=4)
    asked = requests(6)
    done, truth = engine.generate(asked, sampling), hf.generate(asked, sampling)
    assert [(c.token_ids, c.finish) for c in done] == [(c.token_ids, c.finish) for c in truth]
    for ours, theirs in zip(done, truth, strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-5)
    prefixes, continuations = [r.prefix_ids for r in asked], [c.token_ids for c in done]
    with engine.reference(), hf.reference():
        for row, true in zip(engine.score(prefixes, continuations), hf.score(prefixes, continuations), strict=True):
            np.testing.assert_allclose(row, true, atol=1e-5)


def test_every_version_is_an_adapter_of_its_own(model: PeftModel, fake: FakeServer, tmp_path: Path) -> None:
    engine = ServerEngine(model, Servers([fake.url], 4), max_rows=4, adapters=tmp_path)
    before = engine.generate(requests(6), FREE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-2)
    engine.sync()
    truth = [c.token_ids for c in HFEngine(model, max_rows=6).generate(requests(6), FREE)]
    with torch.no_grad():  # the next update begins while the server is asked
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(3)
    after = engine.generate(requests(6), FREE)
    assert after != before
    assert [c.token_ids for c in after] == truth
    assert len(set(fake.loaded)) == 2
    assert list(fake.engines) == ["base", fake.loaded[-1]]
    assert [path.name for path in next(tmp_path.iterdir()).iterdir()] == [fake.loaded[-1]]
    engine.close()
    assert list(fake.engines) == ["base"]


@pytest.mark.usefixtures("impatient")
def test_a_model_that_is_trained_in_full_is_given_whole(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also to a server that still has another run's weights. One that was started anew, which has the base's, or that
    was started for adapters, is not taken for one that has them."""
    model, base = random_llama().eval(), random_llama().eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.7)
    with FakeServer(base, takes_weights=True).running() as one, FakeServer(base, takes_weights=True).running() as other:
        servers = Servers([one.url, other.url], 4)
        engine = ServerEngine(model, servers, max_rows=4, adapters=tmp_path)
        for factor in (1.0, 1.3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(factor)
            engine.sync()
            truth = HFEngine(model, max_rows=6).generate(requests(6), FREE)
            drawn = engine.generate(requests(6), FREE)
            assert [c.token_ids for c in drawn] == [c.token_ids for c in truth]
            for server in (one, other):
                assert list(server.engines) == ["base", server.loaded[-1]]
            assert [path.name for path in next(tmp_path.iterdir()).iterdir()] == [one.loaded[-1]]
        assert len(one.loaded) == 2  # what has not changed is not sent again
        other.restart()
        assert engine.generate(requests(6), FREE) == drawn
        assert [server.url for server in servers.alive] == [one.url]
        assert "was started anew" in capsys.readouterr().err
        engine.close()
    with pytest.raises(UserError, match=r"/v1/weights was refused .* for adapters"):
        ServerEngine(model, Servers([fake.url], 4), max_rows=4)


def test_other_weights_are_refused(model: PeftModel, fake: FakeServer) -> None:
    with torch.no_grad():
        model.get_base_model().lm_head.weight.mul_(1.1)
    with pytest.raises(UserError, match=r"engine.server.*logprobs are .* nats away.*model.name_or_path"):
        ServerEngine(model, Servers([fake.url], 4), max_rows=4)


@pytest.mark.parametrize("vocabulary", [VOCABULARY - 3, VOCABULARY + 200])
def test_a_model_with_other_tokens_is_refused(model: PeftModel, vocabulary: int) -> None:
    other = random_llama().eval()
    other.resize_token_embeddings(vocabulary, mean_resizing=False)
    with torch.no_grad():
        other.lm_head.weight[VOCABULARY:] = 0.1  # or none of them is drawn
    with FakeServer(other).running() as fake, pytest.raises(UserError, match=r"serves .* another model .*token \d+"):
        ServerEngine(model, Servers([fake.url], 4), max_rows=4)


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        ("obeys", "draws its tokens itself"),
        ("takes_adapters", "/v1/load_lora_adapter was refused with status 404"),
        ("takes_jobs", "/v1/jobs was refused with status 404"),
    ],
)
def test_a_server_without_the_settings_it_needs_is_refused(model: PeftModel, lacks: str, reason: str) -> None:
    fake = FakeServer(random_llama().eval(), **{lacks: False})
    with fake.running(), pytest.raises(UserError, match=rf"{reason}.*Start it with `backtrack-mrt serve`"):
        ServerEngine(model, Servers([fake.url], 4), max_rows=4)


@pytest.mark.usefixtures("impatient")
def test_the_room_for_histories_is_that_of_the_servers_which_are_alive(
    model: PeftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (FakeServer(random_llama().eval(), rooms=rooms) for rooms in ([1000, 600], [400]))
    with one.running():
        with other.running():
            engine = ServerEngine(model, Servers([one.url, other.url], 4), max_rows=4)
            assert engine.cache_tokens == 2000
        engine.generate(requests(4), FREE)
        assert engine.cache_tokens == 1600
        monkeypatch.setattr("backtrack_mrt.runs.processes.count", lambda: 3)
        assert engine.cache_tokens == 533  # the others train with it
        with FakeServer(random_llama().eval()).running() as silent:
            assert Servers([one.url, silent.url], 4).cache_tokens is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtrack_mrt.policy.vllm.servers.WAITS", (0.0,))


@pytest.mark.usefixtures("impatient")
def test_rows_are_shared_and_a_server_that_dies_is_left_out(
    model: PeftModel, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two servers give what one gives, each does half in one request, a row stays where its history is; one dies, the
    other does all of it."""
    asked = [
        replace(r, prefix_ids=tuple((k + 3 * i) % VOCABULARY for i in range(40))) for k, r in enumerate(requests(6))
    ]
    truth = HFEngine(model, max_rows=6).generate(asked, FREE)
    with FakeServer(random_llama().eval()).running() as other:
        engine = ServerEngine(model, Servers([fake.url, other.url], 4), max_rows=4)
        assert [c.token_ids for c in engine.generate(asked, FREE)] == [c.token_ids for c in truth]
        longer = [replace(r, prefix_ids=r.prefix_ids + c.token_ids) for r, c in zip(asked, truth, strict=True)]
        later = engine.generate(longer, FREE)
        for server in (fake, other):
            _, done, more = ([tuple(job["prompt_ids"][:40]) for job in chunk] for chunk in server.chunks)
            assert len(done) == 3
            assert set(more) == set(done)
    assert engine.generate(longer, FREE) == later  # by one server, since the other is gone
    told = capsys.readouterr().err
    assert told.count(f"{other.url} cannot be reached") == 1
    assert "going on with 1 servers" in told
    engine.sync()
    assert [c.token_ids for c in engine.generate(asked, FREE)] == [c.token_ids for c in truth]
    engine.close()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_was_started_anew_is_left_out_or_gets_the_next_adapter(
    model: PeftModel, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = requests(6)
    with FakeServer(random_llama().eval()).running() as other:
        servers = Servers([fake.url, other.url], 4)
        engine = ServerEngine(model, servers, max_rows=4)
        truth = engine.generate(asked, FREE)
        other.restart()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-2)
        engine.sync()
        assert len(servers.alive) == 2
        truth = engine.generate(asked, FREE)
        other.restart()
        assert engine.generate(asked, FREE) == truth
        assert [server.url for server in servers.alive] == [fake.url]
        assert f"{other.url} was started anew: it has no {fake.loaded[-1]}" in capsys.readouterr().err
        fake.restart()
        with pytest.raises(UserError, match=r"was started anew.*backtrack-mrt serve"):
            engine.generate(asked, FREE)
        engine.close()


def test_a_server_at_two_addresses_has_each_adapter_once(model: PeftModel, fake: FakeServer) -> None:
    engine = ServerEngine(model, Servers([fake.url, fake.url.replace("127.0.0.1", "localhost")], 4), max_rows=4)
    assert len(fake.loaded) == 1
    engine.close()
    assert list(fake.engines) == ["base"]


def test_the_tolerance_is_that_of_the_logits_spacing(model: PeftModel, fake: FakeServer, capsys) -> None:
    ServerEngine(model, Servers([fake.url], 4), max_rows=4).close()
    assert re.search(r"nats away .* allowed 0\.01\)", capsys.readouterr().out)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_goes_away_is_a_clear_error(model: PeftModel) -> None:
    with FakeServer(random_llama().eval()).running() as server:
        engine = ServerEngine(model, Servers([server.url], 4), max_rows=4)
    with pytest.raises(UserError, match="cannot be reached"):
        engine.generate(requests(2), FREE)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "http://no such host"])
def test_an_unreachable_server_costs_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line, no model loaded, no run directory."""
    monkeypatch.setattr("backtrack_mrt.rollouts.assembly.load_model", lambda *_: pytest.fail("a model was loaded"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = url.format(port=free.getsockname()[1])
    flags = ["--engine.type", "vllm", "--engine.server", url, "--output-dir", str(tmp_path / "run")]
    request = read_request([*flags, "--data.train_size", "32", "--data.eval_size", "4"])
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: bool(train(request)))
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("error: engine.server")
    assert not (tmp_path / "run").exists()


def test_what_cannot_run_here_is_told_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtrack_mrt.rollouts.assembly.load_model", lambda *_: pytest.fail("a model was loaded"))
    config = read_request(["--engine.type", "vllm"]).config
    monkeypatch.setattr("backtrack_mrt.rollouts.assembly.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine.type = 'vllm': vLLM is not installed.*backtrack-mrt\[vllm\]"):
        assemble(config)
    with pytest.raises(UserError, match=r"engine.adapters.*no such directory"):
        assemble(read_request(["--engine.type", "vllm", "--engine.adapters", str(tmp_path / "none")]).config)
