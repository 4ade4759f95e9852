"""The GGUF reader: what it finds in a good header, and that no bytes at all can hurt it."""

import io
import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.demo import demo_model, demo_speech
from autoglm_serve.probe.gguf import GgufError, GgufFacts, parse_gguf, read_gguf
from tests.probe.gguf_bytes import F32, Q4_K, TEXT_MODEL, TOWER, Tensor, header, model_bytes


def parsed(data: bytes) -> GgufFacts:
    return parse_gguf(io.BytesIO(data), len(data))


def refused(data: bytes) -> str:
    with pytest.raises(GgufError) as why:
        parsed(data)
    return str(why.value)


# --- what is in a header


def test_the_facts_of_a_text_model() -> None:
    facts = parsed(model_bytes())
    assert facts == GgufFacts(
        architecture="glm4",
        name="A Phone",
        context_length=65_536,
        n_layers=40,
        n_kv_heads=2,
        head_dim=128,
        embedding_length=4096,
        parameters=32,
        tensor_bytes=128,
        vocabulary=3,
    )
    assert not facts.is_mmproj


def test_the_facts_of_a_vision_tower() -> None:
    facts = parsed(header(TOWER))
    assert facts.is_mmproj
    assert facts.vision is not None
    assert (facts.vision.patch_px, facts.vision.merge) == (14, None)


def test_heads_that_differ_by_layer_count_by_their_largest() -> None:
    facts = parsed(header({**TEXT_MODEL, "glm4.attention.head_count_kv": [1, 8, 2]}))
    assert facts.n_kv_heads == 8


def test_the_size_of_a_quantised_tensor_is_counted_in_blocks() -> None:
    data = header(TEXT_MODEL, [Tensor(name="w", shape=(512,), kind=Q4_K)])
    assert parsed(data + b"\0" * 288).tensor_bytes == 288


def test_version_2_is_read_too() -> None:
    assert parsed(header(TEXT_MODEL, version=2)).architecture == "glm4"


def test_the_demo_models_are_read() -> None:
    model, tower, speech = (
        read_gguf(path) for path in (demo_model().gguf, demo_model().mmproj, demo_speech().mmproj)
    )
    assert (model.architecture, model.context_length) == ("glm4", 16384)
    assert tower.vision is not None
    assert speech.vision is None


def test_the_data_of_the_tensors_is_not_read(tmp_path: Path) -> None:
    """A sparse file of a terabyte takes no longer than its header."""
    path = tmp_path / "huge.gguf"
    path.write_bytes(header(TEXT_MODEL, [Tensor(name="w", shape=(2**38,))]))
    with path.open("r+b") as file:
        file.truncate(2**40 + 4096)
    assert read_gguf(path).tensor_bytes == 2**40


# --- what is wrong with a file


@pytest.mark.parametrize("data", [b"", b"GG", b"GGUF", b"GGUF\x03\0\0\0"])
def test_a_file_that_ends_in_its_header(data: bytes) -> None:
    assert "in the middle of its header" in refused(data)


@pytest.mark.parametrize("data", [b"PK\x03\x04" + b"x" * 64, b"ggml" * 32, b"<!DOCTYPE html>" * 8])
def test_a_file_that_is_something_else(data: bytes) -> None:
    assert "not with b'GGUF'" in refused(data)


def test_a_version_that_is_not_known() -> None:
    assert "version 99" in refused(header(TEXT_MODEL, version=99))


def test_a_big_endian_file_is_an_unknown_version() -> None:
    assert "version 50331648" in refused(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))


def test_a_header_without_an_architecture() -> None:
    assert "general.architecture" in refused(header({"general.name": "x"}))


def test_tensors_that_lie_behind_the_end() -> None:
    message = refused(header(TEXT_MODEL, [Tensor(name="w", shape=(1024,), offset=64)]) + b"\0" * 100)
    assert "cut short" in message


@pytest.mark.parametrize("size", [0, 1, 31, 127])
def test_every_missing_byte_of_the_data_is_noticed(size: int) -> None:
    head = header(TEXT_MODEL, [Tensor(name="w", shape=(4, 8), kind=F32)])
    assert "cut short" in refused(head + b"\0" * size)


@pytest.mark.parametrize("count", [2**31, 2**63, 2**64 - 1])
def test_a_count_larger_than_the_file_is_not_believed(count: int) -> None:
    assert refused(b"GGUF" + struct.pack("<IQQ", 3, 0, count) + b"\0" * 64)
    assert refused(b"GGUF" + struct.pack("<IQQ", 3, count, 0) + b"\0" * 64)


@pytest.mark.parametrize("kind", [0, 8, 9, 12, 13, 255])
@pytest.mark.parametrize("count", [2**32, 2**64 - 1])
def test_an_array_longer_than_the_file_is_not_believed(kind: int, count: int) -> None:
    key = struct.pack("<Q", 1) + b"k"
    array = struct.pack("<IIQ", 9, kind, count)
    assert refused(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + array + b"\0" * 64)


WHOLE = model_bytes()


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_anywhere_is_noticed(at: int) -> None:
    assert refused(WHOLE[:at])


@settings(deadline=None)  # a busy machine is no fault
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for candidate in (data, b"GGUF\x03\0\0\0" + data):
        with suppress(GgufError):
            parsed(candidate)


@settings(deadline=None)  # a busy machine is no fault
@given(st.data())
def test_a_good_file_with_some_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for position in data.draw(st.lists(st.integers(0, len(WHOLE) - 1), min_size=1, max_size=8)):
        damaged[position] = data.draw(st.integers(0, 255))
    with suppress(GgufError):
        parsed(bytes(damaged))


# --- files that claim more than they are


def sparse(path: Path, data: bytes, size: int = 2**40) -> Path:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path


def test_a_sparse_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Each of these would take hours, or all memory: the file is as long as its header claims."""
    counts = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**36)
    text = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q1sIQ", 1, b"a", 8, 2**39)
    words = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 2**36)
    tensors = struct.pack("<4sIQQ", b"GGUF", 3, 2**35, 0)
    for number, data in enumerate((counts, text, words, tensors)):
        with pytest.raises(GgufError, match="claims more"):
            read_gguf(sparse(tmp_path / f"{number}.gguf", data))


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(GgufError, match="no regular file"):
        read_gguf(tmp_path / "m.gguf")


def test_a_negative_size_is_none(tmp_path: Path) -> None:
    facts = parsed(header({**TEXT_MODEL, "glm4.attention.head_count_kv": [-8, -2]}))
    assert facts.n_kv_heads == 32
