"""Published holes of vLLM, llama.cpp and SGLang: each that a request can reach is tried, and stops here.

The table in docs/security.md lists these and those that no request can reach; a test holds the two together.
"""

import base64
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from autoglm_serve.core.fleet import FleetView, ModelView
from autoglm_serve.core.model import Capability, VisionGeometry
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.gateway.access.doors import DoorPolicy, Doors
from autoglm_serve.gateway.admission.admit import admit
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.wire.http import Request
from tests.fakes.pictures import png

TABLE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
MODEL = ModelView(
    names=("demo",),
    capabilities=frozenset(Capability),
    vision=VisionGeometry(),
    vocabulary=1_000,
)
CHAT, PLAIN, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
JPEG = png(8, 8).partition(",")[2]
"""A frame; that it is a PNG is all the same to who counts them."""


def refused(body: object, path: str) -> str:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    request = Request(method=b"POST", path=path, headers={}, body=raw, started_s=0.0)
    with pytest.raises(Refusal) as caught:
        admit(request, ENDPOINTS[path], FleetView(models=(MODEL,)), MediaPolicy())
    return caught.value.code


def chat(*parts: object, **fields: object) -> dict[str, object]:
    content = [*parts, {"type": "text", "text": "hi"}]
    return {"messages": [{"role": "user", "content": content}], **fields}


def picture(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def with_schema(schema: object) -> dict[str, object]:
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


BROKEN = "data:image/png;base64," + base64.b64encode(b"no picture at all").decode()
JPEG2000 = "data:image/jp2;base64," + base64.b64encode(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)).decode()
FRAMES = "data:video/jpeg;base64," + ",".join([JPEG] * 5_000)
URL = {"url": "http://evil.example/x"}
COUNTS = "((a{1000}){1000}){1000}"
INLINE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "bm8gcGljdHVyZQ=="},
}
HOT = b'{"messages":[{"role":"user","content":"x"}],"temperature":%b}'

ATTACKS: list[tuple[str, str, object, str]] = [
    ("GHSA-h3rc-6mm3-gc2m", CHAT, chat(mm_processor_kwargs={"code_revision": "x"}), "field_not_allowed"),
    ("CVE-2026-93592", EMBED, {"input": [-1]}, "out_of_bounds"),
    ("CVE-2026-93592", EMBED, {"input": [[5, -7]]}, "out_of_bounds"),
    ("CVE-2026-73560", CHAT, chat(picture("/etc/passwd")), "media_not_allowed"),
    ("CVE-2026-73560", CHAT, chat({"type": "image", "image": "http://10.0.0.1/"}), "media_not_allowed"),
    ("CVE-2026-73560", CHAT, chat({"type": "audio", "audio_url": "file:///x"}), "media_not_allowed"),
    ("CVE-2026-73556", PLAIN, {"prompt": "x", "structured_outputs": {"regex": COUNTS}}, "out_of_bounds"),
    ("CVE-2026-73555", CHAT, b'{"messages": [', "invalid_json"),
    ("CVE-2026-55514", PLAIN, {"prompt": "x", "prompt_embeds": "UEsD"}, "field_not_allowed"),
    ("CVE-2026-55574", CHAT, chat(structured_outputs={"regex": COUNTS}), "out_of_bounds"),
    ("CVE-2026-55574", CHAT, chat(structured_outputs={"regex": "(a?){1000}" * 300}), "out_of_bounds"),
    ("CVE-2026-54235", CHAT, HOT % b"NaN", "invalid_json"),
    ("CVE-2026-54235", CHAT, HOT % b"Infinity", "invalid_json"),
    ("CVE-2026-54235", CHAT, HOT % b"1e999", "invalid_json"),
    ("CVE-2026-54235", CHAT, chat(temperature="NaN"), "wrong_type"),
    ("CVE-2026-54236", "/v1/messages", {"max_tokens": 5, **chat(INLINE)}, "invalid_image"),
    ("CVE-2026-5497", CHAT, chat({"type": "video_url", "video_url": {"url": FRAMES}}), "too_many_frames"),
    ("CVE-2026-34755", CHAT, chat({"type": "video_url", "video_url": {"url": FRAMES}}), "too_many_frames"),
    ("CVE-2026-34756", CHAT, chat(n=1_000_000), "out_of_bounds"),
    ("CVE-2026-34756", PLAIN, {"prompt": ["x"] * 64, "n": 64}, "out_of_bounds"),
    ("CVE-2026-25960", CHAT, chat(picture("https://a.example\\@10.0.0.1/x.png")), "media_not_allowed"),
    ("CVE-2026-24779", CHAT, chat(picture("http://10.0.0.1\\@a.example/x.png")), "media_not_allowed"),
    ("CVE-2026-22778", CHAT, chat(picture(BROKEN)), "invalid_image"),
    ("CVE-2026-22778", CHAT, chat(picture(JPEG2000)), "unsupported_image"),
    ("CVE-2026-22778", CHAT, chat({"type": "video_url", "video_url": URL}), "media_not_allowed"),
    ("CVE-2026-56340", PLAIN, {"prompt": "x", "prompt_embeds": ["UEsD"]}, "field_not_allowed"),
    ("CVE-2025-62426", CHAT, chat(chat_template_kwargs={"tokenize": True}), "field_not_allowed"),
    ("CVE-2025-62372", CHAT, chat({"type": "image_embeds", "image_embeds": "UEsD"}), "media_not_allowed"),
    ("CVE-2025-62164", PLAIN, {"prompt": "x", "prompt_embeds": "UEsD"}, "field_not_allowed"),
    ("CVE-2025-61620", CHAT, chat(chat_template="{% for i in x %}{% endfor %}"), "field_not_allowed"),
    ("CVE-2025-61620", CHAT, chat(chat_template_kwargs={"chat_template": "x"}), "field_not_allowed"),
    ("CVE-2025-6242", CHAT, chat(picture("http://169.254.169.254/latest/meta-data")), "media_not_allowed"),
    ("CVE-2025-48944", CHAT, with_schema(nested(200)), "out_of_bounds"),
    ("CVE-2025-48943", CHAT, chat(structured_outputs={"regex": "(" * 3_000}), "out_of_bounds"),
    ("CVE-2025-46570", CHAT, chat(cache_salt="x"), "field_not_allowed"),
    ("CVE-2025-29770", CHAT, chat(guided_grammar="a" * 20_000), "out_of_bounds"),
    ("CVE-2025-32381", CHAT, with_schema({"enum": ["x" + str(i) for i in range(2_000)]}), "out_of_bounds"),
    ("CVE-2024-8939", PLAIN, {"prompt": "x", "best_of": 100_000}, "out_of_bounds"),
    ("CVE-2024-8768", PLAIN, {"prompt": None}, "missing_field"),
    ("CVE-2026-21869", PLAIN, {"prompt": "x", "n_discard": -5}, "wrong_type"),
    ("CVE-2026-7304", CHAT, chat(custom_logit_processor="gASV"), "field_not_allowed"),
]  # fmt: skip
"""Advisory, path, what is sent, what is said."""

UNPUBLISHED: list[tuple[str, str, object]] = [
    ("tokens beyond the vocabulary end vLLM", CHAT, chat(stop_token_ids=[1_000], min_tokens=1)),
    ("tokens below it, too", CHAT, chat(stop_token_ids=[-1])),
    ("and those that are allowed", CHAT, chat(allowed_token_ids=[999, 5_000])),
    ("and those that are preferred", CHAT, chat(logit_bias={"4711": 5})),
    ("brackets end llama.cpp", CHAT, chat(grammar="root ::= " + "(" * 60_000)),
    ("counts multiply", CHAT, chat(grammar=f"root ::= {COUNTS.replace('a', chr(34) + 'a' + chr(34))}")),
    ("a parser of the client's", CHAT, chat(chat_parser='{"parsers":[]}')),
    ("a window of a hundred million", CHAT, chat(dry_penalty_last_n=100_000_000)),
]

NO_PATH = [
    *("/v1/chat/completions/derender", "/v1/completions/derender", "/pooling", "/tokenize", "/detokenize"),
    *("/invocations", "/update_weights_from_tensor", "/v1/load_lora_adapter", "/slots", "/props"),
]


@pytest.mark.parametrize(("advisory", "path", "body", "code"), ATTACKS)
def test_it_does_not_get_past(advisory: str, path: str, body: object, code: str) -> None:
    assert refused(body, path) == code


@pytest.mark.parametrize(
    ("path", "body"), [each[1:] for each in UNPUBLISHED], ids=[u[0] for u in UNPUBLISHED]
)
def test_what_no_database_has_does_not_get_past_either(path: str, body: object) -> None:
    assert refused(body, path) in ("out_of_bounds", "field_not_allowed")


@pytest.mark.parametrize("path", NO_PATH)
def test_paths_that_holes_were_found_behind_are_not_passed_on(path: str) -> None:
    assert path not in ENDPOINTS


@pytest.mark.parametrize("host", ["localhost/v1/health?", "localhost?x", "a/b", "localhost#"])
def test_a_host_that_steers_a_path_is_none(host: str) -> None:
    """CVE-2026-48746."""
    headers = {b"host": host.encode()}
    request = Request(method=b"GET", path="/", headers=headers, body=b"", started_s=0.0)
    with pytest.raises(Refusal, match="no host"):
        Doors(DoorPolicy()).check(request)


@pytest.mark.parametrize(("version", "first"), [("0.19.1", "CVE-2026-44222"), ("0.26.0", "CVE-2026-73558")])
def test_a_vllm_with_a_hole_that_is_not_stopped_here_is_told_of(version: str, first: str) -> None:
    assert ENGINES["vllm"].holes(version)[0].startswith(first)


def test_a_vllm_without_such_a_hole_is_not_told_of() -> None:
    assert ENGINES["vllm"].holes("0.28.0") == ENGINES["llama.cpp"].holes("2026.10") == ()


def test_what_is_tried_here_is_in_the_table_and_the_other_way_round() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith(("| CVE-", "| GHSA-"))]
    said = {row.split("|")[1].split()[0].strip(",") for row in rows if "`tried`" in row}
    assert said == {advisory for advisory, *_ in ATTACKS}
    assert all(re.match(r"\| (CVE-\d{4}-\d+|GHSA(-\w{4}){3})", row) for row in rows)
    assert len(rows) >= 40
