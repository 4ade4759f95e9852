"""One request from its first byte to its account: what every part of its life shares.

Owned by the task that serves it. Filters fill in what they find out; attempts come and go.
"""

import time
from functools import lru_cache

from autoglm_serve.core.request_line import RequestLine
from autoglm_serve.gateway.access.grants import Grant
from autoglm_serve.gateway.access.identity import Identity
from autoglm_serve.gateway.admission.admit import Call
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS, RESPONSES
from autoglm_serve.gateway.exchange.account import Account
from autoglm_serve.gateway.exchange.delivery import Caller, Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Result
from autoglm_serve.gateway.exchange.request_log import NO_ERRORS
from autoglm_serve.gateway.exchange.response_events import ResponseFiller
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.recovery.fingerprint import Fingerprint
from autoglm_serve.gateway.recovery.sent import Sent
from autoglm_serve.gateway.recovery.typed_resume import Told
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.http import Headers, Request
from autoglm_serve.route.scheduler import RoutingRequest

_NOBODY_ASKED = Ending(result=Result.LOST, reason="no replica could be asked")

_LONGEST_REASON = 200


class Exchange:
    """A request, who asks, what it became, and what was sent and learnt so far."""

    __slots__ = (
        *(
            "account",
            "begun",
            "call",
            "client",
            "delivery",
            "ending",
            "grant",
            "identity",
            "request",
            "routing",
        ),
        *("fingerprint", "sent", "told", "why_no_more", "worker"),
    )

    identity: Identity
    """Set by the first filter."""
    call: Call
    """What was admitted. Set by a filter; a later one may put another in its place."""
    delivery: Delivery
    """The client's side of the answer, with its journal. From `begin` on."""
    fingerprint: Fingerprint
    """By which it is known again where replicas die of it. From `begin` on."""
    routing: RoutingRequest
    """What the scheduler is asked for. From `begin` on."""

    def __init__(self, worker: Worker, client: Caller, request: Request) -> None:
        self.worker = worker
        self.client = client
        self.request = request
        self.account = Account(worker.counters, request.path, request.started_s)
        self.ending = _NOBODY_ASKED
        """Of the last attempt."""
        self.told: Ending | None = None
        """The last that had something to tell the client."""
        self.sent: tuple[int, Sent | Told] | None = None
        """What a stream that lost its replica had sent, as of so many chunks of its journal."""
        self.grant: Grant | None = None
        """Set by a step, where the client has a key."""
        self.begun = False
        """There is a delivery, and the client may have been sent something."""
        self.why_no_more = "no other replica could take over"

    @property
    def id(self) -> str:
        """For log lines; the client's own, or one that was made for it."""
        return self.request.id.decode("latin-1")

    @property
    def now_s(self) -> float:
        return self.worker.loop.time()

    @property
    def limits_left(self) -> Headers:
        """What the client's key has left, for the head of its answer."""
        return self.grant.headers if self.grant is not None else ()

    def _most_waiting(self) -> int | None:
        share = self.identity.key.limits.queue_share if self.identity.key is not None else None
        return None if share is None else max(1, self.worker.settings.max_waiting * share // 100)

    def admitted(self, call: Call) -> None:
        self.call = call
        self.account.model = call.model.name

    def line(self) -> RequestLine:
        """What is told of it now that it has its outcome. Never content, never a key."""
        account, identity = self.account, getattr(self, "identity", None)
        key = identity.key if identity is not None else None
        reason = account.reason or (self.ending.reason if account.attempts else "")
        first_s, failed = account.first_byte_s, account.outcome not in NO_ERRORS
        return RequestLine(
            id=self.id,
            client=key.id if key is not None else self.request.peer,
            model=account.model,
            path=account.path,
            outcome=account.outcome,
            failed=failed,
            reason=reason[:_LONGEST_REASON] if failed else "",
            replica=account.replica,
            attempts=account.attempts,
            recoveries=account.resumptions,
            seconds=round(self.now_s - account.started_s, 4),
            first_s=None if first_s is None else round(first_s - account.started_s, 4),
            prompt_tokens=account.usage.prompt_tokens or 0,
            output_tokens=account.usage.completion_tokens or 0,
        )

    def begin(self) -> None:
        """All filters are passed: from here on replicas are asked."""
        call = self.call
        self.delivery = Delivery(
            self.client,
            self.worker.loop,
            expected=_expected(
                call.endpoint.path,
                call.choices,
                usage=call.usage,
                tool_call=call.tool_call,
                picture=call.only_picture,
            ),
            split_reasoning=call.split_reasoning,
            filler=_filler(call),
        )
        self.begun = True
        self.fingerprint = Fingerprint(call.body)
        self.routing = RoutingRequest(
            model=call.model,
            cost_tokens=call.cost_tokens,
            client=self.identity.name,
            holder=self.identity.holder,
            most_waiting=self._most_waiting(),
            size_bytes=len(call.body),
        )


@lru_cache(maxsize=1024)
def _expected(path: str, choices: int, *, usage: bool, tool_call: bool, picture: str) -> Expected:
    """What answers there have to be. Nearly all are asked for in a few ways."""
    endpoint = ENDPOINTS[path]
    return Expected(
        path=path,
        ends_with_done=endpoint.ends_with_done,
        typed_events=endpoint.typed_events,
        tool_call=tool_call and not endpoint.typed_events,
        choices=choices,
        usage=usage,
        picture=picture,
        field=endpoint.answer,
    )


def _filler(call: Call) -> ResponseFiller | None:
    if not call.stream or call.endpoint.path != RESPONSES:
        return None
    return ResponseFiller(model=call.named_model or call.model.name, created_s=int(time.time()))
