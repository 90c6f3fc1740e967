"""JSON over HTTP, as all servers of models are asked. Every failure is a UserError."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from backtrack_mrt.errors import UserError, in_words

_CONNECT = 10.0  # seconds; answers may take as long as they need


class ServerGone(UserError):
    """A server that gives no answer, or only says that it is broken: another one may give it."""


class BadRequest(UserError):
    """A server that cannot do what it was asked for, whenever it is asked (status 400)."""


class JsonClient:
    """Asks the server at `url`. field: the setting that named it. key: the environment variable that holds its key, if
    it wants one. remedy: how such a server is started."""

    def __init__(self, url: str, *, field: str, key: str, remedy: str) -> None:
        self.url, self.field, self.remedy = url.rstrip("/"), field, remedy
        secret = os.environ.get(key)
        self._http = httpx2.Client(
            base_url=self.url,
            timeout=httpx2.Timeout(None, connect=_CONNECT),
            limits=httpx2.Limits(max_connections=None),
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            trust_env=False,  # a proxy for the internet has no part in this
        )

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, remedy: str | None = None) -> Any:
        """The JSON that the server answers with, None for a plain text."""
        answer = self._answer(method, path, body, remedy)
        with self.understood(path):
            return answer.json() if "json" in answer.headers.get("content-type", "") else None

    def text(self, path: str) -> str:
        """What the server shows there."""
        return self._answer("GET", path).text

    def _answer(
        self, method: str, path: str, body: dict[str, Any] | None = None, remedy: str | None = None
    ) -> httpx2.Response:
        try:
            try:
                answer = self._http.request(method, path, json=body)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                answer = self._http.request(method, path, json=body)  # it had closed the connection that was kept
        except httpx2.HTTPError as error:
            raise ServerGone(self.field, self.url, f"cannot be reached: {error}", self.remedy) from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise self.refusal(f"no address: {error}", "Write it like http://host:8000.") from error
        if answer.is_error:
            reason = f"{path} was refused with status {answer.status_code}: {answer.text[:300]}"
            if answer.is_server_error:
                raise ServerGone(self.field, self.url, reason, remedy or self.remedy)
            if answer.status_code == 400:
                raise BadRequest(self.field, self.url, reason, remedy or self.remedy)
            raise self.refusal(reason, remedy)
        return answer

    @contextmanager
    def understood(self, path: str) -> Iterator[None]:
        """Within the block the answer to `path` is read: one that is not as it should be is a UserError."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{path} was not answered as such a server does ({in_words(error)})"
            raise self.refusal(reason) from error

    def refusal(self, reason: str, remedy: str | None = None) -> UserError:
        """What is wrong with the server."""
        return UserError(self.field, self.url, reason, remedy or self.remedy)

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()
