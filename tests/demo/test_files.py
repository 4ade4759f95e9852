"""What ships is whole, small enough, and is what the scripts make."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import ImageFont

from autoglm_serve import demo
from autoglm_serve.demo import paint, words
from autoglm_serve.deploy.embedded import require_as_shipped

MODELS = (demo.demo_model(), demo.demo_speech())
SHIPPED_AT_MOST_BYTES = 32_000_000


def test_no_shipped_file_is_damaged() -> None:
    recorded = json.loads((demo.FILES / "checksums.json").read_text(encoding="utf-8"))
    found = {name: hashlib.sha256((demo.FILES / name).read_bytes()).hexdigest() for name in recorded}
    assert found == recorded


def test_a_file_that_was_changed_is_told_from_one_that_was_shipped(tmp_path: Path) -> None:
    shutil.copytree(demo.FILES / "vision", tmp_path / "vision")
    shutil.copy(demo.FILES / "checksums.json", tmp_path)
    model, tower = tmp_path / "vision" / "model.gguf", tmp_path / "vision" / "mmproj.gguf"
    assert demo.changed((model, tower), tmp_path) == ()
    with model.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"x")
    assert demo.changed((model, tower), tmp_path) == (model,)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_served_is_what_was_shipped(model: demo.DemoModel) -> None:
    require_as_shipped(model)


def test_every_shipped_file_has_a_checksum() -> None:
    recorded = set(json.loads((demo.FILES / "checksums.json").read_text(encoding="utf-8")))
    found = {path.relative_to(demo.FILES).as_posix() for path in demo.FILES.rglob("*") if path.is_file()}
    assert found - {"checksums.json"} == recorded


def test_all_shipped_files_together_stay_small() -> None:
    package = Path(demo.__file__).parent
    shipped = [path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert sum(path.stat().st_size for path in shipped) < SHIPPED_AT_MOST_BYTES


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_folder_is_a_real_architecture(model: demo.DemoModel) -> None:
    config = json.loads((model.hf_dir / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"][0] in {"Glm4vForConditionalGeneration", "GlmAsrForConditionalGeneration"}
    assert config["text_config"]["max_position_embeddings"] >= model.context_tokens


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_heads_divide_for_tensor_parallelism(model: demo.DemoModel) -> None:
    text = json.loads((model.hf_dir / "config.json").read_text(encoding="utf-8"))["text_config"]
    assert text["num_attention_heads"] % 2 == 0
    assert text["num_key_value_heads"] % 2 == 0


def test_the_folder_says_that_attention_has_a_bias() -> None:
    """vLLM takes the config's word, and drops the bias without a word where it is not given."""
    folder = demo.demo_model().hf_dir
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert any(name.endswith("self_attn.q_proj.bias") for name in header)
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    assert text["attention_bias"] is True


def test_the_image_limit_is_the_processors() -> None:
    model = demo.demo_model()
    size = json.loads((model.hf_dir / "preprocessor_config.json").read_text(encoding="utf-8"))["size"]
    assert size["longest_edge"] == 2 * 28 * 28 * (model.image_max_tokens or 0)


@pytest.mark.parametrize("font", paint.FONTS, ids=lambda font: font.name)
def test_the_fonts_hold_every_character_of_the_world(font: Path) -> None:
    loaded = ImageFont.truetype(str(font), 20, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(loaded.getmask("\U0010fffd"))
    letters = {letter for word in words.ALL for letter in word.zh + word.en} - {" "}
    assert [letter for letter in sorted(letters) if bytes(loaded.getmask(letter)) == missing] == []


CONVERTER_NEEDS = ("torch", "transformers", "sentencepiece")


def test_the_gguf_files_are_what_the_converter_makes() -> None:
    absent = [name for name in CONVERTER_NEEDS if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"converting needs {', '.join(absent)} (the extra 'train')")
    convert = importlib.import_module("training.convert")
    assert convert.differing(convert.default_cache()) == []
