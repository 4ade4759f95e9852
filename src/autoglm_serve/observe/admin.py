"""The admin API on a unix socket that the gateway forwards /admin/ to: how the service is, and what to do.

Ordinary web code on purpose. It shows what it is given and passes on what it is told; who may use it is
decided by the gateway (`local`) and by the rights of the socket's folder.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autoglm_serve.launch import takeover, unix_socket


class Steps(Protocol):
    """The lines that an undertaking tells."""

    good: bool | None

    async def after(self, seen: int) -> list[str]: ...


class Operator(Protocol):
    """Who does what the admin API is told."""

    @property
    def steps(self) -> Steps:
        """Those of the undertaking that goes on, or of the last."""
        ...

    def restart(self, replicas: Sequence[str] | None, *, workers: bool) -> str:
        """Begin to restart these replicas (None: all); why not, or nothing."""
        ...

    def leave(self) -> str:
        """Leave everything that runs to a successor; why not, or nothing."""
        ...


def application(shown: Callable[[], dict[str, Any]], operator: Operator) -> Starlette:
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
                    problem = 'The body has to be {"replicas": [id, …] or null, "workers": true or false}.'
        except orjson.JSONDecodeError:
            problem = "The body is no JSON."
        return _json({"error": {"message": problem}}, 409) if problem else _json({"begun": True}, 202)

    async def leave(request: Request) -> Response:
        problem = operator.leave()
        return Response(problem, 409 if problem else 202)

    async def steps(request: Request) -> Response:
        seen = request.query_params.get("after", "0")
        told = operator.steps
        lines = await told.after(int(seen) if seen.isascii() and seen.isdigit() else 0)
        return _json({"lines": lines, "good": told.good})

    return Starlette(
        routes=[
            Route("/admin/status", status),
            Route("/admin/restart", restart, methods=["POST"]),
            Route("/admin/steps", steps),
            Route(takeover.PATH, leave, methods=["POST"]),
        ]
    )


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value, default=str), status, media_type="application/json")


async def serve(path: Path, shown: Callable[[], dict[str, Any]], operator: Operator) -> None:
    """Answer on the unix socket at `path` until cancelled."""
    listener = unix_socket.listener(path)
    config = uvicorn.Config(
        application(shown, operator),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    await _Server(config).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: Ctrl-C is the service's to interpret."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
