"""Uploads: their fields are read, and nothing that is no form passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.multipart import fields, form
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
