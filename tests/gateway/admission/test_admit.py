"""Admission: what is wrong is named, what is right goes on byte for byte."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import FleetView, ModelView
from autoglm_serve.core.model import Capability, VisionGeometry
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.engines.external import External
from autoglm_serve.engines.llama_cpp import LlamaCpp
from autoglm_serve.gateway.admission.admit import Call, admit
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.admission.fields import FieldPolicy
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.wire.http import Request
from tests.fakes.pictures import image, png

SEES = ModelView(
    names=("demo", "alias"),
    capabilities=frozenset({Capability.CHAT, Capability.VISION}),
    vision=VisionGeometry(),
)
READS = ModelView(names=("text",), capabilities=frozenset({Capability.CHAT}))
HEARS = ModelView(names=("ears",), capabilities=frozenset({Capability.TRANSCRIPTION}))
FLEET = FleetView(models=(SEES, READS, HEARS))
CHAT = "/v1/chat/completions"


def call(
    body: object,
    path: str = CHAT,
    *,
    remote: bool = False,
    kind: bytes = b"application/json",
    fields: FieldPolicy = FieldPolicy(),  # noqa: B008
    fleet: FleetView = FLEET,
) -> Call:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    request = Request(method=b"POST", path=path, headers={b"content-type": kind}, body=raw, started_s=0.0)
    return admit(request, ENDPOINTS[path], fleet, MediaPolicy(hosts=("*",) if remote else ()), fields)


def refusal(body: object, path: str = CHAT, **how: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(body, path, **how)
    return caught.value


def chat(content: object = "hello", **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], **fields}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": 3, "content": "x"}]}, "messages[0].role"),
        (chat(7), "messages[0].content"),
        (chat({"type": "text"}), "messages[0].content"),
        (chat(["x"]), "messages[0].content[0]"),
        (chat([{"text": "x"}]), "messages[0].content[0]"),
        (chat([{"type": "text", "text": None}]), "messages[0].content[0].text"),
        (chat([{"type": "text", "text": "x"}, image(None)]), "messages[0].content[1].image_url.url"),
        (chat([{"type": "image_url"}]), "messages[0].content[0].image_url"),
        (chat([{"type": "image_url", "image_url": 3}]), "messages[0].content[0].image_url"),
        (chat([image("data:image/png;base64,AAAA")]), "messages[0].content[0].image_url.url"),
        (chat([image("data:text/plain;base64,AAAA")]), "messages[0].content[0].image_url.url"),
        (chat([image("data:;base64,AAAA")]), "messages[0].content[0].image_url.url"),
        (chat([image("DATA:image/png;base64,AAAA")]), "messages[0].content[0].image_url.url"),
        (chat([image("")]), "messages[0].content[0].image_url.url"),
        (chat([image("file:///etc/passwd")]), "messages[0].content[0].image_url.url"),
        (chat([image("http://169.254.169.254/")]), "messages[0].content[0].image_url.url"),
        (chat(stream="yes"), "stream"),
        (chat(stream=1), "stream"),
        (chat(max_tokens=-2), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_tokens=1.5), "max_tokens"),
        (chat(max_tokens="3,000"), "max_tokens"),
        (chat(temperature="warm"), "temperature"),
        (chat(temperature="nan"), "temperature"),
        (chat(temperature=False), "temperature"),
        (chat(stop=3), "stop"),
        (chat(tools={}), "tools"),
        (chat(model=["demo"]), "model"),
        (chat(enable_thinking="no"), "enable_thinking"),
        (chat(return_reasoning=0), "return_reasoning"),
        (chat(chat_template_kwargs=[]), "chat_template_kwargs"),
        (chat(stream_options=True), "stream_options"),
    ],
)
def test_the_field_that_is_wrong_is_named(body: object, param: str) -> None:
    refused = refusal(body)
    assert (refused.status, refused.param) == (400, param)
    assert param.split(".")[0].split("[")[0] in refused.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"a":"\xc3"}',
        b"[]",
        b'"x"',
        b"null",
        b'{"a":1,}',
        b"[" * 5000,
        b'{"a":NaN}',
        b'{"a":1}{}',
        b"{'a':1}",
    ],
)
def test_what_is_no_json_object_is_refused_as_such(body: bytes) -> None:
    assert (refusal(body).status, refusal(body).code) == (400, "invalid_json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "content",
                        "role",
                        "type",
                        "text",
                        "image_url",
                        "url",
                        "model",
                        "input",
                        "source",
                        "data",
                        "output",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_a_call_or_a_refusal(body: object) -> None:
    for path in (CHAT, "/v1/responses", "/v1/messages"):
        try:
            call(body, path)
        except Refusal as refused:
            assert refused.status in (400, 404)  # noqa: PT017


def test_parts_nested_beyond_reason_are_refused_or_taken_without_harm() -> None:
    for depth in (400, 600):
        part = b'[{"type":"tool_result","content":' * depth + b'"end"' + b"}]" * depth
        try:
            call(b'{"messages":[{"role":"user","content":' + part + b"}]}")
        except Refusal as refused:
            assert refused.code == ("too_deep" if depth == 400 else "invalid_json")  # noqa: PT017


TEMPLATES = FieldPolicy(allowed=("chat_template_kwargs",))


@pytest.mark.parametrize(("depth", "taken"), [(200, True), (300, False), (1000, False)])
def test_what_is_read_and_cannot_be_written_again_is_refused(depth: int, taken: bool) -> None:
    inner = b"[" * depth + b"]" * depth
    body = b'{"chat_template_kwargs":{"x":%b},%b"messages":[{"role":"user","content":"x"}]}'
    assert call(body % (inner, b""), fields=TEMPLATES).body == body % (inner, b"")
    if taken:
        assert inner in call(body % (inner, b'"enable_thinking":true,'), fields=TEMPLATES).body
    else:
        refused = refusal(body % (inner, b'"enable_thinking":true,'), fields=TEMPLATES)
        assert (refused.code, refused.param) == ("invalid_json", "chat_template_kwargs")


def test_an_unknown_model_is_told_the_names_that_are_served() -> None:
    refused = refusal(chat(model="gpt-4o"))
    assert (refused.status, refused.code, refused.param) == (404, "model_not_found", "model")
    assert "'gpt-4o'" in refused.message
    assert "demo, alias, text, ears" in refused.message


def test_the_name_of_an_unknown_model_is_not_told_at_any_length() -> None:
    assert len(refusal(chat(model="x" * 100_000)).message) < 1000


def test_a_model_is_asked_only_what_it_can_do() -> None:
    assert refusal(chat(model="ears")).code == "model_cannot"
    assert refusal(chat([image(png())], model="text")).code == "no_vision"
    assert call(chat(model="alias")).model is SEES
    assert call(chat()).model is SEES


def test_the_body_goes_on_as_it_came() -> None:
    raw = b' {"messages" : [ {"role":"user", "content":"\\u70b9 \xe7\x82\xb9"} ],\n"new": 1e3 }'
    assert call(raw).body is raw


def test_enable_thinking_reaches_the_chat_template_and_nothing_else_changes() -> None:
    raw = b'{"messages":[{"role":"user","content":"x"}] , "enable_thinking": false}'
    body = call(raw).body
    assert body == b'{"chat_template_kwargs":{"enable_thinking":false},' + raw[1:]


def test_what_the_client_gave_the_template_itself_wins() -> None:
    kwargs = {"enable_thinking": False, "thinking_budget": 1}
    body = call(chat(enable_thinking=True, chat_template_kwargs=kwargs)).body
    assert orjson.loads(body)["chat_template_kwargs"] == kwargs


def test_reasoning_is_split_only_for_chats_that_ask() -> None:
    assert call(chat(return_reasoning=True)).split_reasoning
    assert not call(chat(return_reasoning=False)).split_reasoning
    assert not call(chat()).split_reasoning


def test_pictures_are_counted_as_tokens_and_not_as_text() -> None:
    text = call(chat("x")).cost_tokens
    small, large = call(chat([image(png())])).cost_tokens, call(chat([image(png(1080, 2400))])).cost_tokens
    assert text < small < large
    assert abs(large - text - 3354) < 50


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_image", "image_url": png(1080, 2400)}],
        [
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": png(1080, 2400)[22:]},
            }
        ],
        [{"type": "tool_result", "content": [image(png(1080, 2400))]}],
    ],
)
def test_a_picture_is_seen_in_every_dialect(content: object) -> None:
    assert call(chat(content)).cost_tokens > 3354


def test_a_picture_too_large_to_decode_is_refused() -> None:
    refused = refusal(chat([image(png(50_000, 20_000))]))
    assert refused.code == "image_too_large"
    assert "50000x20000" in refused.message


def test_remote_pictures_pass_where_they_are_allowed() -> None:
    assert call(chat([image("https://example.com/a.png")]), remote=True)
    assert refusal(chat([image("ftp://example.com/a.png")]), remote=True).code == "media_not_allowed"


def test_an_upload_is_routed_by_its_form() -> None:
    path, kind = "/v1/audio/transcriptions", b"multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = part % (b"file", b"RIFF") + part % (b"model", b"ears") + b"--b--\r\n"
    admitted = call(body, path, kind=kind)
    assert (admitted.model, admitted.body, admitted.content_type) == (HEARS, body, kind)
    assert refusal(part % (b"model", b"ears"), path, kind=kind).param == "file"
    assert refusal(part % (b"file", b"x") + part % (b"model", b"no"), path, kind=kind).status == 404
    assert refusal(b"{}", path).code == "not_multipart"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ("/v1/chat/completions", {"modalities": ["text", "audio"]}, "modalities"),
        ("/v1/chat/completions", {"web_search_options": {}}, "web_search_options"),
        ("/v1/chat/completions", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("/v1/responses", {"input": "x", "tools": [{"type": "function"}, {"type": "mcp"}]}, "tools[1].type"),
        ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format"),
        ("/v1/completions", {"prompt": "x", "echo": True}, "echo"),
        ("/v1/completions", {"prompt": "x", "logprobs": 2}, "logprobs"),
        ("/v1/completions", {"prompt": "x", "best_of": 2}, "best_of"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
    ],
)
def test_what_the_engine_would_pass_over_is_refused_and_what_to_do_instead_is_said(
    path: str, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "x"}], **fields}
    request = Request(method=b"POST", path=path, headers={}, body=orjson.dumps(body), started_s=0)
    llama, external = (
        FleetView(models=(replace(SEES, undone=engine.undone),)) for engine in (LlamaCpp, External)
    )
    with pytest.raises(Refusal) as caught:
        admit(request, ENDPOINTS[path], llama, MediaPolicy())
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "not_supported", param)
    assert admit(request, ENDPOINTS[path], external, MediaPolicy())  # somebody else's may do it


def test_what_every_engine_does_is_not_refused() -> None:
    roles = ["system", "developer", "user", "assistant", "tool"]
    body = {
        "messages": [{"role": role, "content": "x"} for role in roles],
        "modalities": ["text"],
        "logprobs": True,
    }
    body |= {"tools": [{"type": "function", "function": {"name": "tap"}}], "web_search_options": None}
    path = "/v1/chat/completions"
    request = Request(method=b"POST", path=path, headers={}, body=orjson.dumps(body), started_s=0)
    fleet = FleetView(models=(replace(SEES, undone=LlamaCpp.undone),))
    assert not admit(request, ENDPOINTS[path], fleet, MediaPolicy()).tool_call
