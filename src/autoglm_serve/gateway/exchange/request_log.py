"""Which requests are told of when they are over, to whoever runs the service."""

from collections.abc import Callable

from autoglm_serve.core.request_line import RequestLine
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.settings import LoggedRequests

NO_ERRORS = frozenset({Outcome.OK, Outcome.CANCELLED})


class RequestLog:
    """Tells of requests that are over."""

    def __init__(self, which: LoggedRequests, tell: Callable[[RequestLine], None]) -> None:
        self.tell = tell
        self._left_out = {
            LoggedRequests.ALL: frozenset[Outcome](),
            LoggedRequests.ERRORS: NO_ERRORS,
            LoggedRequests.OFF: frozenset(Outcome),
        }[which]

    def wants(self, outcome: Outcome) -> bool:
        """Whether a line is to be made of a request that ended so."""
        return outcome not in self._left_out
