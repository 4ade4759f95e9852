"""Runs one real gateway worker for a test, with this process as its control plane.

    with running_gateway(tmp_path, [engine.url]) as gateway:
        status, headers, body = gateway.ask("POST", "/v1/chat/completions", {...})

The calls block. Nothing here waits by sleeping: `set_fleet` returns when the worker routes by the new view.
"""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoglm_serve.core.codec import to_json
from autoglm_serve.core.control_messages import StatusAnswer, encode_news
from autoglm_serve.core.fleet import Continuation, FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import Capability, VisionGeometry
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.engines.external import External
from autoglm_serve.gateway.access.doors import DoorPolicy
from autoglm_serve.gateway.admission.fields import FieldPolicy
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.settings import KeySettings, Settings
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.tls import TlsFiles
from autoglm_serve.launch import admin_token

KEPT_BY_OTHERS = External.name
MODEL = ModelView(
    names=("demo", "alias"),
    capabilities=frozenset({Capability.CHAT, Capability.VISION}),
    vision=VisionGeometry(),
    created_s=1,
)


def fleet_of(
    urls: Sequence[str],
    *,
    state: ReplicaState = ReplicaState.READY,
    engine: str = "faulty",
    upstream_model: str | None = None,
    continuation: Continuation = Continuation.PREFILL,
    models: tuple[ModelView, ...] = (MODEL,),
) -> FleetView:
    """A view with one replica of the first model at each address."""
    replicas = tuple(
        ReplicaView(
            id=f"r{slot}",
            slot=slot,
            model=models[0].name,
            engine=engine,
            takes_key=engine == KEPT_BY_OTHERS,
            is_ours=engine != KEPT_BY_OTHERS,
            state=state,
            base_url=url,
            upstream_model=upstream_model,
            continuation=continuation,
        )
        for slot, url in enumerate(urls)
    )
    return FleetView(version=1, models=models, replicas=replicas)


@dataclass(kw_only=True)
class GatewayProcess:
    """A running gateway worker, and the line by which it learns its fleet."""

    process: subprocess.Popen[bytes]
    port: int
    state_dir: Path
    _line: socket.socket
    fleet: FleetView
    trusts: ssl.SSLContext | None = None
    """As its client sees it, where it speaks TLS."""
    heard: list[dict[str, Any]] = field(default_factory=list)
    """What the worker said on the line after its greeting."""

    def set_fleet(self, fleet: FleetView) -> None:
        """Push a view, and return once the worker has it."""
        self.fleet = replace(fleet, version=self.fleet.version + 1)
        self._line.sendall(encode_news(self.fleet) + b"\n")
        wanted = {replica.id: replica.state.value for replica in fleet.replicas}
        while json.loads(self.ask("GET", "/ready")[2])["replicas"] != wanted:
            pass

    def set_states(self, states: Sequence[ReplicaState]) -> None:
        """Push the same fleet with other states."""
        replicas = zip(self.fleet.replicas, states, strict=True)
        self.set_fleet(
            replace(self.fleet, replicas=tuple(replace(replica, state=state) for replica, state in replicas))
        )

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (lower case), body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if self.trusts is not None:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.trusts)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=headers or {})
            reply = connection.getresponse()
            return reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()

    def administer(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """As who may read the state directory."""
        admin_token.ensure(self.state_dir)
        token = {"Authorization": f"Bearer {admin_token.read(self.state_dir)}"}
        return self.ask(method, path, body, {**(headers or {}), **token})

    def chat(self, content: object = "hello", **fields: object) -> tuple[int, dict[str, str], bytes]:
        """One chat completion with a single user message."""
        body = {"model": "demo", "messages": [{"role": "user", "content": content}], **fields}
        return self.ask("POST", "/v1/chat/completions", body)

    def connect(self) -> socket.socket:
        """A bare connection, for what http.client would not do."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one metric whose labels include `labels`."""
        total = 0.0
        for line in self.ask("GET", "/metrics")[2].decode().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    def wait_for_metric(self, name: str, at_least: float, **labels: str) -> None:
        """Return when the metric has reached the value; fail after ten seconds."""
        deadline_s = time.monotonic() + 10
        while self.metric(name, **labels) < at_least:
            assert time.monotonic() < deadline_s, f"{name} {labels} never reached {at_least}"


@contextmanager
def running_gateway(
    state_dir: Path,
    urls: Sequence[str] = (),
    *,
    fleet: FleetView | None = None,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008
    media_hosts: tuple[str, ...] = (),
    wait_ready_s: float = 0.0,
    wait_turn_s: float = 10.0,
    max_waiting: int = 64,
    max_waiting_bytes: int = 1 << 28,
    stall_s: float = 30.0,
    request_timeout_s: float = 0.0,
    drain_timeout_s: float = 5.0,
    host: str = "127.0.0.1",
    doors: DoorPolicy = DoorPolicy(),  # noqa: B008
    tls: TlsFiles | None = None,
    trusts: ssl.SSLContext | None = None,
    keys: KeySettings = KeySettings(),  # noqa: B008
    trusted_proxies: tuple[str, ...] = (),
) -> Iterator[GatewayProcess]:
    """A worker that routes to `urls` when the block begins, and is gone when it ends."""
    settings = Settings(
        version="test",
        state_dir=state_dir,
        worker_id=0,
        workers=1,
        limits=limits,
        fields=FieldPolicy(),
        keys=keys,
        trusted_proxies=trusted_proxies,
        media=MediaPolicy(hosts=media_hosts),
        wait_ready_s=wait_ready_s,
        wait_turn_s=wait_turn_s,
        max_waiting=max_waiting,
        max_waiting_bytes=max_waiting_bytes,
        stall_s=stall_s,
        request_timeout_s=request_timeout_s,
        drain_timeout_s=drain_timeout_s,
        doors=doors,
        tls=tls,
    )
    view = fleet if fleet is not None else fleet_of(urls)
    with socket.create_server((host, 0)) as listener, _control_socket(settings) as control:
        argv = [
            sys.executable,
            "-m",
            "autoglm_serve.gateway.worker",
            "--settings",
            settings_argument(settings),
        ]
        argv += ["--listen-fd", str(listener.fileno())]
        with subprocess.Popen(argv, pass_fds=[listener.fileno()], env=_environment()) as process:
            try:
                line, _ = control.accept()
                with line:
                    gateway = GatewayProcess(
                        process=process,
                        port=listener.getsockname()[1],
                        state_dir=state_dir,
                        _line=line,
                        fleet=view,
                        trusts=trusts,
                    )
                    listening = threading.Thread(target=_listen, args=(line, gateway.heard), daemon=True)
                    listening.start()
                    gateway.set_fleet(view)
                    yield gateway
            finally:
                process.kill()


def settings_argument(settings: Settings) -> str:
    """As a worker is started with them."""
    return to_json(settings).decode()


def _environment() -> dict[str, str]:
    source = Path(__file__).resolve().parents[2] / "src"
    return {**os.environ, "PYTHONPATH": str(source)}


def _control_socket(settings: Settings) -> socket.socket:
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(settings.control_socket))
    control.listen()
    control.settimeout(30)
    return control


def _listen(line: socket.socket, heard: list[dict[str, Any]]) -> None:
    answer = encode_news(StatusAnswer(status=ServiceStatus(url="", version="test"))) + b"\n"
    try:
        with line.makefile("rb") as lines:
            for text in lines:
                message = json.loads(text)
                if message == {"asks": "status"}:
                    line.sendall(answer)
                else:
                    heard.append(message)
    except (OSError, ValueError):
        return
