"""Pictures that an engine does not read: the engine gets another, of the same, where it stood."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.model import Feature
from tests.fakes.engine_process import EngineProcess, running_engine
from tests.fakes.pictures import image, png
from tests.gateway.admission.test_media import exif
from tests.gateway.gateway_process import MODEL, GatewayProcess, fleet_of, running_gateway

pytestmark = pytest.mark.process

TEXT = {"type": "text", "text": "点击微信"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[GatewayProcess, EngineProcess]]:
    """A gateway in front of an engine that reads no WebP and turns no picture."""
    with running_engine("--chunks", "4") as engine:
        undone = frozenset({Feature.WEBP, Feature.EXIF_TURNS})
        fleet: FleetView = fleet_of([engine.url], models=(replace(MODEL, undone=undone),))
        with running_gateway(tmp_path, fleet=fleet) as gateway:
            yield gateway, engine


def url_of(kind: str, size: tuple[int, int] = (9, 5), **how: Any) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, "green").save(out, kind, **how)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(out.getvalue()).decode()


def asked(engine: EngineProcess) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(engine.seen(ended=1)[-1]["body"])
    return body


def size_in(url: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size


def test_a_webp_picture_reaches_the_engine_as_png(served: tuple[GatewayProcess, EngineProcess]) -> None:
    gateway, engine = served
    untouched = image(png())
    status, _, body = gateway.chat([image(url_of("WEBP")), untouched, TEXT], temperature=0.5)
    assert (status, b"tok3" in body) == (200, True)
    got = asked(engine)
    first, *rest = got["messages"][0]["content"]
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    assert size_in(first["image_url"]["url"]) == (9, 5)
    assert (rest, got["temperature"]) == ([untouched, TEXT], 0.5)


def test_a_turned_picture_reaches_the_engine_upright(served: tuple[GatewayProcess, EngineProcess]) -> None:
    gateway, engine = served
    assert gateway.chat([image(url_of("JPEG", exif=exif(6)))], stream=True)[0] == 200
    assert size_in(asked(engine)["messages"][0]["content"][0]["image_url"]["url"]) == (5, 9)


def test_bare_base64_keeps_its_form_and_says_its_new_type(
    served: tuple[GatewayProcess, EngineProcess],
) -> None:
    gateway, engine = served
    data = url_of("WEBP").partition(",")[2]
    source = {"type": "base64", "media_type": "image/webp", "data": data}
    body = {
        "model": "demo",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}],
    }
    assert gateway.ask("POST", "/v1/messages", body)[0] == 200
    got = asked(engine)["messages"][0]["content"][0]["source"]
    assert (got["type"], got["media_type"]) == ("base64", "image/png")
    assert size_in("," + got["data"]) == (9, 5)


def test_one_that_is_cut_off_is_refused_by_its_field(served: tuple[GatewayProcess, EngineProcess]) -> None:
    gateway, engine = served
    url = url_of("WEBP", (400, 400), lossless=False)
    status, _, body = gateway.chat(
        [TEXT, image(url[: len(url) // 8 * 4 + len("data:image/webp;base64,") % 4])]
    )
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "invalid_image")
    assert error["param"] == "messages[0].content[1].image_url.url"
    assert engine.seen() == []


def test_a_very_large_body_is_changed_in_its_place(served: tuple[GatewayProcess, EngineProcess]) -> None:
    """Beyond 8 MiB long strings are not parsed at all."""
    gateway, engine = served
    noise = io.BytesIO()
    colours = [Image.effect_noise((2000, 1600), 120) for _ in range(3)]
    Image.merge("RGB", colours).save(noise, "PNG", compress_level=1)
    large = "data:image/png;base64," + base64.b64encode(noise.getvalue()).decode()
    photograph = io.BytesIO()
    Image.effect_noise((900, 700), 90).convert("RGB").save(photograph, "WEBP", quality=90)
    webp = "data:image/webp;base64," + base64.b64encode(photograph.getvalue()).decode()
    status, _, body = gateway.chat([image(webp), image(large)])
    assert (status, b"tok3" in body) == (200, True)
    seen = engine.seen(ended=1)[-1]
    start = seen["body"][:200]
    assert "data:image/png;base64," in start
    assert seen["body_bytes"] > len(large)
