"""`--model` as people give it: paths that are right, and every way in which they are wrong."""

import json
import os
import struct
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.model import ModelFormat
from autoglm_serve.probe.model_files import find_model
from tests.probe.gguf_bytes import TOWER, header, model_bytes


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refused(reference: Path | str, wanted: ModelFormat | None = None) -> ModelError:
    with pytest.raises(ModelError) as why:
        find_model(str(reference), wanted=wanted)
    assert why.value.next_step
    return why.value


def safetensors(size: int = 16, *, present: int | None = None) -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * (size if present is None else present)


# --- files


def test_a_model_without_a_tower(tmp_path: Path) -> None:
    path = put(tmp_path / "m.gguf", model_bytes())
    files = find_model(str(path))
    assert (files.format, files.path, files.mmproj) == (ModelFormat.GGUF, path, None)
    assert files.reference == str(path)


def test_the_tower_beside_a_model_is_found(tmp_path: Path) -> None:
    path = put(tmp_path / "m-Q4_K_M.gguf", model_bytes())
    tower = put(tmp_path / "mmproj-m-F16.gguf", header(TOWER))
    assert find_model(str(path)).mmproj == tower


@pytest.mark.parametrize(
    ("model", "tower"),
    [
        ("phone-9B-Q4_K_M.gguf", "mmproj-phone-9B-F16.gguf"),
        ("tablet-9B-Q4_K_M.gguf", "tablet-9B-mmproj-Q8_0.gguf"),
    ],
)
def test_of_several_towers_the_one_with_the_models_name_is_taken(
    tmp_path: Path, model: str, tower: str
) -> None:
    for name in ("mmproj-phone-9B-F16.gguf", "mmproj-phone-9B-F32.gguf", "tablet-9B-mmproj-Q8_0.gguf"):
        put(tmp_path / name, header(TOWER))
    files = find_model(str(put(tmp_path / model, model_bytes())))
    assert files.mmproj is not None
    assert files.mmproj.name == tower


def test_a_tower_one_folder_up_is_found(tmp_path: Path) -> None:
    """As in repositories with a folder for each quantisation."""
    (tmp_path / "Q8_0").mkdir()
    path = put(tmp_path / "Q8_0" / "phone-9B-Q8_0.gguf", model_bytes())
    tower = put(tmp_path / "mmproj-F16.gguf", header(TOWER))
    assert find_model(str(path)).mmproj == tower


def test_of_several_towers_one_folder_up_only_one_of_the_models_name_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "Q8_0").mkdir()
    path = put(tmp_path / "Q8_0" / "phone-9B-Q8_0.gguf", model_bytes())
    put(tmp_path / "mmproj-llava-F16.gguf", header(TOWER))
    put(tmp_path / "mmproj-gemma-F16.gguf", header(TOWER))
    assert find_model(str(path)).mmproj is None
    tower = put(tmp_path / "mmproj-phone-9B-F16.gguf", header(TOWER))
    assert find_model(str(path)).mmproj == tower


def test_a_tower_that_is_named_is_taken(tmp_path: Path) -> None:
    path = put(tmp_path / "m.gguf", model_bytes())
    put(tmp_path / "mmproj-m-F16.gguf", header(TOWER))
    other = put(tmp_path / "tower.gguf", header(TOWER))
    assert find_model(str(path), mmproj=other).mmproj == other
    with pytest.raises(ModelError, match="There is no vision tower"):
        find_model(str(path), mmproj=tmp_path / "none.gguf")


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "m.gguf", model_bytes())
    monkeypatch.chdir(tmp_path)
    assert find_model("m.gguf").path == tmp_path / "m.gguf"


def test_any_part_of_a_split_model_stands_for_the_whole(tmp_path: Path) -> None:
    for index in (1, 2):
        put(tmp_path / f"m-0000{index}-of-00002.gguf", model_bytes())
    files = find_model(str(tmp_path / "m-00002-of-00002.gguf"))
    assert files.path == tmp_path / "m-00001-of-00002.gguf"


def test_a_split_model_with_a_part_missing(tmp_path: Path) -> None:
    problem = refused(put(tmp_path / "m-00001-of-00002.gguf", model_bytes()))
    assert "m-00002-of-00002.gguf is not beside it" in problem.what


def test_a_file_that_is_not_there_with_its_nearest_neighbour(tmp_path: Path) -> None:
    put(tmp_path / "phone.gguf", model_bytes())
    problem = refused(tmp_path / "phne.gguf")
    assert f"There is no file or folder {tmp_path / 'phne.gguf'}" in problem.what
    assert f"Did you mean {tmp_path / 'phone.gguf'}?" in problem.what


def test_a_relative_path_that_is_nearly_right_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "models" / "phone" / "m.gguf", model_bytes())
    monkeypatch.chdir(tmp_path)
    assert "Did you mean models/phone?" in refused("models/phne").what


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04zip", b"<html>not found</html>", model_bytes()[:-1]])
def test_a_file_that_is_no_whole_gguf(tmp_path: Path, data: bytes) -> None:
    problem = refused(put(tmp_path / "m.gguf", data))
    assert f"{tmp_path / 'm.gguf'} is not a whole GGUF file" in problem.what


def test_a_tower_is_no_model(tmp_path: Path) -> None:
    problem = refused(put(tmp_path / "mmproj.gguf", header(TOWER)))
    assert "mmproj" in problem.what
    assert "general.architecture = clip" in problem.why


def test_a_model_that_calls_itself_a_tower(tmp_path: Path) -> None:
    put(tmp_path / "mmproj-m.gguf", model_bytes())
    assert "is a model of its own" in refused(put(tmp_path / "m.gguf", model_bytes())).what


def test_a_damaged_tower(tmp_path: Path) -> None:
    put(tmp_path / "mmproj.gguf", header(TOWER)[:40])
    assert "mmproj.gguf is not a whole GGUF" in refused(put(tmp_path / "m.gguf", model_bytes())).what


# --- folders


def test_a_folder_with_one_model_and_its_tower(tmp_path: Path) -> None:
    path = put(tmp_path / "m.gguf", model_bytes())
    tower = put(tmp_path / "mmproj.gguf", header(TOWER))
    files = find_model(str(tmp_path))
    assert (files.path, files.mmproj) == (path, tower)


def test_a_folder_with_several_models_names_them(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        put(tmp_path / name, model_bytes())
    problem = refused(tmp_path)
    assert "a.gguf, b.gguf" in problem.what
    assert str(tmp_path / "a.gguf") in problem.next_step


def test_an_empty_folder(tmp_path: Path) -> None:
    assert refused(tmp_path).what == f"{tmp_path} holds no model."


def test_a_checkpoint(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "model.safetensors", safetensors())
    files = find_model(str(tmp_path))
    assert (files.format, files.path) == (ModelFormat.HUGGING_FACE, tmp_path)


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    assert "*.safetensors is not there" in refused(tmp_path).what


def test_a_checkpoint_with_a_shard_missing(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "a.safetensors", safetensors())
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    put(tmp_path / "model.safetensors.index.json", json.dumps(index).encode())
    assert "b.safetensors is not there" in refused(tmp_path).what


@pytest.mark.parametrize("index", [b"", b"[]", b'{"weight_map": 3}', b"\xff"])
def test_a_checkpoint_with_a_damaged_index(tmp_path: Path, index: bytes) -> None:
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "model.safetensors.index.json", index)
    assert "not a safetensors index" in refused(tmp_path).what


@pytest.mark.parametrize(
    "data", [safetensors(present=15), safetensors()[:20], b"", struct.pack("<Q", 2**60), b"<html>" * 9]
)
def test_a_checkpoint_whose_weights_are_cut_short(tmp_path: Path, data: bytes) -> None:
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "model.safetensors", data)
    assert "not a whole safetensors file" in refused(tmp_path).what


# --- formats


def test_a_checkpoint_that_claims_a_header_of_a_terabyte(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    path = put(tmp_path / "model.safetensors", struct.pack("<Q", 2**39))
    os.truncate(path, 2**40)
    assert "claims" in str(refused(tmp_path))


def test_a_checkpoint_with_a_pipe_for_weights(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    os.mkfifo(tmp_path / "model.safetensors")
    assert "no regular file" in str(refused(tmp_path))


def test_an_index_that_names_numbers(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "model.safetensors.index.json", b'{"weight_map": {"w": 1}}')
    assert "1 is not there" in str(refused(tmp_path))


def test_an_engine_that_wants_the_other_format(tmp_path: Path) -> None:
    put(tmp_path / "hf" / "config.json", b"{}")
    put(tmp_path / "hf" / "model.safetensors", safetensors())
    put(tmp_path / "gguf" / "m.gguf", model_bytes())
    assert "expected a GGUF file" in refused(tmp_path / "hf", ModelFormat.GGUF).why
    assert "expected config.json" in refused(tmp_path / "gguf", ModelFormat.HUGGING_FACE).why


def test_a_folder_with_both_serves_either_engine(tmp_path: Path) -> None:
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "model.safetensors", safetensors())
    put(tmp_path / "m.gguf", model_bytes())
    assert find_model(str(tmp_path), wanted=ModelFormat.GGUF).format is ModelFormat.GGUF
    assert find_model(str(tmp_path), wanted=ModelFormat.HUGGING_FACE).format is ModelFormat.HUGGING_FACE


@pytest.mark.parametrize(
    "reference", ["./x/y", "/no/such/folder/x.gguf", "just-a-name", "a/b/c", "~/nope.gguf"]
)
def test_what_looks_like_a_path_is_never_asked_for_on_a_hub(reference: str) -> None:
    assert f"There is no file or folder {reference}" in refused(reference).what
