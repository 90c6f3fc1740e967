"""The Hugging Face hub when there is no network."""

from __future__ import annotations

import os
import socket
import sys
from functools import lru_cache
from urllib.parse import urlsplit

from backtrack_mrt.errors import UserError


@lru_cache
def rely_on_cache_if_unreachable(seconds: float = 3.0) -> None:
    """Without a network the hub's clients retry for half a minute before they fail: let them look into their cache at
    once. To be called before they are used; does nothing behind a proxy, where reaching the hub is the proxy's part."""
    if any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):
        return
    try:
        socket.create_connection(hub_address(), seconds).close()
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"
        if constants := sys.modules.get("huggingface_hub.constants"):
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def hub_address() -> tuple[str, int]:
    """Host and port of the hub. Raises UserError where HF_ENDPOINT is no address: its clients cannot even be imported
    then."""
    said = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        address = urlsplit(said)
        return address.hostname or "", address.port or 443
    except ValueError as error:
        raise UserError(
            "HF_ENDPOINT", said, f"no address: {error}", "Write it like https://host, or unset it."
        ) from None
