"""Which files of a repository make a model. Names as they are found on the hubs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.model import ModelFormat
from autoglm_serve.probe.repository import (
    Choice,
    NoModel,
    RemoteFile,
    choose,
    is_mmproj,
    split_parts,
)


def files(*names: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name=name, size_bytes=100 + index) for index, name in enumerate(names))


def chosen(*names: str, quantisation: str | None = None, wanted: ModelFormat | None = None) -> Choice:
    return choose(files(*names), quantisation=quantisation, wanted=wanted)


GGUF_REPOSITORY = (
    "README.md",
    "AutoGLM-Phone-9B-BF16.gguf",
    "AutoGLM-Phone-9B-Q4_K_M.gguf",
    "AutoGLM-Phone-9B-Q4_K_S.gguf",
    "AutoGLM-Phone-9B-Q8_0.gguf",
    "mmproj-AutoGLM-Phone-9B-BF16.gguf",
    "mmproj-AutoGLM-Phone-9B-F16.gguf",
    "mmproj-AutoGLM-Phone-9B-F32.gguf",
)
CHECKPOINT = (
    "README.md",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "chat_template.jinja",
    "pytorch_model.bin",
    "original/consolidated.safetensors",
    "assets/picture.png",
)


def test_without_a_name_the_usual_quantisation_and_a_half_precision_tower() -> None:
    choice = chosen(*GGUF_REPOSITORY)
    assert choice.main == "AutoGLM-Phone-9B-Q4_K_M.gguf"
    assert choice.mmproj == "mmproj-AutoGLM-Phone-9B-F16.gguf"
    assert {file.name for file in choice.files} == {choice.main, choice.mmproj}


@pytest.mark.parametrize("name", ["Q8_0", "q8_0"])
def test_a_quantisation_is_found_in_any_case(name: str) -> None:
    assert chosen(*GGUF_REPOSITORY, quantisation=name).main == "AutoGLM-Phone-9B-Q8_0.gguf"


@pytest.mark.parametrize("name", ["Q4_K", "Q4", "F16", "9B-Q"])
def test_a_part_of_a_name_is_no_match(name: str) -> None:
    with pytest.raises(NoModel, match="it has AutoGLM-Phone-9B-BF16"):
        chosen(*GGUF_REPOSITORY, quantisation=name)


def test_a_single_model_of_any_name_will_do() -> None:
    assert chosen("weights.gguf").main == "weights.gguf"


def test_all_parts_of_a_split_model_come_with_it() -> None:
    parts = [f"Q4_K_M/big-Q4_K_M-0000{i}-of-00003.gguf" for i in (3, 1, 2)]
    choice = chosen(*parts, "Q8_0/big-Q8_0.gguf")
    assert choice.main == "Q4_K_M/big-Q4_K_M-00001-of-00003.gguf"
    assert {file.name for file in choice.files} == set(parts)


def test_a_checkpoint_is_its_weights_and_what_stands_beside_them() -> None:
    choice = chosen(*CHECKPOINT)
    assert choice.format is ModelFormat.HUGGING_FACE
    assert choice.main is None
    assert {file.name for file in choice.files} == {
        *("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "tokenizer.json", "chat_template.jinja"),
    }


def test_where_both_are_there_the_engine_decides() -> None:
    both = (*CHECKPOINT, *GGUF_REPOSITORY)
    assert chosen(*both).format is ModelFormat.HUGGING_FACE
    assert chosen(*both, wanted=ModelFormat.GGUF).format is ModelFormat.GGUF
    assert chosen(*both, quantisation="Q8_0").format is ModelFormat.GGUF


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        ((), None, "neither GGUF nor safetensors"),
        (("pytorch_model.bin", "config.json"), None, "neither GGUF nor safetensors"),
        (CHECKPOINT, ModelFormat.GGUF, "no GGUF"),
        (("a.safetensors",), None, "no config.json"),
        (("mmproj-model-f16.gguf",), None, "neither GGUF nor safetensors"),
    ],
)
def test_a_repository_without_a_model_says_what_is_missing(
    names: tuple[str, ...], wanted: ModelFormat | None, message: str
) -> None:
    with pytest.raises(NoModel, match=message):
        chosen(*names, wanted=wanted)


@pytest.mark.parametrize("name", ["mmproj.gguf", "mmproj-x-f16.gguf", "x-mmproj-F16.GGUF", "d/x.mmproj.gguf"])
def test_a_tower_is_known_by_its_name(name: str) -> None:
    assert is_mmproj(name)


@given(st.integers(1, 99), st.data())
def test_every_part_of_a_split_names_the_same_whole(count: int, data: st.DataObject) -> None:
    parts = split_parts(f"m-00001-of-{count:05d}.gguf")
    assert len(parts) == count
    assert split_parts(data.draw(st.sampled_from(parts))) == parts
