"""Pictures that an engine would not read, or would see turned: each is made upright and readable first.

Beside the path of other requests: which pictures these are is known from their headers by then.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, NoReturn

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json, LongText, parse_object
from autoglm_serve.gateway.admission.media import data_url
from autoglm_serve.gateway.admission.parts import written
from autoglm_serve.gateway.exchange.exchange import Exchange
from autoglm_serve.gateway.media.pictures import Undecodable
from autoglm_serve.gateway.wire.splice import Path, edited, slot


def make_readable(exchange: Exchange) -> Awaitable[None] | None:
    """A filter: other pictures in place of those. Raises Refusal, which names the part."""
    return _make_readable(exchange) if exchange.call.unread_pictures else None


async def _make_readable(exchange: Exchange) -> None:
    call, worker = exchange.call, exchange.worker
    body = await worker.loop.run_in_executor(worker.readers, parse_object, call.body)
    edits: dict[Path, object] = {}
    size_bytes = len(call.body)
    for path in call.unread_pictures:
        picture = await _readable(exchange, path, _at(body, path))
        size_bytes += len(picture)
        if size_bytes > worker.settings.limits.max_body_bytes:
            _refuse("image_too_large", path, "and those before it are too large once they are decoded")
        edits |= _in_place(body, path, picture)
    raw = await worker.loop.run_in_executor(worker.readers, edited, call.body, edits)
    model_slot = slot(raw, "model") if call.model_slot is not None else None
    exchange.admitted(call._replace(body=raw, model_slot=model_slot, unread_pictures=()))


async def _readable(exchange: Exchange, path: Path, text: str) -> str:
    head = data_url(text)
    payload = _payload(text, head.payload_at if head is not None else 0)
    try:
        return await exchange.worker.pictures.readable(payload)
    except Undecodable as error:
        _refuse("invalid_image", path, f"{error}. Send the whole file, or send it as PNG")


def _payload(text: str, at: int) -> bytes | memoryview:
    if isinstance(text, LongText):
        return memoryview(text.body)[text.start + at : text.end]
    return text[at:].encode("ascii", "replace")


def _in_place(body: Json, path: Path, url: str) -> Mapping[Path, object]:
    """The edits for a picture: a data URL, or bare base64 beside which its type stands."""
    if data_url(_at(body, path)) is not None:
        return {path: url}
    kind, _, payload = url.removeprefix("data:").partition(";base64,")
    typed = "media_type" in _at(body, path[:-1])
    return {path: payload} | ({(*path[:-1], "media_type"): kind} if typed else {})


def _at(body: Json, path: Path) -> Any:
    value: Any = body
    for step in path:
        value = value[step]
    return value


def _refuse(code: str, path: Path, what: str) -> NoReturn:
    where = written(path)
    raise Refusal(400, code, f"'{where}' {what}.", param=where)
