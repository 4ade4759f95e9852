"""Which files of a repository make a model: the choice, apart from any download. Pure.

A repository may hold one model in ten quantisations, split files, a vision tower in three precisions, and
weights in formats nobody asked for. `choose` names what is needed and no more.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from autoglm_serve.core.model import ModelFormat

QUANTISATIONS = ("Q4_K_M", "Q5_K_M", "Q4_K_S", "Q5_K_S", "Q6_K", "Q8_0", "Q4_0", "BF16", "F16", "F32")
"""Where nobody names one: the first of these that is there. Q4_K_M is small and costs little quality."""
MMPROJ_PRECISIONS = ("F16", "BF16", "Q8_0", "F32")
"""The tower is small and sensitive, so half precision comes first."""

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_NEEDED_BESIDE_WEIGHTS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of a repository."""

    name: str
    """Its path inside the repository."""
    size_bytes: int | None = None
    """None where the hub does not say (a mirror that lists names alone): nothing is held against it then."""
    sha256: str | None = None
    """Where the hub keeps it with its checksum (large files)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to download. `main` is the GGUF to load; None where the folder as a whole is the model."""

    format: ModelFormat
    files: tuple[RemoteFile, ...]
    main: str | None = None
    mmproj: str | None = None

    @property
    def size_bytes(self) -> int | None:
        """Of all its files; None where the size of one is not known."""
        sizes = [file.size_bytes for file in self.files]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


class NoModel(ValueError):
    """The repository has no such model; the message says what it has instead."""


def is_mmproj(name: str) -> bool:
    return name.lower().endswith(".gguf") and "mmproj" in PurePosixPath(name).name.lower()


def split_parts(name: str) -> tuple[str, ...]:
    """Every file of a split GGUF, from the name of one; the name alone where it is not split."""
    found = _SPLIT.search(name)
    if not found:
        return (name,)
    stem, count = name[: found.start()], int(found[2])
    return tuple(f"{stem}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1))


def choose(files: Sequence[RemoteFile], *, quantisation: str | None, wanted: ModelFormat | None) -> Choice:
    """The files of one model; raises NoModel."""
    models = tuple(f for f in files if f.name.lower().endswith(".gguf") and not is_mmproj(f.name))
    weights = tuple(f for f in files if f.name.endswith(".safetensors"))
    if quantisation is not None or wanted is ModelFormat.GGUF or (models and not weights):
        return _gguf(files, models, quantisation)
    if not weights:
        raise NoModel("it holds neither GGUF nor safetensors files")
    return _checkpoint(files, weights)


def _gguf(files: Sequence[RemoteFile], models: Sequence[RemoteFile], quantisation: str | None) -> Choice:
    if not models:
        raise NoModel("it holds no GGUF file")
    main = _first_part(_of_quantisation(models, quantisation))
    parts = frozenset(split_parts(main.name))
    towers = [file for file in files if is_mmproj(file.name)]
    tower = _best(towers, MMPROJ_PRECISIONS) if towers else None
    needed = tuple(file for file in files if file.name in parts)
    return Choice(
        format=ModelFormat.GGUF,
        files=needed if tower is None else (*needed, tower),
        main=main.name,
        mmproj=tower.name if tower else None,
    )


def _of_quantisation(models: Sequence[RemoteFile], quantisation: str | None) -> RemoteFile:
    if quantisation is None:
        return _best(models, QUANTISATIONS)
    for file in models:
        if _has(file.name, quantisation):
            return file
    names = ", ".join(sorted({PurePosixPath(file.name).name for file in models})[:12])
    raise NoModel(f"none of its GGUF files is a {quantisation}; it has {names}")


def _best(files: Sequence[RemoteFile], preferred: Iterable[str]) -> RemoteFile:
    """The first in order of preference; without a match the smallest."""
    for tag in preferred:
        for file in files:
            if _has(file.name, tag):
                return file
    return min(files, key=lambda file: (file.size_bytes or 0, file.name))


def _has(name: str, tag: str) -> bool:
    """The tag stands by itself in the name: Q4_K is not in Q4_K_M."""
    return re.search(rf"(?<![A-Z0-9_]){re.escape(tag)}(?![A-Z0-9_])", name, re.IGNORECASE) is not None


def _first_part(file: RemoteFile) -> RemoteFile:
    first = split_parts(file.name)[0]
    return RemoteFile(name=first, size_bytes=file.size_bytes)


def _checkpoint(files: Sequence[RemoteFile], weights: Sequence[RemoteFile]) -> Choice:
    top = tuple(file for file in weights if "/" not in file.name) or weights
    if not any(file.name == "config.json" for file in files):
        raise NoModel("it holds safetensors files but no config.json")
    beside = (f for f in files if "/" not in f.name and f.name.endswith(_NEEDED_BESIDE_WEIGHTS))
    return Choice(format=ModelFormat.HUGGING_FACE, files=(*beside, *top))
