"""Pictures made readable: what comes out is what went in, upright; what goes wrong takes nothing with it."""

import asyncio
import base64
import io
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from PIL import Image

from autoglm_serve.gateway.media.pictures import PictureProcess, Undecodable
from tests.gateway.admission.test_media import exif

pytestmark = pytest.mark.process

T = TypeVar("T")
CORNERS = {(0, 0): (255, 0, 0), (1, 0): (0, 255, 0), (0, 1): (0, 0, 255), (1, 1): (255, 255, 255)}
WIDE, TALL = 48, 32
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How what is upright lies in a file with this orientation. Source: Exif 2.32, 4.6.4."""


def scene() -> Image.Image:
    """Another colour in each corner, so that every turn and mirror shows."""
    picture = Image.new("RGB", (WIDE, TALL))
    for (right, low), colour in CORNERS.items():
        picture.paste(colour, (right * WIDE // 2, low * TALL // 2, WIDE // (2 - right), TALL // (2 - low)))
    return picture


def encoded(picture: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return base64.b64encode(out.getvalue())


def shown(url: str) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    picture.load()
    return picture


def corners(picture: Image.Image) -> dict[tuple[int, int], tuple[int, ...]]:
    """The colour of each corner, to the nearest of full or none."""
    wide, tall = picture.size
    seen = {}
    for right, low in CORNERS:
        pixel = picture.convert("RGB").getpixel((wide // 4 + right * wide // 2, tall // 4 + low * tall // 2))
        assert isinstance(pixel, tuple)
        seen[right, low] = tuple(255 * (value > 127) for value in pixel)
    return seen


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def readable(*pictures: bytes) -> list[str]:
    process = PictureProcess()
    try:
        return [await process.readable(picture) for picture in pictures]
    finally:
        await process.close()


def test_webp_becomes_a_png_of_the_very_same_pixels() -> None:
    (url,) = run(readable(encoded(scene(), "WEBP", lossless=True)))
    assert url.startswith("data:image/png;base64,")
    assert shown(url).tobytes() == scene().tobytes()


def test_every_turn_and_mirror_comes_out_upright() -> None:
    files = [
        encoded(scene().transpose(turn), "JPEG", quality=95, exif=exif(orientation))
        for orientation, turn in TURNS.items()
    ]
    for url in run(readable(*files)):
        picture = shown(url)
        assert (picture.size, corners(picture)) == ((WIDE, TALL), CORNERS)
        assert not picture.getexif().get(0x0112)  # an engine that turns pictures too would turn it again


def test_what_shines_through_is_white_and_grey_stays() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    through, grey = run(
        readable(encoded(clear, "WEBP"), encoded(Image.new("L", (8, 8), 9), "JPEG", exif=exif(3)))
    )
    assert shown(through).convert("RGB").getpixel((3, 3)) == (255, 255, 255)
    assert shown(grey).mode == "L"


def test_of_an_animation_the_first_frame_is_seen() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    (url,) = run(readable(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)))
    assert shown(url).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_a_photograph_goes_out_as_jpeg_and_a_slash_may_be_escaped() -> None:
    noise = Image.merge("RGB", [Image.effect_noise((2400, 1800), 90) for _ in range(3)])
    photograph = encoded(noise, "WEBP", quality=80)
    (url,) = run(readable(photograph.replace(b"/", b"\\/")))
    assert url[:23] == "data:image/jpeg;base64,"
    assert shown(url).size == noise.size


def test_what_cannot_be_decoded_is_said_and_the_next_picture_is_read() -> None:
    async def go() -> None:
        process = PictureProcess()
        whole = encoded(scene(), "WEBP", lossless=True)
        for bad in (whole[: len(whole) // 8 * 4], base64.b64encode(b"RIFF\xff\0\0\0WEBPVP8 garbage"), b"###"):
            with pytest.raises(Undecodable, match="cannot be decoded"):
                await process.readable(bad)
        assert await process.readable(whole)
        await process.close()

    run(go())


def test_a_decoder_that_dies_or_hangs_takes_one_picture_with_it(tmp_path: Any) -> None:
    """The program dies of the first picture, hangs at the second, and is itself from then on."""
    count = tmp_path / "starts"
    program = (
        "import os, sys, time, pathlib\n"
        f"p = pathlib.Path({str(count)!r}); n = len(p.read_text()) if p.exists() else 0\n"
        "p.write_text('x' * (n + 1))\n"
        f"n or os.kill(os.getpid(), {signal.SIGKILL})\n"
        "n == 1 and sys.stdin.read()\n"
        "from autoglm_serve.gateway.media.picture_process import main; main()"
    )

    async def go() -> None:
        process = PictureProcess((sys.executable, "-c", program), timeout_s=1.0)
        whole = encoded(scene(), "WEBP", lossless=True)
        with pytest.raises(Undecodable, match="more than its decoder takes"):
            await process.readable(whole)
        with pytest.raises(Undecodable, match="too long"):
            await process.readable(whole)
        await process.close()
        process = PictureProcess((sys.executable, "-c", program))
        assert await process.readable(whole)
        await process.close()

    run(go())


def test_one_who_leaves_in_the_middle_does_not_get_anothers_picture() -> None:
    async def go() -> None:
        process = PictureProcess()
        first, second = encoded(Image.new("RGB", (2000, 2000), "red"), "WEBP"), encoded(scene(), "WEBP")
        leaving = asyncio.create_task(process.readable(first))
        waiting = asyncio.create_task(process.readable(second))
        await asyncio.sleep(0)
        leaving.cancel()
        assert shown(await waiting).size == (WIDE, TALL)
        await process.close()

    run(go())


def test_the_process_ends_with_whoever_started_it() -> None:
    async def go() -> None:
        process = PictureProcess()
        await process.readable(encoded(scene(), "WEBP"))
        inner = process._process
        assert inner is not None
        process._let_go()
        assert await inner.wait() == 0
        assert await process.readable(encoded(scene(), "WEBP"))  # another begins
        await process.close()

    run(go())
