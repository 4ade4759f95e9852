"""A service that runs, asked over HTTP: its admin API by the socket in its state directory, and the OpenAI
API of any address.

Whatever goes wrong is Unreachable, with the words of who was asked where it gave some.
"""

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from autoglm_serve.config.options import Options
from autoglm_serve.core.codec import from_plain
from autoglm_serve.core.errors import Unreachable
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.launch import admin_token, unix_socket
from autoglm_serve.launch.handover import is_door
from autoglm_serve.launch.listeners import local_url
from autoglm_serve.launch.state_dir import ADMIN_SOCKET
from autoglm_serve.probe.http_client import connection, root_of
from autoglm_serve.probe.ports import unix_sockets_beside

ADDRESS = {
    "host": "The address that the service listens on.",
    "port": "The TCP port that the service listens on.",
    "state_dir": "The service's state directory, where it is not found by the port.",
}
"""What `serve` listens on is what other verbs connect to, in words for --help."""
_TIMEOUT_S = 600.0
"""A step of a restart, or an answer, may take as long as an engine needs."""
_LIST_TIMEOUT_S = 10.0
_SHOWN = "`autoglm status` shows what there is and what it does."
ADMIN = "/admin/"
KEY_VARIABLE = "AUTOGLM_API_KEY"
"""Holds the key for a service that asks for one."""


class RunningService:
    """The service at one address."""

    def __init__(
        self, url: str, key: str | None = None, *, state_dir: Path | None = None, named_by: str = "--url"
    ) -> None:
        """`state_dir` leads to its admin API; `named_by` are the flags by which a person names another."""
        self._state_dir = state_dir
        self.url = root_of(url)
        self._named_by = named_by
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"

    @classmethod
    def of(cls, options: Options) -> "RunningService":
        """The one that listens where these options say, on this machine."""
        return cls(
            local_url(options.host, options.port),
            os.environ.get(KEY_VARIABLE) or None,
            state_dir=options.state_dir or state_dir_at(options.port),
            named_by="--host and --port",
        )

    def ask(
        self, method: str, path: str, body: object = None, *, timeout_s: float = _TIMEOUT_S
    ) -> dict[str, Any]:
        """The JSON object that it answers."""
        with self._asked(method, path, body, timeout_s) as reply:
            return cast("dict[str, Any]", json.loads(reply.read()))

    def status(self, *, timeout_s: float) -> tuple[ServiceStatus, dict[str, Any]]:
        """How it is, and all that it said."""
        said = self.ask("GET", "/admin/status", timeout_s=timeout_s)
        try:
            return from_plain(ServiceStatus, said), said
        except (ValueError, TypeError) as error:
            raise self._no_service(error) from error

    def first_model(self) -> str:
        """The name of the first model that it serves."""
        with self._asked("GET", "/v1/models", None, _LIST_TIMEOUT_S) as reply:
            try:
                return str(json.loads(reply.read())["data"][0]["id"])
            except (ValueError, LookupError, TypeError) as error:
                raise Unreachable(
                    f"{self.url} does not say which models it serves.",
                    why=str(error) or type(error).__name__,
                    next_step="Name one with --model.",
                ) from error

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        """The text of a streamed answer, piece by piece."""
        with self._asked("POST", path, body, _TIMEOUT_S) as reply:
            for line in reply:
                if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                    yield from self._pieces(json.loads(data))

    def _pieces(self, event: dict[str, Any]) -> Iterator[str]:
        if "error" in event:
            raise self._refused(event["error"].get("message", "no reason was given"))
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            yield from (delta[key] for key in ("reasoning", "reasoning_content", "content") if delta.get(key))

    @contextmanager
    def _asked(
        self, method: str, path: str, body: object, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        """The reply, to be read within the block."""
        state_dir = self._state_dir if path.startswith(ADMIN) else None
        token = admin_token.read(state_dir) if state_dir is not None else ""
        headers = self._headers | ({"authorization": f"Bearer {token}"} if token else {})
        try:
            with closing(_by_socket(state_dir, timeout_s) or connection(self.url, timeout_s)) as line:
                data = None if body is None else json.dumps(body)
                line.request(method, urlsplit(self.url).path + path, body=data, headers=headers)
                with line.getresponse() as reply:
                    if reply.status >= 300:
                        raise self._refused(_message(reply.read()), _next_step(path, reply.status))
                    yield reply
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_service(error) from error

    def _no_service(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"Nothing answers at {self.url}, or no service does.",
            why=str(error) or type(error).__name__,
            next_step=f"Start one with `autoglm serve`, or name its address with {self._named_by}.",
        )

    def _refused(self, why: str, next_step: str = _SHOWN) -> Unreachable:
        return Unreachable(f"The service at {self.url} does not do that.", why=why, next_step=next_step)


def _next_step(path: str, status: int) -> str:
    if status == HTTPStatus.SERVICE_UNAVAILABLE and path.startswith(ADMIN):
        return "Start it with the flags of before; it goes on with what runs."
    if status == HTTPStatus.CONFLICT or not path.startswith(ADMIN):
        return _SHOWN
    return (
        "Ask as the account that it runs as (or name its --state-dir), or with a key of scope admin in "
        f"{KEY_VARIABLE}; look at its log."
    )


def state_dir_at(port: int) -> Path | None:
    """The state directory of this account's service that listens on this port."""
    for found in unix_sockets_beside(port):
        named = found.is_absolute() and (found.name == ADMIN_SOCKET or is_door(found))
        if named and found.parent.is_dir() and found.parent.stat().st_uid == os.geteuid():
            return found.parent
    return None


def _by_socket(state_dir: Path | None, timeout_s: float) -> http.client.HTTPConnection | None:
    """A connection to the control plane; None where nobody is there, and the gateway may say why."""
    if state_dir is None:
        return None
    try:
        return unix_socket.http_connection(state_dir / ADMIN_SOCKET, timeout_s=timeout_s)
    except OSError:
        return None


def _message(body: bytes) -> str:
    """The words of an error envelope; what was answered instead of one, cut short."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
