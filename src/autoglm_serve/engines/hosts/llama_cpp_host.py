"""The process of one llama.cpp replica: loads a GGUF and serves it at one address.

`python -m autoglm_serve.engines.hosts.llama_cpp_host --uds PATH --model FILE …`; `engines.llama_cpp` writes
that line and reads the exit status. Owns the settings of llama.cpp's server; knows nothing of fleets.

SIGTERM lets what is in flight finish, for `--grace-s` at most; a second one ends it at once. While the model
is loading there is nothing to finish and SIGTERM ends it as it ends any process.
"""

import argparse
import errno
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from autoglm_serve.engines.base import Listen
from autoglm_serve.engines.hosts.box import Sandbox, confine
from autoglm_serve.engines.hosts.llama_server_flags import add_server_flags, set_server_flags
from autoglm_serve.engines.llama_cpp import (
    DEFAULT_SLOTS,
    PROMPT_CACHE_MIB,
    HostExit,
    context_tokens,
)
from autoglm_serve.probe.gguf import GgufError, read_gguf

PING_S = 10
"""A comment in silent gaps of a stream, so that a long prefill can be told from a dead engine."""
POLL_S = 0.02
FLUSH_S = 0.1
"""From the last token to the last byte on the wire."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    settings = arguments(argv)
    require_model(settings)
    listen = where(settings)
    require_address(listen)
    enter_box(settings, listen)
    server = load(settings, listen)
    stop = StopSignal()
    log(f"ready on {listen.url}")
    stop.wait()
    drain(server, settings.grace_s, stop)
    # llama.cpp's threads have nothing left to say; waiting for each of them could only hang.
    os._exit(0)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_cpp_host", description="Serves one GGUF.")
    add_flags(parser)
    add_server_flags(parser)
    return parser.parse_args(argv)


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    address = parser.add_mutually_exclusive_group(required=True)
    address.add_argument("--port", type=int)
    address.add_argument("--uds", type=Path, help="a unix socket, which ends in .sock")
    add("--model", type=Path, required=True, help="the GGUF file")
    add("--mmproj", type=Path, help="the vision or audio tower")
    add("--alias", default="default", help="the name in /v1/models")
    add("--max-model-len", type=int, help="tokens of one request, prompt and answer")
    add("--slots", type=int, default=DEFAULT_SLOTS, help="requests worked on at once")
    add("--threads", type=int, help="CPU threads; all that this process may use")
    add("--image-max-tokens", type=int, help="a larger picture is scaled down")
    add("--prompt-cache-mib", type=int, default=PROMPT_CACHE_MIB)
    add("--unconfined", action="store_true", help="without the box (see docs/security.md)")
    add("--grace-s", type=float, default=30.0, help="for what is in flight at SIGTERM")


def require_model(settings: argparse.Namespace) -> None:
    for path in (settings.model, settings.mmproj):
        if path is not None and not os.access(path, os.R_OK):
            leave(HostExit.MODEL_NOT_FOUND, f"{path} is not there or cannot be read")


def where(settings: argparse.Namespace) -> Listen:
    """The address that the command line names."""
    if settings.uds is not None:
        return Listen(path=settings.uds)
    return Listen(host=settings.host, port=settings.port)


def require_address(listen: Listen) -> None:
    """Fails now rather than after the model is loaded, with a status of its own."""
    if listen.path is not None:  # its name is this process's alone
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((listen.host, listen.port))
            trial.listen()
        except OSError as problem:
            if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            leave(HostExit.PORT_TAKEN, f"cannot listen on {listen.url}: {problem.strerror}")


def enter_box(settings: argparse.Namespace, listen: Listen, *, starts: tuple[Path, ...] = ()) -> None:
    """From here on this process can do little but compute; what its kernel cannot close is told."""
    if settings.unconfined:
        return
    beside = tuple(path.resolve().parent for path in (settings.model, settings.mmproj) if path is not None)
    files = tuple(path for path in (settings.model, settings.mmproj) if path is not None)
    written = {Path(tempfile.gettempdir())} | ({listen.path.parent} if listen.path is not None else set())
    box = Sandbox(reads=(*files, *beside), writes=tuple(written), network=listen.path is None, starts=starts)
    for lack in confine(box):
        log(f"not confined as it should be: {lack}")


def load(settings: argparse.Namespace, listen: Listen) -> Any:
    """The running server at that address; leaves with a status of its own where it cannot run."""
    try:
        import xllamacpp  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as problem:
        leave(HostExit.ENGINE_MISSING, f"cannot import xllamacpp: {problem}")
    params = xllamacpp.CommonParams()
    set_model(params, settings)
    set_context(params, settings)
    set_server(params, listen)
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    set_server_flags(params, settings, xllamacpp)
    started_s = time.monotonic()
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        leave(HostExit.LOAD_FAILED, f"llama.cpp could not load {settings.model}; its reason is above")
    log(f"loaded {settings.model.name} in {time.monotonic() - started_s:.2f} s")
    return server


def set_model(params: Any, settings: argparse.Namespace) -> None:
    params.model.path = str(settings.model)
    if settings.mmproj is not None:
        params.mmproj.path = str(settings.mmproj)
    if settings.image_max_tokens:
        params.image_max_tokens = settings.image_max_tokens
    params.model_alias = {settings.alias}
    params.fit_params = False  # it would load the model twice to fit a GPU that is not there
    params.offline = True


def set_context(params: Any, settings: argparse.Namespace) -> None:
    """Every slot gets the whole context of a request: llama.cpp divides n_ctx by the slots."""
    try:
        own = read_gguf(settings.model).context_length
    except (GgufError, OSError):
        own = None  # llama.cpp will say what is wrong, in its own words
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * context_tokens(settings.max_model_len, own)
    params.cpuparams.n_threads = settings.threads or len(os.sched_getaffinity(0))
    params.cache_ram_mib = settings.prompt_cache_mib


def set_server(params: Any, listen: Listen) -> None:
    params.hostnames = [str(listen.path) if listen.path else listen.host]
    params.port = listen.port or 0
    params.ui = False
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.endpoint_props = False
    params.cors_origins = "https://none.invalid"  # only the gateway talks to it, never a page: not even a
    # sandboxed one, whose origin is "null"
    params.cors_credentials = False
    params.sse_ping_interval = PING_S
    params.use_jinja = True


class StopSignal:
    """SIGTERM and SIGINT, waited for in a way that works whichever thread receives them."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        os.read(self._read, 1)

    def repeated(self) -> bool:
        os.set_blocking(self._read, False)
        try:
            return bool(os.read(self._read, 1))
        except BlockingIOError:
            return False


def drain(server: Any, grace_s: float, stop: StopSignal) -> None:
    """Returns when nothing is in flight, when the grace is over, or at a second signal."""
    deadline_s = time.monotonic() + grace_s
    if in_flight(server):
        log(f"stopping; {in_flight(server)} requests may finish within {grace_s:g} s")
    while (left := in_flight(server)) and not stop.repeated():
        if time.monotonic() > deadline_s:
            log(f"stopped with {left} requests unfinished")
            return
        time.sleep(POLL_S)
    time.sleep(FLUSH_S)
    log("stopped")


def in_flight(server: Any) -> int:
    """Requests in a slot or waiting for one, from llama.cpp's own counters."""
    text = server.handle_metrics()
    metrics = text.decode() if isinstance(text, bytes) else text
    found = re.findall(r"^llamacpp:requests_(?:processing|deferred) (\d+)", metrics, re.MULTILINE)
    return sum(int(count) for count in found)


def leave(status: HostExit, why: str) -> NoReturn:
    """An ordinary exit: llama.cpp writes its log in a thread, and only then has written all of it."""
    log(why)
    sys.exit(status)


def log(line: str) -> None:
    with suppress(OSError):  # a full disk must not end what serves
        os.write(2, f"llama_cpp_host: {line}\n".encode())


if __name__ == "__main__":
    main()
