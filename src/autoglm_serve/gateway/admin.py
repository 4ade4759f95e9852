"""The admin API's way through the gateway: passed to the control plane, like to any upstream."""

import asyncio

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.exchange.attempt import relayed
from autoglm_serve.gateway.exchange.delivery import Delivery
from autoglm_serve.gateway.exchange.relay import Ending, Relay, Result
from autoglm_serve.gateway.recovery.answer import Expected
from autoglm_serve.gateway.state import Worker
from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.envelope import stopping
from autoglm_serve.gateway.wire.http import Headers, Request, request_head


async def forward(client: ClientConnection, request: Request, worker: Worker) -> None:
    """Answer with what the control plane says, or that it is away."""
    ending: asyncio.Future[Ending] = worker.loop.create_future()
    relay = Relay(Delivery(client, worker.loop, expected=Expected()), worker.loop, ending)
    try:
        connection = await worker.pool.connect(f"unix:{worker.settings.admin_socket}")
    except (OSError, Refusal) as error:
        client.refuse(error if isinstance(error, Refusal) else _away())
        return
    headers: Headers = (
        (b"content-type", request.headers.get(b"content-type", b"application/json")),
        (b"connection", b"close"),  # it is asked seldom, and has few to give
    )
    head = request_head(request.method, request.target, b"localhost", headers, request.body_bytes)
    try:
        result = await relayed((head, request.body), connection, relay, client)
    except asyncio.CancelledError:
        if not client.gone and not client.answering:  # this worker ends; another may answer
            client.refuse(stopping())
        raise
    if result.result is Result.DONE:
        return
    if client.answering:
        client.abort()
    else:
        client.refuse(_away())


def _away() -> Refusal:
    message = "The control plane does not answer; requests are still served. Start `autoglm serve` again."
    return Refusal(503, "control_plane_down", message, type=RefusalType.SERVER)
