"""Asks the admin API of a running service."""

import http.client
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from autoglm_serve.core.errors import Unreachable
from autoglm_serve.launch.listeners import dialled

ADDRESS = {
    "host": "The address that the service listens on, one of this machine.",
    "port": "The TCP port that the service listens on.",
}
"""What `serve` listens on is what these verbs connect to, in words for --help."""
_TIMEOUT_S = 600.0
"""A step of a restart may take as long as an engine needs to start."""
_NEXT: dict[int, str] = {
    HTTPStatus.CONFLICT: "`autoglm status` shows what there is and what it does.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Start it with the flags of before; it goes on with what runs.",
}
_ELSEWHERE = "Ask from the machine that it runs on; look at its log."


@dataclass(frozen=True, slots=True)
class Admin:
    """The service at one address, which must be of this machine."""

    host: str
    port: int

    def ask(
        self, method: str, path: str, body: object = None, *, timeout_s: float = _TIMEOUT_S
    ) -> dict[str, Any]:
        """What it answers. Raises Unreachable, with its own words where it gave some."""
        host = dialled(self.host)
        connection = http.client.HTTPConnection(host, self.port, timeout=timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, body=data, headers={"content-type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(
                f"No autoglm service answers at http://{host}:{self.port}.",
                why=str(error),
                next_step="Start one with `autoglm serve`, or name its address with --host and --port.",
            ) from error
        finally:
            connection.close()
        if reply.status >= 300:
            said = answer.get("error", {}).get("message", "") if isinstance(answer, dict) else ""
            raise Unreachable(
                f"The service at http://{host}:{self.port} does not do that.",
                why=said or f"it answered {reply.status}",
                next_step=_NEXT.get(reply.status, _ELSEWHERE),
            )
        return cast("dict[str, Any]", answer)
