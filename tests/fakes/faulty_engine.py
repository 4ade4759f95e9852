"""An OpenAI-compatible engine that really runs, answers predictably, and breaks on request.

It is a process of its own (`python -m tests.fakes.faulty_engine`), needs nothing but the standard library,
and speaks HTTP/1.1 by hand so that it can also speak it badly. Tests start it through
`tests.fakes.engine_process`; the supervisor runs it through `tests.fakes.faulty_adapter`.

What it answers
    POST /v1/chat/completions, /v1/completions   "tok0 tok1 tok2 …", as a stream or as one object
    POST /v1/responses, /v1/messages             the same text as a stream of typed events, where one is asked
    POST /v1/embeddings, /v1/audio/transcriptions   a small fixed answer
    GET  /v1/models, /health, /metrics
    the inner paths of a real engine (/tokenize, /pause, /docs …)   200, so that a leak shows
  An answer has `--chunks` pieces, one SSE event each; `max_tokens` below that cuts it ("length").
  A schema (`response_format`) and a tool that has to be called get {"x": 1}, in one piece.
  A last message of the assistant is continued, as llama.cpp and vLLM do: the joined text is the same
  as if nothing had happened, and "<diverged>" where the prefix is not one of ours.

What a request may choose, in its JSON body (`fault` also in the header `x-fault`)
    chunks: int        pieces of the answer          delay_s: float         between two pieces
    pieces: [str]      the pieces themselves         first_delay_s: float   before the first
    answer: str        the text, cut into words      fault: "name[:arg]"    see below

Faults: without an argument they strike before the first byte of the reply; with N after N pieces
(for a reply that is no stream: N=0 after the head, otherwise in the middle of the body)
    hang[:N]    silence, connection open             kill[:N]    SIGKILL to itself
    reset[:N]   TCP reset                            exit[:N]    leaves with status 1
    fin[:N]     closes as if all were well           freeze[:N]  SIGSTOP to itself: alive, answers nothing
    error[:N]   vLLM's engine-death event + [DONE]   end[:N]     well-formed end, no finish_reason, no [DONE]
    done[:N]    [DONE] without a finish_reason       half[:N]    half an event, then FIN
    garbage[:N] an event that is no JSON, then on    huge_event:N  one event of N bytes, then on
    odd[:N]     JSON of a wrong shape, then SIGKILL
    abort[:N[:REASON]]  a finish reason "abort" and [DONE], as vLLM ends all in flight at SIGTERM
  and, for the whole reply
    page  nothing  half_json  error_body   200 with HTML, no byte, half an object, an error
    status:CODE[:RETRY_AFTER_S]   429, 500, 503 … with an OpenAI error envelope
    huge_header:BYTES  bad_head   a head that no parser should take
    drip:S       one byte every S seconds            split:N     writes of N bytes, cutting events anywhere
    cut:N[:HOW]  ends after N bytes of the reply, head and framing included: reset (default), fin, kill
    crlf         events end in CRLF                  pings       a ": ping" comment before each event
    close        closes after the reply without having said so (a stale keep-alive connection)
  `--fault F --fault-times N` or POST /_control {"fault": F, "times": N} strike requests that name none.

What it tells
    GET /_seen    {"requests": [{method, path, headers, body, body_bytes, body_sha256, outcome,
                  pieces_sent, begun_s, ended_s}], "open": connections, "accepted": connections}
                  outcome: null while it runs | complete | client_gone | fault
                  ?begun=N or ?ended=N (&timeout_s=S) waits until that many requests have begun or ended
    POST /_control {"health": …, "fault": …, "times": …, "clear": true}

Flags for its own life: see `--help`. It prints `listening on http://127.0.0.1:PORT` once it does.
"""

import argparse
import asyncio
import ctypes
import hashlib
import json
import re
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from tests.fakes.answers import Reply, completion, error_reply, json_reply, raw_reply, typed_completion
from tests.fakes.faults import STRIKES, Broken, Fault, coloured, strike_index

MAX_RECORDED_REQUESTS = 10_000
MAX_RECORDED_BODY_BYTES = 64 * 1024
INNER_PATHS = frozenset(
    "/tokenize /detokenize /pause /resume /invocations /update_weights /docs /openapi.json "  # noqa: SIM905
    "/slots /props /collective_rpc /reset_prefix_cache /sleep /wake_up /server_info /load".split()
)


# --- what is asked --------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Settings:
    """How the engine behaves where a request does not say otherwise."""

    models: tuple[str, ...] = ("faulty",)
    chunks: int = 16
    delay_s: float = 0.0
    first_delay_s: float = 0.0
    max_model_len: int = 8192
    owned_by: str = "test"
    health: str = "ok"
    fault: Fault | None = None
    fault_times: int | None = None
    """How many requests the fault still strikes; None: all of them."""
    lean: bool = False
    """Answer without parsing or recording: for benchmarks."""

    def take_fault(self) -> Fault | None:
        if self.fault is None or self.fault_times == 0:
            return None
        if self.fault_times is not None:
            self.fault_times -= 1
        return self.fault


@dataclass(slots=True, kw_only=True)
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.target).query).items()}

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def fields(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


# --- what was seen --------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request, from its last byte in to its outcome."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: str
    body_bytes: int
    body_sha256: str
    begun_s: float
    ended_s: float | None = None
    outcome: str | None = None
    pieces_sent: int = 0


class Recorder:
    """Keeps what came in, and wakes those who wait for more of it."""

    def __init__(self) -> None:
        self.requests: deque[Seen] = deque(maxlen=MAX_RECORDED_REQUESTS)
        self.open = 0
        self.accepted = 0
        self._changed = asyncio.Event()

    def begin(self, request: Request) -> Seen:
        body = request.body
        seen = Seen(
            method=request.method,
            path=request.target,
            headers=request.headers,
            body=body[:MAX_RECORDED_BODY_BYTES].decode("utf-8", "replace"),
            body_bytes=len(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            begun_s=time.time(),
        )
        self.requests.append(seen)
        self.changed()
        return seen

    def end(self, seen: Seen, outcome: str) -> None:
        if seen.outcome is None:
            seen.outcome, seen.ended_s = outcome, time.time()
            self.changed()

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def clear(self) -> None:
        self.requests.clear()

    async def wait(self, *, begun: int, ended: int, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(self.requests) < begun or self._ended() < ended:
                    await self._changed.wait()

    def _ended(self) -> int:
        return sum(seen.outcome is not None for seen in self.requests)

    def as_json(self) -> bytes:
        return json.dumps(
            {"requests": [asdict(s) for s in self.requests], "open": self.open, "accepted": self.accepted}
        ).encode()


# --- the server -----------------------------------------------------------------------------------


@dataclass(slots=True)
class FaultyEngine:
    """The engine's state: one for the process."""

    settings: Settings
    ready_at_s: float = 0.0
    recorder: Recorder = field(default_factory=Recorder)
    connections: "set[Connection]" = field(default_factory=set)
    count: int = 0
    closing: bool = False

    def control(self, fields: dict[str, Any]) -> Reply:
        if "health" in fields:
            self.settings.health = fields["health"]
        if "fault" in fields:
            self.settings.fault = Fault.parse(fields["fault"])
            self.settings.fault_times = fields.get("times")
        if fields.get("clear"):
            self.recorder.clear()
        return json_reply({"ok": True})

    def reply_to(self, request: Request, fields: dict[str, Any]) -> Reply:
        self.count += 1
        match request.path:
            case "/v1/chat/completions":
                return self.completed(fields, chat=True)
            case "/v1/completions":
                return self.completed(fields, chat=False)
            case "/v1/messages" | "/v1/responses" if fields.get("stream"):
                return typed_completion(
                    fields,
                    model=self.settings.models[0],
                    chunks=self.settings.chunks,
                    number=self.count,
                    messages=request.path == "/v1/messages",
                )
            case "/v1/models":
                return self.cards()
            case "/metrics":
                return raw_reply(b"faulty_requests_total %d\n" % self.count, kind="text/plain")
            case path:
                return other_path(path, fields)

    def completed(self, fields: dict[str, Any], *, chat: bool) -> Reply:
        model, chunks = self.settings.models[0], self.settings.chunks
        return completion(fields, model=model, chunks=chunks, number=self.count, chat=chat)

    def cards(self) -> Reply:
        common: dict[str, Any] = {"object": "model", "owned_by": self.settings.owned_by}
        common["max_model_len"] = self.settings.max_model_len
        return json_reply(
            {"object": "list", "data": [{"id": name, **common} for name in self.settings.models]}
        )

    async def health(self) -> Reply:
        loading = time.monotonic() < self.ready_at_s
        match "loading" if loading else self.settings.health:
            case "ok":
                return json_reply({"status": "ok"})
            case "hang":
                await asyncio.Event().wait()
            case "reset":
                raise ConnectionResetError
        return error_reply(503)

    async def drained(self) -> None:
        while tasks := [connection.task for connection in self.connections if connection.task]:
            await asyncio.wait(tasks)


def other_path(path: str, fields: dict[str, Any]) -> Reply:
    match path:
        case "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            return json_reply({"object": "list", "data": data, "usage": usage})
        case "/v1/audio/transcriptions":
            return json_reply({"text": "tok0 tok1"})
        case "/v1/responses" | "/v1/messages":
            return json_reply({"id": "resp-1", "path": path})
        case _ if path in INNER_PATHS:
            return json_reply({"reached": path})
    return error_reply(404)


class Connection(asyncio.Protocol):
    """One client connection: parses requests one after the other and answers in order."""

    def __init__(self, engine: FaultyEngine) -> None:
        self.engine = engine
        self.buffer = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.seen: Seen | None = None
        self.transport: asyncio.Transport
        self.writable = asyncio.Event()
        self.writable.set()
        self.continued = False
        self.needed_bytes = 0
        """A long body is not looked at again before this much of it is there."""
        self.left_bytes: int | None = None
        """What is still written of a reply that is cut."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.transport.set_write_buffer_limits(high=0)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.engine.connections.add(self)
        self.engine.recorder.open += 1
        self.engine.recorder.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.connections.discard(self)
        self.engine.recorder.open -= 1
        self.writable.set()
        if self.seen is not None:
            self.engine.recorder.end(self.seen, "client_gone")
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.task is None and len(self.buffer) >= self.needed_bytes:
            self.next_request()

    def next_request(self) -> None:
        while self.task is None:
            if self.engine.settings.lean and self._answer_lean():
                continue
            request = self._take_request()
            if request is None:
                return
            self.task = asyncio.get_running_loop().create_task(self._serve(request))

    # parsing

    def _take_request(self) -> Request | None:
        end_of_head = self.buffer.find(b"\r\n\r\n")
        if end_of_head < 0:
            return None
        request = parse_head(bytes(self.buffer[:end_of_head]))
        taken = self._body_from(request, end_of_head + 4)
        if taken is None:
            if (request.header("expect") or "").lower() == "100-continue" and not self.continued:
                self.continued = True
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        del self.buffer[:taken]
        self.continued, self.needed_bytes = False, 0
        return request

    def _body_from(self, request: Request, start: int) -> int | None:
        """Fills in the body and tells where it ends in the buffer; None while it is incomplete."""
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            return take_chunked(self.buffer, start, request)
        stop = start + int(request.header("content-length") or 0)
        if len(self.buffer) < stop:
            self.needed_bytes = stop
            return None
        request.body = bytes(self.buffer[start:stop])
        return stop

    def _answer_lean(self) -> bool:
        """The benchmark's path: no recording, no JSON, one write; only where no pause is asked for."""
        settings = self.engine.settings
        end_of_head = self.buffer.find(b"\r\n\r\n")
        if end_of_head < 0 or not self.buffer.startswith(b"POST /v1/chat/completions"):
            return False
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self.buffer[:end_of_head])
        stop = end_of_head + 4 + int(length[1]) if length else -1
        if stop < 0 or len(self.buffer) < stop:
            return False
        self.needed_bytes = 0
        stream = self.buffer.rfind(b'"stream"', end_of_head, stop)
        wants_stream = stream > 0 and b"true" in self.buffer[stream + 8 : stream + 16]
        if wants_stream and (settings.delay_s or settings.first_delay_s):
            return False
        del self.buffer[:stop]
        self.transport.write(lean_reply(settings.chunks, settings.models[0], wants_stream))
        return True

    # answering

    async def _serve(self, request: Request) -> None:
        engine = self.engine
        control = request.path.startswith("/_") or request.path == "/health"
        self.seen = None if control else engine.recorder.begin(request)
        try:
            await (self._control(request) if control else self._infer(request))
            self._ended("complete")
        except Broken:
            self._ended("fault")
        except ConnectionResetError:
            self._ended("fault")
            self.reset()
        finally:
            self.task = self.seen = None
        asyncio.get_running_loop().call_soon(self.next_request)

    def _ended(self, outcome: str) -> None:
        if self.seen is not None:
            self.engine.recorder.end(self.seen, outcome)

    async def _control(self, request: Request) -> None:
        engine, query = self.engine, request.query
        match request.path:
            case "/health":
                reply = await engine.health()
            case "/_control":
                reply = engine.control(request.fields())
            case _:
                begun, ended = int(query.get("begun", 0)), int(query.get("ended", 0))
                await engine.recorder.wait(
                    begun=begun, ended=ended, timeout_s=float(query.get("timeout_s", 5))
                )
                reply = raw_reply(engine.recorder.as_json())
        await self.write(reply.head + b"".join(reply.parts))

    async def _infer(self, request: Request) -> None:
        fields, settings = request.fields(), self.engine.settings
        try:
            named = Fault.parse(request.header("x-fault") or fields.get("fault"))
        except ValueError as unknown:
            error = {"message": str(unknown), "type": "invalid_request_error"}
            reply, fault = json_reply({"error": error}, 400), None
        else:
            fault = named or settings.take_fault()
            reply = coloured(self.engine.reply_to(request, fields), fault)
        delay_s = float(fields.get("delay_s", settings.delay_s))
        await asyncio.sleep(float(fields.get("first_delay_s", settings.first_delay_s)))
        await self._send(reply, fault, delay_s)
        if fault is not None and fault.name == "close":
            self.close()

    async def _send(self, reply: Reply, fault: Fault | None, delay_s: float) -> None:
        strike_at = strike_index(fault, reply)
        self.left_bytes = int(fault.args[0]) if fault is not None and fault.name == "cut" else None
        if strike_at is None:
            assert fault is not None
            await STRIKES[fault.name](self, reply, fault)
        await self.write(reply.head, fault)
        for index, part in enumerate(reply.parts):
            if index == strike_at:
                assert fault is not None
                await STRIKES[fault.name](self, reply, fault)
            if index and reply.chunked and delay_s:
                await asyncio.sleep(delay_s)
            await self.write(reply.framed(part), fault)
            if self.seen is not None and reply.lead_parts <= index < len(reply.parts) - 2:
                self.seen.pieces_sent += 1
        await self.write(reply.tail, fault)

    async def write(self, data: bytes, fault: Fault | None = None) -> None:
        """Writes, and waits until the kernel has taken it all: a crash strikes after it, not before."""
        match fault:
            case Fault("cut"):
                await self._write_and_cut(data, fault)
            case Fault("drip", (delay_s,)):
                for byte in data:
                    if self.transport.is_closing():
                        return
                    self.transport.write(bytes((byte,)))
                    await asyncio.sleep(float(delay_s))
            case Fault("split", (size,)):
                for start in range(0, len(data), int(size)):
                    self.transport.write(data[start : start + int(size)])
                    await asyncio.sleep(0)
            case _:
                self.transport.write(data)
        await self.writable.wait()

    async def _write_and_cut(self, data: bytes, fault: Fault) -> None:
        assert self.left_bytes is not None
        self.transport.write(data[: self.left_bytes])
        self.left_bytes -= len(data)
        if self.left_bytes <= 0:
            await self.writable.wait()
            await STRIKES[fault.args[1] if len(fault.args) > 1 else "reset"](
                self, Reply(head=b"", parts=[]), fault
            )

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def parse_head(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines)
    return Request(method=method, target=target, headers=[(name, value.strip()) for name, value in pairs])


def take_chunked(buffer: bytearray, start: int, request: Request) -> int | None:
    body = bytearray()
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(bytes(buffer[start:line_end]).split(b";")[0], 16)
        start = line_end + 2
        if len(buffer) < start + size + 2:
            return None
        body += buffer[start : start + size]
        start += size + 2
        if size == 0:
            request.body = bytes(body)
            return start


_LEAN: dict[tuple[int, str, bool], bytes] = {}


def lean_reply(chunks: int, model: str, stream: bool) -> bytes:
    """The same bytes for every request, made once."""
    key = (chunks, model, stream)
    if key not in _LEAN:
        fields = {"stream": stream, "messages": []}
        reply = completion(fields, model=model, chunks=chunks, number=0, chat=True)
        _LEAN[key] = reply.head + b"".join(reply.framed(part) for part in reply.parts) + reply.tail
    return _LEAN[key]


# --- its life as a process ------------------------------------------------------------------------


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def die_with_parent() -> None:
    """The kernel kills us when the test that started us dies, so that none is left behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def fail_if_counted(path: Path, times: int) -> bool:
    """True for the first `times` starts; the count is kept in a file between them."""
    starts = int(path.read_text()) if path.exists() else 0
    path.write_text(str(starts + 1))
    return starts < times


async def serve(engine: FaultyEngine, args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    if args.refuse_for_s:
        await asyncio.sleep(args.refuse_for_s)
    engine.ready_at_s = time.monotonic() + args.ready_after_s
    server: asyncio.Server
    if args.uds:
        server = await loop.create_unix_server(lambda: Connection(engine), args.uds, backlog=4096)
    else:
        server = await loop.create_server(
            lambda: Connection(engine), args.host, args.port, reuse_port=True, backlog=4096
        )
    stop = asyncio.Event()
    if args.sigterm == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    port = None if args.uds else server.sockets[0].getsockname()[1]
    say(f"listening on unix:{args.uds}" if args.uds else f"listening on http://{args.host}:{port}")
    with suppress(TimeoutError):
        async with asyncio.timeout(args.exit_after_s):
            await stop.wait()
    if not stop.is_set():
        sys.exit(args.exit_code)
    server.close()
    if args.sigterm == "drain":
        await engine.drained()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faulty_engine", description="An engine with faults on a switch.")
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0 takes a free one and prints it")
    add("--uds", help="a unix socket instead")
    add("--models", default="faulty", help="names in /v1/models, separated by commas")
    add("--owned-by", default="test", help="in /v1/models: llamacpp and vllm go on from a beginning")
    add("--chunks", type=int, default=16, help="pieces of an answer")
    add("--delay-s", type=float, default=0.0, help="between two pieces")
    add("--first-delay-s", type=float, default=0.0, help="before the first byte")
    add("--fault", help="strikes requests that name none")
    add("--fault-times", type=int, help="only so many of them")
    add("--health", default="ok", choices=["ok", "loading", "hang", "reset"])
    add("--ready-after-s", type=float, default=0.0, help="/health says 503 until then")
    add("--refuse-for-s", type=float, default=0.0, help="does not listen until then")
    add("--sigterm", default="drain", choices=["drain", "exit", "ignore"])
    add("--say", action="append", default=[], help="a log line to print at the start")
    add("--exit-code", type=int, help="leave with this status, at once or after --exit-after-s")
    add("--exit-after-s", type=float)
    add("--fail-starts", type=int, default=0, help="fail so many starts, counted in --counter")
    add("--counter", type=Path)
    add("--die-with-parent", action="store_true")
    add("--lean", action="store_true", help="for benchmarks: no recording, no parsing")
    add("--uvloop", action="store_true", help="for benchmarks")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.die_with_parent:
        die_with_parent()
    for line in args.say:
        say(line)
    if args.counter is not None and fail_if_counted(args.counter, args.fail_starts):
        sys.exit(args.exit_code or 1)
    if args.counter is None and args.exit_code is not None and args.exit_after_s is None:
        sys.exit(args.exit_code)
    settings = Settings(
        models=tuple(args.models.split(",")),
        owned_by=args.owned_by,
        chunks=args.chunks,
        delay_s=args.delay_s,
        first_delay_s=args.first_delay_s,
        health=args.health,
        fault=Fault.parse(args.fault),
        fault_times=args.fault_times,
        lean=args.lean,
    )
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    if args.uvloop:
        import uvloop

        run = uvloop.run
    with suppress(KeyboardInterrupt):
        run(serve(FaultyEngine(settings), args))


if __name__ == "__main__":
    main()
