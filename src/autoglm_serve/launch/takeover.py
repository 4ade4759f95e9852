"""Asking the control plane that runs to leave, so that another may go on with what it started.

It leaves without ending anything, as if it had been killed, once the other is in control; what follows is the
adoption that a kill needs too. The path that it is asked by is not one that the gateway forwards.
"""

import http.client
import os
import time
from contextlib import closing
from pathlib import Path

from autoglm_serve.launch import unix_socket

PATH = "/leave"
LEAVING_S = 10.0
"""How long it may take."""


def ask_to_leave(admin_socket: Path) -> str:
    """Why it does not; nothing if it does, or if nobody answers.

    It is told who asks, and until when: one that was stopped and hears of it later must not obey then.
    """
    until_s = time.monotonic() + LEAVING_S
    path = f"{PATH}?successor={os.getpid()}&until_s={until_s:.3f}"
    try:
        with closing(unix_socket.http_connection(admin_socket, timeout_s=LEAVING_S)) as connection:
            connection.request("POST", path, body=b"")
            reply = connection.getresponse()
            return "" if reply.status < 300 else reply.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
