"""The admin API on a unix socket that the gateway forwards /admin/ to: how the service is, and what to do.

Ordinary web code on purpose. It shows what it is given and passes on what it is told; who may use it is
decided by the gateway (`pages`) and by the rights of the socket's folder.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from autoglm_serve.core.codec import to_json
from autoglm_serve.core.refusal import RefusalType
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.launch import takeover, unix_socket

_MOST_CONNECTIONS = 16


class ToldUndertaking(Protocol):
    """A restart or a change of the settings, and the lines that it tells."""

    @property
    def good(self) -> bool | None: ...

    async def after(self, seen: int) -> Sequence[str]: ...


class AdminOperator(Protocol):
    """Who does what the admin API is told."""

    @property
    def undertaking(self) -> ToldUndertaking:
        """That goes on, or the last one."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """Every option by its name, as it holds now."""
        ...

    def restart(self, replicas: Sequence[str] | None, *, workers: bool) -> str:
        """Begin to restart these replicas (None: all); why not, or nothing."""
        ...

    def leave(self, successor: int, until_s: float) -> str:
        """Leave everything that runs to this process, unless it is later than that; why not, or nothing."""
        ...


def application(shown: Callable[[], ServiceStatus], operator: AdminOperator) -> Starlette:
    """The web application; `shown` is the status of everything."""

    async def status(request: Request) -> Response:
        return _json(shown())

    async def restart(request: Request) -> Response:
        try:
            match orjson.loads(await request.body()):
                case {"replicas": [*names], "workers": bool(workers)}:
                    problem = operator.restart([str(name) for name in names], workers=workers)
                case {"replicas": None, "workers": bool(workers)}:
                    problem = operator.restart(None, workers=workers)
                case _:
                    shape = '{"replicas": [id, …] or null, "workers": true or false}'
                    return _refused(400, "wrong_type", f"The body has to be {shape}.")
        except orjson.JSONDecodeError as error:
            return _refused(400, "invalid_json", f"The body is not valid JSON: {error}.")
        return _refused(409, "conflict", problem) if problem else _json({"begun": True}, 202)

    async def leave(request: Request) -> Response:
        try:
            successor = int(request.query_params["successor"])
            until_s = float(request.query_params["until_s"])
        except (KeyError, ValueError):
            return Response("It has to be said for whom (successor=PID), and until when (until_s=…).", 400)
        problem = operator.leave(successor, until_s)
        return Response(problem, 409 if problem else 202)

    async def settings(request: Request) -> Response:
        return _json(operator.settings)

    async def told(request: Request) -> Response:
        seen = request.query_params.get("after", "0")
        undertaking = operator.undertaking
        lines = await undertaking.after(int(seen) if seen.isascii() and seen.isdigit() else 0)
        return _json({"lines": lines, "good": undertaking.good})

    return Starlette(
        routes=[
            Route("/admin/status", status),
            Route("/admin/settings", settings),
            Route("/admin/restart", restart, methods=["POST"]),
            Route("/admin/steps", told),
            Route(takeover.PATH, leave, methods=["POST"]),
        ],
        exception_handlers={404: _no_page, 405: _no_page, 500: _bug},
    )


async def _no_page(request: Request, error: Exception) -> Response:
    path = request.url.path[:200]
    if isinstance(error, HTTPException) and error.status_code == 405:
        right = "POST" if "POST" in (error.headers or {}).get("Allow", "") else "GET"
        return _refused(405, "wrong_method", f"{path} takes {right}, not {request.method}.")
    return _refused(404, "unknown_path", f"There is no {path} here.", type=RefusalType.NOT_FOUND)


async def _bug(request: Request, error: Exception) -> Response:
    message = "The control plane failed at this; the service's log has it."
    return _refused(500, "internal_error", message, type=RefusalType.SERVER)


def _refused(
    status: int, code: str, message: str, *, type: RefusalType = RefusalType.INVALID_REQUEST
) -> Response:
    """An error in the form of the gateway's own."""
    return _json({"error": {"message": message, "type": type, "param": None, "code": code}}, status)


def _json(value: object, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


async def serve(path: Path, shown: Callable[[], ServiceStatus], operator: AdminOperator) -> None:
    """Answer on the unix socket at `path` until cancelled."""
    config = uvicorn.Config(
        application(shown, operator),
        http=_FewConnections,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    with unix_socket.listener(path) as listener:
        await _AdminServer(config).serve(sockets=[listener])


class _FewConnections(HttpToolsProtocol):
    """Who keeps connections open here takes descriptors that replicas and workers are started with."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()


class _AdminServer(uvicorn.Server):
    """uvicorn without its signal handlers: Ctrl-C is the service's to interpret."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
