"""Uploads: their fields are read, and nothing that is no form passes for one."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.multipart import MOST_HEAD_BYTES, MOST_PARTS, fields, form, parts
from autoglm_serve.core.refusal import Refusal

NAMES = st.text("abcxyz_-", min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.binary(max_size=40).filter(lambda value: b"----b0und" not in value)))
def test_every_field_is_found_whole(parts: dict[str, bytes]) -> None:
    assert fields(*form(parts, "----b0und")) == parts


@pytest.mark.parametrize("boundary", [b'"----b0und"', b"----b0und; charset=utf-8"])
def test_the_boundary_may_be_quoted_or_followed(boundary: bytes) -> None:
    _, body = form({"model": b"m"}, "----b0und")
    assert fields(b"Multipart/Form-Data; boundary=" + boundary, body) == {"model": b"m"}


def test_a_file_is_a_field_whose_name_is_not_its_filename() -> None:
    head = b'--b\r\nContent-Disposition: form-data; filename="model.wav"; name="file"\r\n'
    body = head + b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--b--\r\n"
    assert fields(b"multipart/form-data; boundary=b", body) == {"file": b"RIFF"}


@pytest.mark.parametrize("content_type", [b"", b"application/json", b"multipart/form-data"])
def test_anything_else_is_refused(content_type: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        fields(content_type, b"{}")
    assert refusal.value.status == 400


@given(st.binary(max_size=200))
def test_garbage_has_no_fields_and_does_no_harm(body: bytes) -> None:
    fields(b"multipart/form-data; boundary=b", body)


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="file"; filename="a; name=\\"model\\".wav"',
        b'form-data; filename="x\\"; name=y"; name="file"',
        b"form-data; name=file",
        b'form-data ; NAME = "file"',
        b'form-data; name="file"; name="model"',
    ],
)
def test_a_name_is_read_as_a_parameter_and_not_found_in_another(disposition: bytes) -> None:
    body = (
        b"--b\r\nContent-Type: audio/wav\r\nContent-Disposition: " + disposition + b"\r\n\r\nx\r\n--b--\r\n"
    )
    assert fields(b"multipart/form-data; boundary=b", body) == {"file": b"x"}


def test_a_delimiter_begins_a_line() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nuse --b here\r\n--b--\r\n'
    assert fields(b"multipart/form-data; boundary=b", body) == {"prompt": b"use --b here"}


def _form_of(count: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    return part * count + b"--b--\r\n"


def test_as_many_parts_are_read_as_is_said_and_one_more_is_refused() -> None:
    kind = b"multipart/form-data; boundary=b"
    assert len(list(parts(kind, _form_of(MOST_PARTS)))) == MOST_PARTS
    with pytest.raises(Refusal) as refusal:
        list(parts(kind, _form_of(MOST_PARTS + 1)))
    assert refusal.value.code == "form_too_large"
    assert str(MOST_PARTS) in refusal.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"content-disposition:" * (2 << 20),
        b"content-disposition: form-data" + b"; x" * (8 << 20),
        b'content-disposition: form-data; name="' + b"\\" * (16 << 20),
        b"\r\n\r\n" * (4 << 20),
        b"\r\n--" * (4 << 20),
        b"\r\n--b" * (4 << 20),
        b"\r\n--b\r\n\r\n" * (2 << 20),
        b"-" * (32 << 20),
        b"\r" * (32 << 20),
    ],
)
def test_no_form_costs_more_than_to_pass_over_it(content: bytes) -> None:
    body = b"--b\r\n" + content
    begun_s = time.process_time()
    for boundary in (b"b", b"-" * 69 + b"b", b"\r" * 9):
        with contextlib.suppress(Refusal):
            assert len(list(parts(b"multipart/form-data; boundary=" + boundary, body))) <= MOST_PARTS
    assert time.process_time() - begun_s < 1.0  # a quadratic reader takes minutes


def test_a_head_is_read_up_to_its_bound() -> None:
    kind = b"multipart/form-data; boundary=b"
    head = (
        b'--b\r\nContent-Disposition: form-data; name="x"; filename="' + b"a" * MOST_HEAD_BYTES + b'"\r\n\r\n'
    )
    with pytest.raises(Refusal) as refusal:
        fields(kind, head + b"1\r\n--b--\r\n")
    assert str(MOST_HEAD_BYTES) in refusal.value.message
