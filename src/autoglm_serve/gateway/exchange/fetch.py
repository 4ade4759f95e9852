"""Media that a client names by address: fetched here, from hosts that the operator allows, so that no engine
ever fetches.

What has been fetched stands in the request as if the client had sent it, and the request is admitted again:
the same bounds hold for it, and no address is left in it.
"""

import asyncio
import base64
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn
from urllib.parse import urljoin

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.access.permission import visible_to
from autoglm_serve.gateway.admission.admit import Call, NamedMedia, admit
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.admission.media import media_type_of
from autoglm_serve.gateway.admission.parts import written
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.wire.addresses import MediaAddress, is_allowed, may_connect, parse
from autoglm_serve.gateway.wire.download import MediaDownload, NotFetched, get
from autoglm_serve.gateway.wire.envelope import JSON_TYPE
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.splice import Path, edited

_MOST_REDIRECTS = 3
_EACH_S = 15.0
_ALL_S = 30.0


async def fetch_media(exchange: Exchange) -> None:
    """A step: the media themselves in place of their addresses. Raises Refusal, which names the part."""
    named = exchange.call.named_media
    if named is None:
        return
    settings = exchange.worker.settings
    found: dict[Path, bytes] = {}
    left_bytes = settings.limits.max_body_bytes - len(named.body)
    try:
        async with exchange.worker.fetching, asyncio.timeout(_ALL_S):
            for path, url in named.addresses.items():
                found[path] = await _fetched(url, settings.media.hosts, left_bytes, written(path))
                left_bytes -= len(found[path]) * 4 // 3
    except TimeoutError:
        _refuse("could not be fetched in time", written(path))
    worker = exchange.worker
    call = await worker.loop.run_in_executor(worker.readers, _admitted_with, exchange, named, found)
    exchange.admitted(call)


def _admitted_with(exchange: Exchange, named: NamedMedia, found: dict[Path, bytes]) -> Call:
    urls = {path: _data_url(data, written(path)) for path, data in found.items()}
    asked, settings = exchange.request, exchange.worker.settings
    request = Request(
        method=asked.method,
        path=asked.path,
        headers={b"content-type": JSON_TYPE},
        body=edited(named.body, urls),
        started_s=asked.started_s,
    )
    view = visible_to(exchange.identity.key, exchange.worker.fleet.value)
    none_left = replace(settings.media, hosts=())
    return admit(request, ENDPOINTS[asked.path], view, none_left, settings.fields)


def _data_url(data: bytes, where: str) -> str:
    kind = media_type_of(data)
    if kind is None:
        _refuse("leads to what is no picture, sound or video", where)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


async def _fetched(url: str, hosts: Sequence[str], most_bytes: int, where: str) -> bytes:
    for _ in range(_MOST_REDIRECTS + 1):
        answer = await _asked(_allowed(url, hosts, where), hosts, most_bytes, where)
        if not answer.redirects:
            if answer.status != 200:
                _refuse(f"could not be fetched: its server answers {answer.status}", where)
            return answer.body
        url = urljoin(url, answer.location)
    return _refuse("leads from address to address without end", where)


async def _asked(address: MediaAddress, hosts: Sequence[str], most_bytes: int, where: str) -> MediaDownload:
    try:
        async with asyncio.timeout(_EACH_S):
            ip = await _looked_up(address, hosts)
            return await get(address, ip, most_bytes=max(0, most_bytes))
    except NotFetched as error:
        _refuse(f"could not be fetched: {error}", where)


def _allowed(url: str, hosts: Sequence[str], where: str) -> MediaAddress:
    try:
        address = parse(url)
    except ValueError as error:
        _refuse(f"is no address that is fetched: {error}", where)
    if not is_allowed(address, hosts):
        _refuse(
            f"leads to {address.authority!r}, and nothing is fetched from there. Send the picture itself, or "
            f"have the service started with --allow-media-host {address.authority}",
            where,
        )
    return address


async def _looked_up(address: MediaAddress, hosts: Sequence[str]) -> str:
    """The one address that is then asked: it is not looked up a second time."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NotFetched("its host is not known") from error
    ips = [str(entry[4][0]) for entry in found]
    if not ips or not all(may_connect(ip, address, hosts) for ip in ips):
        raise NotFetched("its host is not one of the public network")
    return ips[0]


def _refuse(what: str, where: str) -> NoReturn:
    raise Refusal(400, "media_not_fetched", f"'{where}' {what}.", param=where)
