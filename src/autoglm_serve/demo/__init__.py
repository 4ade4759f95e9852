"""The bundled demo model: where its files lie and what an engine must know to run it.

Owns the shipped files and their limits. Knows nothing of engines, servers or the network. Read by the
composition root, which serves these two models when nothing else is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    """One shipped model in both formats, with the limits it was trained to."""

    name: str
    hf_dir: Path
    """Hugging Face folder, for transformers and vLLM."""
    gguf: Path
    mmproj: Path
    """The two files llama.cpp loads."""
    context_tokens: int
    image_max_tokens: int | None = None
    """llama.cpp must be given this; the Hugging Face processor carries the same limit."""
    min_audio_s: float | None = None
    max_audio_s: float | None = None
    """Shorter or longer audio must be refused in front of the engine."""


def demo_model() -> DemoModel:
    """The model that sees screens, answers and acts."""
    return DemoModel(
        name="autoglm-phone-demo",
        hf_dir=FILES / "vision" / "hf",
        gguf=FILES / "vision" / "model.gguf",
        mmproj=FILES / "vision" / "mmproj.gguf",
        context_tokens=16384,
        image_max_tokens=330,
    )


def demo_speech() -> DemoModel:
    """The model that writes down spoken commands. One 30 s window: longer audio was never trained."""
    return DemoModel(
        name="glm-asr-demo",
        hf_dir=FILES / "speech" / "hf",
        gguf=FILES / "speech" / "model.gguf",
        mmproj=FILES / "speech" / "mmproj.gguf",
        context_tokens=2048,
        min_audio_s=0.1,
        max_audio_s=29.9,
    )


def changed(files: Iterable[Path], folder: Path = FILES) -> tuple[Path, ...]:
    """Those of the bundled files that are not as they were shipped: damaged, or another's. 5 MB take 5 ms."""
    shipped = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
    return tuple(path for path in files if _sha256(path) != shipped.get(path.relative_to(folder).as_posix()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
