"""Sets that cannot be had from the hub: what is told."""

from __future__ import annotations

import sys

import datasets
import pytest

from backtrack_mrt.data import sources
from backtrack_mrt.data.loading import load_problems
from backtrack_mrt.errors import UserError
from backtrack_mrt.runs import hub


def fail(monkeypatch, load_dataset) -> None:
    monkeypatch.setattr(sources, "rely_on_cache_if_unreachable", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_without_a_network_the_message_says_what_to_fetch_and_name(monkeypatch):
    def load_dataset(name, subset, split):
        raise ConnectionError("Couldn't reach the hub\nlong story")

    fail(monkeypatch, load_dataset)
    for name, repository, instead in (
        ("math500", "HuggingFaceH4/MATH-500", "math500=DIR/FILE.parquet"),
        ("owner/name:train", "owner/name", " DIR/FILE.parquet"),
    ):
        with pytest.raises(UserError) as error:
            load_problems([name], 4, 0, field="data.eval")
        for part in (f"data.eval = '{name}'", repository, "Couldn't reach", "hf download --repo-type dataset", instead):
            assert part in str(error.value)
        assert "\n" not in str(error.value)


def test_a_gated_set_asks_for_a_login(monkeypatch):
    def load_dataset(name, subset, split):
        raise PermissionError("Dataset 'owner/name' is a gated dataset on the Hub.")

    fail(monkeypatch, load_dataset)
    with pytest.raises(UserError, match=r"Accept its terms .*owner/name and log in with `hf auth login`"):
        load_problems(["owner/name"], None, 0)


def test_an_unreachable_hub_is_not_asked_again_and_again(monkeypatch):
    def refuse(address, timeout):
        raise OSError

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    monkeypatch.setattr(hub.socket, "create_connection", refuse)
    hub.rely_on_cache_if_unreachable.__wrapped__()
    assert hub.os.environ["HF_HUB_OFFLINE"] == "1"
