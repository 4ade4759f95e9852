"""The admin API by itself: what it says to who asks for something that it has not."""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.control.fleet.undertaking import Undertaking
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.observe import admin


class Busy:
    """An operator that does nothing now."""

    undertaking = Undertaking()
    settings: Mapping[str, object] = {"port": 8000, "state_dir": Path("/x"), "upstream": ("a", "b")}

    def restart(self, replicas: Sequence[str] | None, *, workers: bool) -> str:
        return "Another restart is under way."

    def leave(self, successor: int, until_s: float) -> str:
        return "It is stopping."


def _shown() -> ServiceStatus:
    raise RuntimeError("a bug")


async def _ask(method: str, path: str, body: str) -> tuple[int, Any]:
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body.encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with contextlib.suppress(RuntimeError):  # a bug is answered first, and raised then
        await admin.application(_shown, Busy())(scope, receive, send)
    head, answer = sent
    return head["status"], json.loads(answer["body"])


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("POST", "/admin/status", "", 405, "wrong_method"),
        ("GET", "/admin/restart", "", 405, "wrong_method"),
        ("GET", "/admin/nothing", "", 404, "unknown_path"),
        ("GET", "/admin/", "", 404, "unknown_path"),
        ("POST", "/admin/restart", "{", 400, "invalid_json"),
        ("POST", "/admin/restart", "[]", 400, "wrong_type"),
        ("POST", "/admin/restart", '{"replicas": null, "workers": false}', 409, "conflict"),
        ("GET", "/admin/status", "", 500, "internal_error"),
    ],
)
def test_a_refusal_is_an_envelope_with_a_code_of_its_own(
    method: str, target: str, body: str, status: int, code: str
) -> None:
    found, answer = asyncio.run(_ask(method, target, body))
    assert (found, answer["error"]["code"]) == (status, code)
    assert answer["error"]["type"]
    if status == 405:
        assert f"not {method}" in answer["error"]["message"]


def test_connections_that_nobody_uses_leave_descriptors_to_the_service(tmp_path: Path) -> None:
    async def story() -> int:
        door = tmp_path / "admin.sock"
        serving = asyncio.create_task(admin.serve(door, lambda: ServiceStatus(url="u", version="0"), Busy()))
        while not door.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        lines = [await asyncio.open_unix_connection(str(door)) for _ in range(40)]
        turned_away = [line for line, _ in lines[16:]]
        assert await asyncio.gather(*(line.read() for line in turned_away)) == [b""] * 24
        lines[0][1].write(b"GET /admin/status HTTP/1.1\r\nhost: x\r\n\r\n")
        status = int((await lines[0][0].readline()).split()[1])
        for _, writer in lines:
            writer.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return status

    assert asyncio.run(story()) == 200


def test_the_settings_in_force_are_told_as_json_has_them() -> None:
    told = asyncio.run(_ask("GET", "/admin/settings", ""))
    assert told == (200, {"port": 8000, "state_dir": "/x", "upstream": ["a", "b"]})
