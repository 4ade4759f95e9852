"""Requests as clients write them: what is meant is one thing, and engines get it in one spelling."""

import base64
import gzip
import json
import zlib
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.engines.base import Engine
from autoglm_serve.engines.external import External
from autoglm_serve.engines.llama_cpp import LlamaCpp
from autoglm_serve.engines.sglang import Sglang
from autoglm_serve.engines.vllm import Vllm
from autoglm_serve.gateway.admission.admit import Call, admit
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.admission.plain import MAX_INFLATED_BYTES, usual_path, without_half_pairs
from autoglm_serve.gateway.wire.http import Request
from tests.fakes.pictures import image, png
from tests.gateway.admission.test_admit import CHAT, FLEET, SEES, call, chat, refusal
from tests.gateway.admission.test_media import VARIANTS, data_url, exif, picture


def sent(body: bytes, **headers: str) -> Call:
    said = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    request = Request(method=b"POST", path=CHAT, headers=said, body=body, started_s=0.0)
    return admit(request, ENDPOINTS[CHAT], FLEET, MediaPolicy())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1//chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat%2Fcompletions", "/v1/chat/completions"),
        ("/v1/models/a%20b", "/v1/models/a b"),
        ("/models", "/v1/models"),
        ("/models/x", "/v1/models/x"),
        ("/health/", "/health"),
        ("/", "/"),
        ("/tokenize", "/tokenize"),
        ("/v1/../tokenize", "/v1/../tokenize"),
        ("/admin/status", "/admin/status"),
    ],
)
def test_a_path_is_the_one_that_is_meant(written: str, meant: str) -> None:
    assert usual_path(written) == meant


BODY = json.dumps(chat("点击微信 é"), ensure_ascii=False)


def test_compressed_bodies_are_unpacked() -> None:
    for coding, packed in (("gzip", gzip.compress(BODY.encode())), ("deflate", zlib.compress(BODY.encode()))):
        assert sent(packed, content_encoding=coding).body == BODY.encode()


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("gzip", gzip.compress(b" " * (MAX_INFLATED_BYTES + 1)), 413, "body_too_large"),
        ("gzip", gzip.compress(BODY.encode())[:-9], 400, "invalid_encoding"),
        ("gzip", b"{}", 400, "invalid_encoding"),
        ("br", b"{}", 415, "unsupported_encoding"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(coding: str, body: bytes, status: int, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        sent(body, content_encoding=coding)
    assert (refused.value.status, refused.value.code) == (status, code)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf-16", "utf-16-le", "gbk", "utf-8-sig"])
def test_other_charsets_become_utf_8(charset: str) -> None:
    body = BODY.replace("é", "")
    admitted = sent(body.encode(charset), content_type=f"application/json; charset={charset}")
    assert admitted.body == body.encode()
    if charset in ("utf-16", "utf-8-sig"):  # it says so itself
        assert sent(body.encode(charset)).body == body.encode()


def test_a_charset_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        sent(b"{}", content_type="application/json; charset=klingon")
    assert refused.value.code == "unsupported_charset"


@given(st.lists(st.sampled_from(["\\ud83d", "\\ude00", "x", "\\\\", "\\n", "\\\\ud83d"])).map("".join))
def test_half_a_surrogate_pair_is_replaced_and_nothing_else(text: str) -> None:
    body = without_half_pairs(f'"{text}"'.encode())
    read = json.loads(f'"{text}"').encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert len(orjson.loads(body)) == len(json.loads(f'"{text}"'))
    assert "\ufffd" in orjson.loads(body) or orjson.loads(body) == read


def test_half_an_emoji_is_no_reason_to_refuse_a_chat() -> None:
    body = json.dumps(chat("half \ud83d of it")).encode()
    assert orjson.loads(call(body).body)["messages"][0]["content"] == "half \ufffd of it"


PICTURE = png(541, 1200).partition(",")[2]
LINES = "\n".join(PICTURE[at : at + 76] for at in range(0, len(PICTURE), 76))


@pytest.mark.parametrize(
    "url",
    [
        "data:IMAGE/PNG;base64," + PICTURE,
        "DATA:image/png;base64," + PICTURE,
        "data:image/png;BASE64," + PICTURE,
        "data:image/png;base64," + LINES,
        "data:image/png;base64," + LINES.replace("\n", "\r\n"),
        "data:image/png;base64," + PICTURE + "\n",
        "data:image/png;base64," + PICTURE.rstrip("="),
        "data:image/png;base64," + PICTURE.replace("+", "-").replace("/", "_"),
        "data:image/png;base64," + PICTURE.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:;base64," + PICTURE,
        "data:application/octet-stream;base64," + PICTURE,
        "data:image/png; base64," + PICTURE,
        "data:image/png;charset=utf-8;base64," + PICTURE,
        " data:image/png;base64," + PICTURE,
    ],
)
def test_a_picture_reaches_the_engine_as_engines_expect_it(url: str) -> None:
    [part] = orjson.loads(call(chat([image(url)])).body)["messages"][0]["content"]
    assert part["image_url"]["url"] == "data:image/png;base64," + PICTURE


def test_a_picture_may_stand_as_the_other_api_writes_it() -> None:
    url = png()
    [part] = orjson.loads(call(chat([{"type": "image_url", "image_url": url}])).body)["messages"][0][
        "content"
    ]
    assert part == image(url)
    body = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": url}}]}]}
    [part] = orjson.loads(call(body, "/v1/responses").body)["input"][0]["content"]
    assert part == {"type": "input_image", "image_url": url}


def test_a_tool_without_a_description_has_an_empty_one() -> None:
    tools = [
        {"type": "function", "function": {"name": "tap", "description": None}},
        {"name": "x", "description": None},
    ]
    read = orjson.loads(call(chat(tools=tools)).body)["tools"]
    assert (read[0]["function"]["description"], read[1]["description"]) == ("", "")


def _fleet(engine: Engine) -> FleetView:
    replica = ReplicaView(
        id="r0",
        slot=0,
        model="demo",
        engine=engine.name,
        state=ReplicaState.READY,
        base_url="http://127.0.0.1:1",
    )
    return FleetView(models=(replace(SEES, undone=engine.undone),), replicas=(replica,))


def test_a_picture_that_the_engine_does_not_read_is_found_where_it_will_stand() -> None:
    webp = data_url(picture((9, 9), **VARIANTS["webp lossy"]), "image/webp")
    other = data_url(picture((9, 9), format="PNG"))
    at = ("messages", 0, "content", 1, "image_url", "url")
    for part in (image(webp), {"type": "image_url", "image_url": webp}):
        mixed = chat([image(other), part])
        assert call(mixed, fleet=_fleet(LlamaCpp())).unread_pictures == (at,)
        assert call(mixed, fleet=_fleet(Vllm())).unread_pictures == ()
    shown = {"type": "input_image", "image_url": {"url": webp}}
    asked = call({"input": [{"role": "user", "content": [shown]}]}, "/v1/responses", fleet=_fleet(LlamaCpp()))
    assert asked.unread_pictures == (("input", 0, "content", 0, "image_url"),)


def test_a_turned_picture_is_found_for_every_engine_of_ours() -> None:
    turned = picture((9, 9), format="JPEG", exif=exif(6))
    source = {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(turned).decode()}
    asked = chat([{"type": "image", "source": source}], max_tokens=9)
    for engine in (LlamaCpp(), Vllm(), Sglang()):
        read = call(asked, "/v1/messages", fleet=_fleet(engine))
        assert read.unread_pictures == (("messages", 0, "content", 0, "source", "data"),)
    assert not call(asked, "/v1/messages", fleet=_fleet(External())).unread_pictures


# --- what is in a value counts, not what its part calls itself


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat([{"type": "input_video", "input_video": {"url": "http://127.0.0.1/x"}}])),
        (CHAT, chat([{"type": "nothing", "image_url": {"url": "http://127.0.0.1/x"}}])),
        (CHAT, chat([{"type": "nothing", "new_key": "http://127.0.0.1/x"}])),
        (CHAT, chat([{"type": "text", "text": "x", "video": "file:///etc/passwd"}])),
        (CHAT, chat([{"type": "image_url", "image_url": {"url": "/etc/passwd"}}])),
        (CHAT, chat([{"type": "image_url", "image_url": {"url": " HTTP://127.0.0.1/x"}}])),
        (
            "/v1/messages",
            {**chat("x"), "system": [{"type": "image", "source": {"type": "url", "url": "http://x/"}}]},
        ),
        ("/v1/rerank", {"query": "x", "documents": [{"content": [image("http://127.0.0.1/x")]}]}),
        ("/v1/score", {"text_1": "x", "text_2": {"content": [image("http://127.0.0.1/x")]}}),
        ("/v1/embeddings", {"input": "x", "messages": [{"role": "user", "content": [image("http://x/")]}]}),
        (
            "/v1/responses",
            {"input": [{"type": "message", "content": [{"type": "input_file", "file_url": "http://x"}]}]},
        ),
    ],
)
def test_an_address_is_refused_wherever_it_stands(path: str, body: Any) -> None:
    assert refusal(body, path).code == "media_not_allowed"


@pytest.mark.parametrize("key", ["image_embeds", "audio_embeds", "prompt_embeds"])
def test_embeddings_are_never_passed_on(key: str) -> None:
    refused = refusal(chat([{"type": key, key: "gASVAAAA"}]))
    assert (refused.code, refused.param) == ("media_not_allowed", f"messages[0].content[0].{key}")


def test_addresses_in_texts_and_in_arguments_are_nobodys_business() -> None:
    calls = [
        {"id": "c", "type": "function", "function": {"name": "open", "arguments": '{"url":"http://x/"}'}}
    ]
    use = {"type": "tool_use", "id": "t", "name": "open", "input": {"url": "http://x/"}}
    for message in (
        {"role": "user", "content": "see http://x/"},
        {"role": "user", "content": [{"type": "text", "text": "http://x/"}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "assistant", "content": [use]},
    ):
        assert call(
            {"messages": [message], "tools": [{"function": {"parameters": {"$schema": "http://x/"}}}]}
        )


def test_the_pixels_of_a_request_are_bounded_together() -> None:
    large = image(png(7000, 7000))
    assert call(chat([large, large]))
    refused = refusal(chat([large, large, large]))
    assert (refused.code, refused.param) == ("too_many_pixels", "messages[0].content[2].image_url.url")
    hidden = {"type": "document", "source": {"data": png(50_000, 20_000).partition(",")[2]}}
    assert refusal(chat([hidden])).code == "image_too_large"


def test_a_gif_is_as_large_as_its_frames() -> None:
    header = b"GIF89a" + (1).to_bytes(2, "little") * 2 + b"\0\0\0"
    frame = b"\x2c\0\0\0\0" + (9000).to_bytes(2, "little") * 2 + b"\0\2\1\0\0"
    refused = refusal(chat([image(data_url(header + frame + b";", "image/gif"))]))
    assert "9000x9000" in refused.message
    many = b"\x2c\0\0\0\0" + (2000).to_bytes(2, "little") * 2 + b"\0\2\1\0\0"
    assert refusal(chat([image(data_url(header + many * 40 + b";", "image/gif"))])).code == "too_many_pixels"
