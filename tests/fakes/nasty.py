"""Requests that cost a server much and the sender little. Each is one example of a way to be nasty.

A form of heads, values without number, parts in parts, escapes without end, base64 that is nearly right: what
they have in common is that some obvious way of reading them is quadratic, recursive, or long in one step.
"""

import base64
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.fakes.pictures import png

MIB = 1 << 20
CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/transcriptions"
FORM = "multipart/form-data; boundary=b"

Nasty = tuple[str, str, Callable[[], bytes]]
"""Path, content type, and what makes the body."""


def _chat(content: bytes, more: bytes = b"") -> bytes:
    return b'{"model":"demo","max_tokens":4%b,"messages":[{"role":"user","content":%b}]}' % (more, content)


def _json(make: Callable[[], bytes], path: str = CHAT) -> Nasty:
    return path, "application/json", make


def _picture(kind: str) -> bytes:
    """A real header, and 40 MB that could be its pixels, in base64 that is written in some way."""
    payload = png(1080, 2400).encode().partition(b",")[2][:60] + b"A" * (40 * MIB)
    match kind:
        case "lines":
            payload = b"\\n".join(payload[at : at + 76] for at in range(0, len(payload), 76))
        case "escaped":
            payload = payload.replace(b"A", b"\\u0041", 3 * MIB)[: 40 * MIB]
        case "url-safe":
            payload = payload.replace(b"A", b"_")
    return _chat(b'[{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}]' % payload)


def _gif() -> bytes:
    blocks = b"GIF89a\1\0\1\0\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0\2\1\0\0" * (2 * MIB // 14)
    url = b"data:image/gif;base64," + base64.b64encode(blocks)
    return _chat(b'[{"type":"image_url","image_url":{"url":"%b"}}]' % url)


def _part(name: bytes = b"x") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n1\r\n' % name


BODIES: Mapping[str, Nasty] = MappingProxyType(
    {
        "form: one head of dispositions": (
            SPEECH,
            FORM,
            lambda: b"--b\r\n" + b"content-disposition:" * 32_768,
        ),
        "form: parts without number": (SPEECH, FORM, lambda: _part() * MIB),
        "form: nearly delimiters": (SPEECH, FORM, lambda: b"--b\r\n" + b"\r\n--" * (15 * MIB)),
        "form: dashes": (SPEECH, FORM, lambda: b"-" * (60 * MIB)),
        "form: a large file": (
            SPEECH,
            FORM,
            lambda: _part(b"model") + _part(b"file")[:-3] + b"\r" * (60 * MIB),
        ),
        "json: brackets, few": _json(lambda: _chat(b'"x"', b',"x":[' + b"[]," * 82_000 + b"[]]")),
        "json: brackets, light": _json(lambda: _chat(b'"x"', b',"x":[' + b"[]," * 9_000 + b"[]]")),
        "json: brackets, 60 MB": _json(lambda: _chat(b'"x"', b',"x":[' + b"[]," * (20 * MIB) + b"[]]")),
        "json: deep": _json(lambda: b"[" * (60 * MIB)),
        "json: keys": _json(
            lambda: _chat(b'"x"', b"," + b",".join(b'"%x":%d' % (n, n) for n in range(120_000)))
        ),
        "json: digits": _json(lambda: _chat(b'"x"', b',"x":' + b"1" * (60 * MIB))),
        "json: spaces": _json(lambda: _chat(b'"x"', b',"x":' + b" " * (60 * MIB) + b"1")),
        "json: backslashes": _json(lambda: _chat(b'"' + b"\\\\" * (30 * MIB) + b'"')),
        "json: quotes": _json(lambda: _chat(b'"' + b'\\"' * (30 * MIB) + b'"')),
        "json: escapes": _json(lambda: _chat(b'"' + b"\\u4e2d" * (10 * MIB) + b'"')),
        "json: Chinese": _json(lambda: _chat('"{}"'.format("中" * (20 * MIB)).encode())),
        "json: empty strings": _json(lambda: b'{"a":' + b'""' * (30 * MIB) + b"}"),
        "json: a string that has no end": _json(lambda: b'{"a":"' + b"x" * (60 * MIB)),
        "chat: parts nested 450 deep": _json(
            lambda: _chat(
                b'[{"type":"x","content":' * 450 + b"[" + b'{"type":"x"},' * 70_000 + b"1]" + b"}]" * 450
            )
        ),
        "chat: parts": _json(lambda: _chat(b"[" + b'{"type":"text","text":"x"},' * 60_000 + b"1]")),
        "chat: parts in a list of lists": _json(lambda: _chat(b"[" + b'[{"url":"x"}],' * 40_000 + b"1]")),
        "chat: messages": _json(
            lambda: b'{"messages":[' + b'{"role":"user","content":"x"},' * 60_000 + b'{"role":"user"}]}'
        ),
        "picture: 40 MB": _json(lambda: _picture("")),
        "picture: in lines": _json(lambda: _picture("lines")),
        "picture: escaped": _json(lambda: _picture("escaped")),
        "picture: URL-safe": _json(lambda: _picture("url-safe")),
        "picture: frames of a GIF": _json(_gif),
        "picture: a thousand": _json(
            lambda: _chat(
                b"[" + b'{"type":"image_url","image_url":{"url":"%b"}},' % png().encode() * 1000 + b"1]"
            )
        ),
        "sound: 40 MB": _json(
            lambda: _chat(
                b'[{"type":"input_audio","input_audio":{"format":"wav","data":"%b"}}]'
                % (b"UklG" * (10 * MIB))
            )
        ),
        "embeddings: tokens": _json(
            lambda: b'{"input":[' + b"[1,2,3,4,5,6,7]," * 25_000 + b"[1]]}", "/v1/embeddings"
        ),
        "embeddings: 20 MB of texts": _json(
            lambda: b'{"input":[' + b",".join([b'"' + b"word " * 2000 + b'"'] * 2000) + b"]}",
            "/v1/embeddings",
        ),
    }
)
