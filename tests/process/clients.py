"""Clients that never stop asking a service while something is done to it, and what came of each request.

with asking(service) as clients:
    ...                      # kill, restart, reload
    clients.stop()
assert clients.failures == []
"""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.process.service_process import PATIENCE_S, ServiceProcess


@dataclass(kw_only=True)
class Clients:
    """What happened so far."""

    done: int = 0
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    """The longest that one request took."""
    longest_gap_s: float = 0.0
    """The longest silence within a stream."""
    stopped: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, took_s: float, gap_s: float, failure: str) -> None:
        with self._changed:
            self.done += 1
            self.longest_s = max(self.longest_s, took_s)
            self.longest_gap_s = max(self.longest_gap_s, gap_s)
            if failure:
                self.failures.append(failure)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let every client finish what it asked; the service must still be there."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Return when so many more requests have ended."""
        with self._changed:
            until = self.done + more
            assert self._changed.wait_for(lambda: self.done >= until or self.failures, PATIENCE_S)


@contextmanager
def asking(
    service: ServiceProcess, *, streams: int = 2, tokens: int = 24, keep: bool = True
) -> Iterator[Clients]:
    """One client that asks whole answers, on a connection each, and `streams` that stream.

    With `keep`, those that stream keep their connections.
    """
    clients = Clients()

    def ask(stream: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
        while not clients.stopped.is_set():
            began_s = time.monotonic()
            gap_s, failure = 0.0, ""
            try:
                gap_s, failure = _ask(connection, stream=stream, tokens=tokens)
            except (OSError, http.client.HTTPException) as error:
                failure = repr(error)
            if failure or not (stream and keep):
                connection.close()
            clients.note(time.monotonic() - began_s, gap_s, failure)
        connection.close()

    clients.threads += [threading.Thread(target=ask, args=(number > 0,)) for number in range(streams + 1)]
    for thread in clients.threads:
        thread.start()
    try:
        clients.wait_for(streams + 1)
        yield clients
    finally:
        clients.stop()


def _ask(connection: http.client.HTTPConnection, *, stream: bool, tokens: int) -> tuple[float, str]:
    """The longest silence, and what was wrong with the answer."""
    message = {"role": "user", "content": "hello"}
    body = {"messages": [message], "max_tokens": tokens, "stream": stream, "ignore_eos": True}
    connection.request("POST", "/v1/chat/completions", body=json.dumps(body))
    reply = connection.getresponse()
    if not stream or reply.status != 200:
        text = reply.read().decode()
        return 0.0, "" if reply.status == 200 else f"{reply.status} {text}"
    gap_s, heard_s, lines = 0.0, time.monotonic(), []
    while line := reply.readline():
        now_s = time.monotonic()
        gap_s, heard_s = max(gap_s, now_s - heard_s), now_s
        if line.startswith(b"data: "):
            lines.append(line[6:].strip())
    return gap_s, _wrong_with(lines)


def _wrong_with(lines: list[bytes]) -> str:
    """Nothing, if the stream was one whole answer."""
    if not lines or lines[-1] != b"[DONE]" or lines.count(b"[DONE]") != 1:
        return f"the stream was cut after {len(lines)} events: {lines[-2:]!r}"
    events = [json.loads(line) for line in lines[:-1]]
    errors = [event for event in events if "error" in event]
    finished = [choice["finish_reason"] for event in events for choice in event.get("choices", ())]
    identities = {event.get("id") for event in events}
    if errors or sum(reason is not None for reason in finished) != 1 or len(identities) != 1:
        return f"errors {errors}, finish_reasons {[r for r in finished if r]}, ids {identities}"
    return ""
