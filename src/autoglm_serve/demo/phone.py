"""A phone without hardware: it has a state, draws its screen, and answers as `adb` does.

    python -m autoglm_serve.demo.phone --adb FOLDER [--seed 1] [--language zh]

Puts a program called adb into FOLDER, prints a task that can be done on this phone, and stays until it is
stopped. Any agent that drives Android through adb works with it, once FOLDER stands first on its PATH. Needs
Pillow. Owns the process and its socket; what is answered belongs to `adb`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shlex
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import adb
from .errands import Errand, imagine_errand
from .world import Phone, view

SIZE_PX = (1080, 2400)
LONGEST_PATH = 100
"""What a socket's path may hold, in bytes, with something to spare."""


def png(phone: Phone) -> bytes:
    from .paint import paint

    file = io.BytesIO()
    paint(view(phone)).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Handset:
    """The one phone of this process; calls come from several threads."""

    def __init__(self, phone: Phone, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = adb.Device(phone=phone, since_s=clock())
        self._clock = clock
        self._lock = threading.Lock()

    def call(self, arguments: list[str]) -> adb.Answer:
        with self._lock:
            self._device, found = adb.answer(self._device, arguments, png, self._clock())
        return found

    @property
    def phone(self) -> Phone:
        with self._lock:
            return self._device.phone


class Line(socketserver.StreamRequestHandler):
    """One call: a line of JSON in, the status and what adb prints out."""

    server: AdbExchange

    def handle(self) -> None:
        try:
            arguments = json.loads(self.rfile.readline())
        except ValueError:
            return
        found = self.server.handset.call([str(word) for word in arguments])
        self.wfile.write(f"{found.status}\n".encode() + found.out)


class AdbExchange(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, handset: Handset) -> None:
        self.handset = handset
        super().__init__(str(path), Line)


def write_adb(folder: Path, socket: Path) -> Path:
    """The program that agents call."""
    client = Path(__file__).with_name("adb_client.py")
    words = shlex.join([sys.executable, "-I", str(client), str(socket)])
    path = folder / "adb"
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def errand_of(seed: int, language: str | None) -> Errand:
    """What can be done on the phone of a seed: it begins at the home screen, with an app that agents know by
    its name there.
    """
    for number in range(1000):
        errand = imagine_errand(random.Random(f"phone:{seed}:{number}"), size_px=SIZE_PX, least=4)
        speaks = language in (None, errand.language) and errand.language == errand.start.world.language
        known = errand.app.text(errand.language) in adb.BY_NAME
        if speaks and known and not errand.start.path:
            return errand
    raise AssertionError("no errand in a thousand begins at home")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autoglm_serve.demo.phone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--adb", type=Path, required=True, metavar="FOLDER", help="where adb is put")
    parser.add_argument("--seed", type=int, default=1, help="which phone (%(default)s)")
    parser.add_argument("--language", choices=("zh", "en"), help="the phone's language; either otherwise")
    options = parser.parse_args(arguments)
    try:
        import PIL  # noqa: F401
    except ImportError:
        sys.stderr.write("A phone draws its screen with Pillow; install it (pip install pillow).\n")
        return 1
    folder = options.adb.expanduser().absolute()
    socket = folder / "phone.socket"
    if len(os.fsencode(socket)) > LONGEST_PATH:
        sys.stderr.write(
            f"{folder} is too long a name for a socket: at most {LONGEST_PATH} bytes. Name a shorter one.\n"
        )
        return 2
    return serve(folder, socket, errand_of(options.seed, options.language))


def serve(folder: Path, socket: Path, errand: Errand) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        exchange = AdbExchange(socket, Handset(errand.start))
        program = write_adb(folder, socket)
    except OSError as problem:
        sys.stderr.write(f"{folder} cannot be written: {problem.strerror}. Name another one with --adb.\n")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=exchange.shutdown).start())
    sys.stdout.write(
        f'The phone is on. In the shell of your agent:  export PATH="{folder}:$PATH"\n'
        f"A task that can be done on it:  {errand.said}\n"
    )
    sys.stdout.flush()
    with exchange:
        exchange.serve_forever()
    program.unlink(missing_ok=True)
    socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
