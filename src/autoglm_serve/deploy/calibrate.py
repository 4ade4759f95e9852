"""What this machine teaches the next plan: the short measurement behind `autoglm plan --calibrate`, and the
memory that a service's replicas report.

For a measurement one replica is started, read, asked and ended: what its log says of memory and how fast it
answers a lone screenshot. A service that runs asks nothing, so it keeps the memory alone. The clock, the
launcher and the question are passed in.
"""

import asyncio
import base64
import http.client
import json
import logging
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from statistics import median
from typing import Any

from autoglm_serve.core.errors import EngineFailed
from autoglm_serve.core.ledger import Expectation, MeasuredLedger, MeasuredSpeed
from autoglm_serve.core.plan import Member
from autoglm_serve.core.replica import ExitFacts, Progress, ReplicaState, ReplicaStatus
from autoglm_serve.core.workload import Workload
from autoglm_serve.engines.base import Engine, Listen
from autoglm_serve.launch import unix_socket
from autoglm_serve.launch.base import Launcher, RunningProcess
from autoglm_serve.plan.calibration import held_against
from autoglm_serve.probe import measurements

LOOK_S = 0.2
GRACE_S = 10.0
STARTS = 2
"""Of a measurement, at most."""
QUESTIONS = 4
"""The first one warms up and is not counted."""

_ANSWER_S = 300.0

log = logging.getLogger(__name__)

Ask = Callable[[Listen, str, Workload, int], MeasuredSpeed]
"""(address, model, workload, number) → how fast one lone request was answered; blocks."""


async def measure(
    member: Member,
    engine: Engine,
    launcher: Launcher[Any],
    workload: Workload,
    *,
    ask: Ask,
    on_progress: Callable[[Progress], None] = lambda _: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[MeasuredLedger, MeasuredSpeed]:
    """Start replica 0 of `member`, measure it, end it. Raises EngineFailed where it does not start.

    A start that compiled is not a measurement of what serving takes: it is made once more, and that counts.
    """
    for attempt in range(STARTS):
        try:
            found = await _measure_once(member, engine, launcher, workload, ask, on_progress, sleep)
        except _MayWorkNextTime:
            if attempt == STARTS - 1:
                raise
            continue
        if not found[0].compiled:
            return found
        on_progress(Progress(stage="starting once more: this start compiled", fraction=0.0))
    return found


class _MayWorkNextTime(EngineFailed):
    """A start that failed for a reason that the next one may not have."""


async def _measure_once(
    member: Member,
    engine: Engine,
    launcher: Launcher[Any],
    workload: Workload,
    ask: Ask,
    on_progress: Callable[[Progress], None],
    sleep: Callable[[float], Awaitable[None]],
) -> tuple[MeasuredLedger, MeasuredSpeed]:
    placement = member.plan.placements[0]
    process = await launcher.start(
        "calibration",
        lambda listen: engine.command(member, placement, listen),
        placement,
        takes_unix=engine.takes_unix,
    )
    try:
        ledger = await _until_ready(process, engine, on_progress, sleep)
        speeds = [
            await asyncio.to_thread(ask, process.listen, member.name, workload, number)
            for number in range(QUESTIONS)
        ]
    finally:
        await process.end(GRACE_S)
        await process.exited()
        await process.close()
    return ledger, _typical(speeds[1:])


async def _until_ready(
    process: RunningProcess,
    engine: Engine,
    on_progress: Callable[[Progress], None],
    sleep: Callable[[float], Awaitable[None]],
) -> MeasuredLedger:
    log, ledger, ready = process.log, MeasuredLedger(), False
    ended = asyncio.ensure_future(process.exited())
    silent_s = 0.0
    while not ready:
        lines = log.read_new()
        silent_s = 0.0 if lines else silent_s + LOOK_S
        for line in lines:
            ledger = ledger.merged(engine.measured(line) or MeasuredLedger())
            step = engine.progress(line)
            if step is not None:
                on_progress(step)
                ready = step.fraction == 1.0
        if not ready and (ended.done() or silent_s > engine.start_timeout_s):
            code = ended.result().code if ended.done() else None
            facts = ExitFacts(code=code, signal=None, was_ready=False, log_tail=log.lines)
            found = engine.diagnose(facts)
            kind = _MayWorkNextTime if found.retryable else EngineFailed
            raise kind(f"The measurement could not start: {found.summary}", next_step=found.remedy)
        await sleep(LOOK_S)
    ended.cancel()
    return ledger


class Ledgers:
    """Keeps the memory that replicas report: of each model once, from one that started as planned."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._done: set[str] = set()

    def see(self, members: Iterable[Member], statuses: Iterable[ReplicaStatus]) -> None:
        expected = {member.name: member.expected for member in members}
        for status in statuses:
            found = expected.get(status.model)
            if found is None or status.model in self._done or status.memory is None:
                continue
            # After an exit it may have been started with less than was planned.
            if status.state is ReplicaState.READY and status.last_exit is None and status.memory.complete:
                self._done.add(status.model)
                self._keep(status, found, status.memory)

    def _keep(self, status: ReplicaStatus, expected: Expectation, memory: MeasuredLedger) -> None:
        measured = held_against(expected, memory, None)
        if measured is None:
            return
        try:
            path = measurements.save(measurements.folder(self._environ), measured)
        except OSError as problem:
            log.warning("what %s reports of its memory could not be kept: %s", status.id, problem)
            return
        log.info("%s: what it reports of its memory is kept for the next plan (%s)", status.id, path)


def _typical(speeds: list[MeasuredSpeed]) -> MeasuredSpeed:
    return MeasuredSpeed(
        ttft_s=median(speed.ttft_s for speed in speeds), tpot_s=median(speed.tpot_s for speed in speeds)
    )


def ask_once(listen: Listen, model: str, workload: Workload, number: int) -> MeasuredSpeed:
    """One streamed chat with one screenshot, alone on the engine."""
    words = f"{number} " + "tap the next thing " * (workload.fresh_tokens // 4)
    image = screenshot(workload.image_width_px, workload.image_height_px, number)
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": words}]
    system = "You are a phone agent. " * (workload.shared_tokens // 6)
    body = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": content}],
        "max_tokens": workload.output_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
    }
    connection = _connection(listen)
    try:
        begun = time.perf_counter()
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        if answer.status != 200:
            raise EngineFailed(
                f"The engine refused the measurement: {answer.status}", why=str(answer.read(300))
            )
        at = [
            time.perf_counter() - begun
            for line in answer
            if line.startswith(b"data: {") and b'"delta"' in line
        ]
    finally:
        connection.close()
    if len(at) < 2:
        raise EngineFailed("The engine's answer had no tokens to time.", next_step="try again")
    return MeasuredSpeed(ttft_s=at[0], tpot_s=(at[-1] - at[0]) / max(1, workload.output_tokens - 1))


def _connection(listen: Listen) -> http.client.HTTPConnection:
    if listen.path is None:
        return http.client.HTTPConnection(listen.host, listen.port, timeout=_ANSWER_S)
    return unix_socket.http_connection(listen.path, timeout_s=_ANSWER_S)


def screenshot(width: int, height: int, number: int) -> str:
    """A PNG of stripes as a data URL; each number gives another picture, so that no cache answers."""
    rows = bytearray()
    for y in range(height):
        shade = (y // 40 * 37 + number * 53) % 256
        rows += b"\0" + bytes((shade, 255 - shade, (y + number) % 256)) * width
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(rows), 1)),
        (b"IEND", b""),
    )
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()
