"""The admin API: how the service is, as JSON, on a unix socket that the gateway forwards /admin/ to.

Ordinary web code on purpose. It shows what it is given and changes nothing by itself.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autoglm_serve.launch import unix_socket

Report = Callable[[], dict[str, Any]]


def application(status: Report) -> Starlette:
    """The web application; `status` is asked anew for each request."""

    async def show_status(request: Request) -> Response:
        return Response(orjson.dumps(status(), default=str), media_type="application/json")

    return Starlette(routes=[Route("/admin/status", show_status)])


async def serve(path: Path, status: Report) -> None:
    """Answer on the unix socket at `path` until cancelled."""
    listener = unix_socket.listener(path)
    config = uvicorn.Config(
        application(status), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    await _Server(config).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: Ctrl-C is the service's to interpret."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
