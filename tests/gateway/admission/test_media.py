"""Sizes of pictures from their first bytes, against the library that really decodes them."""

import base64
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autoglm_serve.gateway.admission.media import NotAPicture, UnreadFormat, is_turned, picture_in, size_of

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
        (data_url(b"%PDF-1.4 ....."), "is a PDF document"),
        (data_url(b"GIF77a....."), "is no PNG"),
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


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_what_a_decoder_would_make_up_of_a_cut_off_picture_is_refused(kind: str) -> None:
    lines = Image.effect_noise((90, 70), 50).convert("RGB" if kind == "JPEG" else "P")
    out = io.BytesIO()
    lines.save(out, kind)
    whole = out.getvalue()
    assert picture_in(data_url(whole))[0].pixels == 90 * 70
    for cut in (len(whole) // 2 // 3 * 3, (len(whole) - 40) // 3 * 3):
        with pytest.raises(NotAPicture, match="is cut off: its end is missing"):
            picture_in(data_url(whole[:cut]))


def test_what_a_phone_appends_behind_a_jpegs_end_is_no_matter() -> None:
    """Motion photos carry a film there, and a small picture of itself lies in front of many."""
    small = picture((8, 8), format="JPEG")
    whole = picture((90, 70), format="JPEG", exif=b"Exif\0\0" + small)
    assert picture_in(data_url(whole + b"SEFT" * 99))[0].width_px == 90
    with pytest.raises(NotAPicture, match="is cut off"):
        picture_in(data_url(whole[: len(whole) - 30]))


# --- turned by their Exif data, and formats of other kinds


def exif(orientation: int, order: bytes = b"II", before: int = 0) -> bytes:
    """An Exif part as cameras write it: so many other tags in front of the orientation."""
    little = order == b"II"

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little" if little else "big")

    tags = [(0x010F, 2), *((0x0100 + at, at) for at in range(before)), (0x0112, orientation)]
    entries = b"".join(
        number(tag, 2) + number(3, 2) + number(1, 4) + number(of, 2) + b"\0\0" for tag, of in tags
    )
    return b"Exif\0\0" + order + number(42, 2) + number(8, 4) + number(len(tags), 2) + entries + bytes(4)


@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.parametrize("before", [0, 12])
def test_a_jpeg_that_its_exif_data_turns_is_known_from_its_header(order: bytes, before: int) -> None:
    for orientation in range(10):
        data = picture((9, 7), format="JPEG", exif=exif(orientation, order, before))
        assert picture_in(data_url(data))[0].turned == (2 <= orientation <= 8)
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.getexif().get(0x0112) == orientation


def test_a_png_that_its_exif_data_turns_is_known_too() -> None:
    for orientation in (1, 6):
        data = picture((9, 7), format="PNG", exif=exif(orientation))
        assert picture_in(data_url(data))[0].turned == (orientation == 6)


@given(st.binary(max_size=300))
def test_damaged_exif_data_turns_nothing_or_is_read(rest: bytes) -> None:
    size = (len(rest) + 8).to_bytes(2, "big")
    is_turned(b"\xff\xd8\xff\xe1" + size + b"Exif\0\0" + rest + b"\xff\xda")
    is_turned(b"\xff\xd8" + rest)
    is_turned(b"\x89PNG\r\n\x1a\n" + rest)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "an AVIF picture"),
        (b"BM" + bytes(60), "a BMP picture"),
        (b"II*\0" + bytes(20), "a TIFF picture"),
        (b"MM\0*" + bytes(20), "a TIFF picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\0\0\0\x20ftypisom" + bytes(20), "a video"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_send_instead(data: bytes, name: str) -> None:
    with pytest.raises(UnreadFormat, match=rf"is {name}.*(PNG|it)"):
        picture_in(data_url(data, "image/jpeg"))
