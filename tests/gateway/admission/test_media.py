"""Sizes of pictures from their first bytes, against the library that really decodes them."""

import base64
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autoglm_serve.gateway.admission.media import NotAPicture, picture_in, size_of

VARIANTS: dict[str, dict[str, object]] = {
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "jpeg": {"format": "JPEG"},
    "jpeg progressive": {"format": "JPEG", "progressive": True},
    "jpeg exif": {"format": "JPEG", "exif": b"Exif\0\0" + b"e" * 60_000},
    "jpeg icc": {"format": "JPEG", "icc_profile": b"i" * 200_000},
    "webp lossy": {"format": "WEBP"},
    "webp lossless": {"format": "WEBP", "lossless": True},
    "webp extended": {"format": "WEBP", "exif": b"Exif\0\0" + b"e" * 100},
}


def picture(size: tuple[int, int], **how: object) -> bytes:
    out = io.BytesIO()
    mode = "P" if how["format"] == "GIF" else "RGB"
    Image.new(mode, size).save(out, **how)  # type: ignore[arg-type]
    return out.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_the_size_is_the_one_that_pillow_wrote(variant: str, width: int, height: int) -> None:
    data = picture((width, height), **VARIANTS[variant])
    seen, usual = picture_in(data_url(data))
    assert (seen.width_px, seen.height_px, seen.frames, usual) == (width, height, 1, None)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_picture_has_a_size_or_is_no_picture(variant: str, data: st.DataObject) -> None:
    whole = picture((30, 20), **VARIANTS[variant])
    cut = whole[: data.draw(st.integers(0, min(len(whole), 300)))]
    at = data.draw(st.integers(0, len(cut)))
    damaged = cut[:at] + data.draw(st.binary(max_size=8)) + cut[at + 4 :]
    assert_sized_or_refused(data_url(damaged))


@given(st.text(max_size=80) | st.binary(max_size=80).map(data_url))
def test_garbage_is_no_picture(text: str) -> None:
    for url in (text, f"data:image/png;base64,{text}", f"data:{text}"):
        assert_sized_or_refused(url)


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8"]))
def test_a_magic_number_promises_nothing(rest: bytes, magic: bytes) -> None:
    size_of(magic + rest)


def assert_sized_or_refused(url: str) -> None:
    try:
        seen = picture_in(url)[0]
    except NotAPicture as refusal:
        assert str(refusal).startswith("is ")  # noqa: PT017
    else:
        assert seen.pixels > 0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("data:image/png;base64", "is not a data URL"),
        ("data:image/png,abc", "without ;base64"),
        ("data:image/png;base64,", "is no PNG"),
        ("data:image/png;base64,!!!!", "is not valid base64"),
        ("data:image/png;base64,été!", "is not valid base64"),
        (data_url(b"%PDF-1.4 ....."), "is no PNG"),
        (data_url(picture((9, 9), format="PNG"))[:-3], "cut off"),
        (data_url(picture((9, 9), format="PNG")[:20]), "cut off in its header"),
    ],
)
def test_the_refusal_says_what_is_wrong(url: str, why: str) -> None:
    with pytest.raises(NotAPicture, match=why):
        picture_in(url)


def test_a_jpeg_whose_segments_never_end_is_given_up() -> None:
    endless = b"\xff\xd8" + b"\xff\xe1\xff\xff" * 1_000_000
    assert_sized_or_refused(data_url(endless, "image/jpeg"))


def test_a_jpeg_segment_that_claims_no_length_does_not_stop_the_walk() -> None:
    assert size_of(b"\xff\xd8" + b"\xff\xe1\x00\x00" * 1000) is None
