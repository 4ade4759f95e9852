"""A request's life: the filters that it passes, the replicas that it is asked of, its account.

The whole of it is `dispatch`. What a client may do here is a filter: to add one is to add it to `FILTERS`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.access.identity import identify
from autoglm_serve.gateway.access.permission import visible_to
from autoglm_serve.gateway.admission.admit import Call, admit, is_light
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.exchange.attempts import serve
from autoglm_serve.gateway.exchange.booking import book
from autoglm_serve.gateway.exchange.delivery import Caller, give_up
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.exchange.fetch import fetch_media
from autoglm_serve.gateway.exchange.picture_input import make_readable
from autoglm_serve.gateway.exchange.speech_input import transcribe_audio
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.envelope import internal_error, stopping
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.keys.key import Key

log = logging.getLogger(__name__)

Filter = Callable[[Exchange], Awaitable[None] | None]
"""Finds something out about a request, or raises Refusal."""


class Asker(Caller, Protocol):
    """Who asks and is answered: a client's connection, or what stands in front of one."""

    @property
    def gone(self) -> bool: ...

    def owes(self, request: Request) -> bool: ...


async def dispatch(client: Asker, request: Request, worker: Worker) -> None:
    """Serve one request. However it ends, it ends in one outcome, and the client is told."""
    exchange = Exchange(worker, client, request)
    account, limit, task = exchange.account, worker.time_limit, asyncio.current_task()
    limit.enter(task, exchange.now_s)
    try:
        for passed in FILTERS:
            waits = passed(exchange)
            if waits is not None:
                await waits
        account.outcome = await serve(exchange)
    except Refusal as refusal:
        account.outcome = Outcome.REFUSED if refusal.status < 500 else Outcome.NO_REPLICA
        account.reason = refusal.code
        _give_up(exchange, client, refusal)
    except asyncio.CancelledError:
        if limit.has_ended(task):  # the answer's last byte may have gone out in the same turn of the loop
            account.outcome = Outcome.TIMEOUT if client.owes(request) else Outcome.OK
            _give_up(exchange, client, _too_late())
            return
        account.outcome = Outcome.CANCELLED if client.gone else Outcome.SHUTDOWN
        ended = exchange.grant.refusal if exchange.grant is not None else None
        account.outcome = account.outcome if ended is None else Outcome.REFUSED
        if not client.gone:
            _give_up(exchange, client, ended or stopping())
        raise
    except Exception:
        log.exception("a bug in the gateway ended request %s to %s", exchange.id, request.path)
        _give_up(exchange, client, internal_error())
    finally:
        limit.leave(task)
        account.close(exchange.now_s)
        if exchange.grant is not None:
            book(exchange, exchange.grant)
        if worker.requests.wants(account.outcome):
            worker.requests.tell(exchange.line())


def _who_asks(exchange: Exchange) -> None:
    exchange.identity = identify(exchange.request, exchange.worker.keyring)


def _what_is_asked(exchange: Exchange) -> Awaitable[None] | None:
    """What takes long to read is read in another thread, one after the other."""
    request, worker = exchange.request, exchange.worker
    settings = worker.settings
    view = visible_to(exchange.identity.key, worker.fleet.value)
    asked = request, ENDPOINTS[request.path], view, settings.media, settings.fields
    if not is_light(request):
        return _read_elsewhere(exchange, partial(admit, *asked))
    exchange.admitted(admit(*asked))
    return None


async def _read_elsewhere(exchange: Exchange, ask: Callable[[], Call]) -> None:
    worker = exchange.worker
    exchange.admitted(await worker.loop.run_in_executor(worker.readers, ask))


def _how_much_is_left(exchange: Exchange) -> Awaitable[None] | None:
    key = exchange.identity.key
    return None if key is None else _granted(exchange, key)


async def _granted(exchange: Exchange, key: Key) -> None:
    exchange.grant = await exchange.worker.grants.enter(key, exchange.call.cost_tokens)


FILTERS: tuple[Filter, ...] = (
    *(_who_asks, _what_is_asked, _how_much_is_left),
    *(fetch_media, make_readable, transcribe_audio),
)
"""What a request passes before a replica is asked, in this order."""


def _too_late() -> Refusal:
    message = "The request took longer than this service allows (--request-timeout-s)."
    return Refusal(504, "request_timeout", message, type=RefusalType.SERVER)


def _give_up(exchange: Exchange, client: Asker, refusal: Refusal) -> None:
    """The last word, unless all was said: it would pass for the answer to the client's next request."""
    if not client.owes(exchange.request):
        return
    if exchange.begun:
        exchange.delivery.refuse(refusal)
    else:
        give_up(client, exchange.request.path, refusal)
