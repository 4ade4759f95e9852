"""The `adb` that a pretend phone puts on the path: passes its arguments to the phone and prints the answer.

Runs by its path, without the package: an agent calls it several times a step.
"""

from __future__ import annotations

import json
import socket
import sys


def main(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as phone:
        try:
            phone.connect(path)
        except OSError:
            sys.stderr.write("adb: the pretend phone is off; start it: python -m autoglm_serve.demo.phone\n")
            return 1
        phone.sendall(json.dumps(arguments).encode() + b"\n")
        with phone.makefile("rb") as answer:
            status = int(answer.readline() or 1)
            out = answer.read()
    if arguments[-3:-2] == ["pull"] and not status:
        with open(arguments[-1], "wb") as file:
            file.write(out)
        out = f"{arguments[-2]}: 1 file pulled\n".encode()
    sys.stdout.buffer.write(out)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
