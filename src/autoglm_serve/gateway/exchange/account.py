"""Accounting: every request ends in exactly one outcome, counted once."""

from enum import StrEnum

from autoglm_serve.gateway.recovery.journal import NO_USAGE
from autoglm_serve.observe.counter_file import CounterFile

# Upper bounds in seconds. A step of a phone agent takes 0.4 to 15 s.
LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 90.0)


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    REFUSED = "refused"  # we refused it: the client's mistake, or nothing here can serve it
    ENGINE_REFUSED = "engine_refused"  # the engine answered 4xx
    ENGINE_ERROR = "engine_error"  # the engine answered 5xx, wherever it was tried
    NO_REPLICA = "no_replica"  # no replica was ready in time
    LOST = "lost"  # every replica tried was lost before the first byte
    BROKEN = "broken"  # the stream broke after the first byte
    TIMEOUT = "timeout"  # it took longer than --request-timeout-s allows
    CANCELLED = "cancelled"  # the client left
    SHUTDOWN = "shutdown"  # the service stopped before it was answered
    INTERNAL = "internal"  # a bug here


class Account:
    """One request's books. `close` counts it; a second call counts nothing."""

    __slots__ = (
        *("_counters", "_closed", "attempts", "first_byte_s", "model", "outcome", "path", "resumptions"),
        *("reason", "replica", "started_s", "usage"),
    )

    def __init__(self, counters: CounterFile, path: str, started_s: float) -> None:
        self._counters = counters
        self._closed = False
        self.path = path
        self.started_s = started_s
        self.model = ""
        self.outcome = Outcome.INTERNAL
        self.first_byte_s: float | None = None
        self.attempts = 0
        self.resumptions = 0
        """Attempts that went on with a stream which another replica had begun."""
        self.usage = NO_USAGE
        self.reason = ""
        """Why it was refused."""
        self.replica = ""
        """The id of the one that was asked last."""

    def resumed(self, way: str) -> None:
        """A stream goes on elsewhere."""
        self.resumptions += 1
        self._counters.add(("recoveries", self.model, way))

    def retry_denied(self) -> None:
        """It failed and was not tried again, so that retries do not become a storm."""
        self._counters.add(("retries_denied", self.model))

    def close(self, now_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        counters, model = self._counters, self.model
        counters.add(("requests", model, self.path, self.outcome))
        counters.observe(("duration", model), now_s - self.started_s, LATENCY_BUCKETS_S)
        if self.first_byte_s is not None:
            counters.observe(("ttft", model), self.first_byte_s - self.started_s, LATENCY_BUCKETS_S)
        if self.attempts > 1 + self.resumptions:
            counters.add(("retries", model), self.attempts - 1 - self.resumptions)
        if self.usage.prompt_tokens:
            counters.add(("tokens", model, "prompt"), self.usage.prompt_tokens)
        if self.usage.completion_tokens:
            counters.add(("tokens", model, "completion"), self.usage.completion_tokens)
