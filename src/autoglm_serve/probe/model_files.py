"""From what a person gave as `--model` to files that are here and whole as far as their headers go.

A GGUF file, a folder, or a repository of a hub. Whatever is wrong is a `ModelError` that names the path or id
and what was expected. Knows no engine; blocks, so call it in a thread.
"""

import difflib
import json
import re
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.probe import hub as hubs
from autoglm_serve.probe.checkpoint import read_header
from autoglm_serve.probe.gguf import GgufError, GgufFacts, read_gguf
from autoglm_serve.probe.repository import MMPROJ_PRECISIONS, is_mmproj, split_parts

REPOSITORY = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<quantisation>[\w.-]+))?")
_ALIKE = 4
"""Letters that a tower of another folder has to share with the model's name, where it is not the only one."""
SAFETENSORS_INDEX = "model.safetensors.index.json"


def find_model(
    reference: str,
    *,
    hub: str = "huggingface",
    wanted: ModelFormat | None = None,
    mmproj: Path | None = None,
    revision: str | None = None,
    on_progress: hubs.OnProgress = lambda _: None,
) -> ModelFiles:
    """The model's files. `wanted` is the only format that the engine takes, `mmproj` the vision tower where
    it is not the one that would be found, `revision` the commit, tag or branch of a repository. Raises
    ModelError.
    """
    path = Path(reference).expanduser()
    if path.exists():
        files = _in_folder(reference, path, wanted) if path.is_dir() else _one_file(reference, path)
    elif (found := REPOSITORY.fullmatch(reference)) and not _means_a_path(reference, path):
        files = _from_hub(reference, found, hubs.HUBS[hub](revision=revision), wanted, on_progress)
    else:
        raise _missing(reference, path)
    if wanted is not None and files.format is not wanted:
        raise _wrong_format(files, wanted)
    return files if mmproj is None else replace(files, mmproj=_tower(mmproj.expanduser()))


# --- files ----------------------------------------------------------------------------------------


def _one_file(reference: str, path: Path) -> ModelFiles:
    facts = _checked(path)
    if facts.is_mmproj:
        raise ModelError(
            f"{path} is a vision or audio tower (mmproj), not a model.",
            why="Its header says general.architecture = clip; a tower completes a model and is none.",
            next_step="Give --model the model's own GGUF; a tower beside it is found by itself.",
        )
    first = path.with_name(split_parts(path.name)[0])
    _require_parts(first)
    return _gguf_files(reference, first, _tower_beside(first))


def _gguf_files(reference: str, model: Path, mmproj: Path | None) -> ModelFiles:
    return ModelFiles(
        reference=reference,
        format=ModelFormat.GGUF,
        path=model.absolute(),
        mmproj=mmproj.absolute() if mmproj else None,
    )


def _checked(path: Path) -> GgufFacts:
    try:
        return read_gguf(path)
    except GgufError as problem:
        raise ModelError(
            f"{path} is not a whole GGUF file: {problem}.",
            why="Expected a model in GGUF format, complete.",
            next_step="Download it again; a download that broke off leaves such a file.",
        ) from problem
    except OSError as problem:
        raise ModelError(
            f"{path} cannot be read.",
            why=problem.strerror or str(problem),
            next_step="Check its permissions and those of its folder.",
        ) from problem


def _require_parts(first: Path) -> None:
    """A split model needs every part, each whole."""
    parts = [first.with_name(name) for name in split_parts(first.name)]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise ModelError(
            f"{first} is the first of {len(parts)} parts, and {missing[0]} is not beside it.",
            why=f"{len(missing)} of the parts are missing.",
            next_step="Put all parts into one folder.",
        )
    for part in parts[1:]:
        _checked(part)


def _tower_beside(model: Path) -> Path | None:
    """The mmproj beside the model that is most likely its own; None where there is none.

    Many repositories have a folder for each quantisation and the tower one folder up.
    """
    for folder in (model.parent, model.absolute().parent.parent):
        towers = sorted(path for path in folder.glob("*.gguf") if is_mmproj(path.name))
        if folder != model.parent:
            towers = [tower for tower in towers if len(towers) == 1 or _likeness(tower, model) >= _ALIKE]
        if towers:
            return _tower(min(towers, key=lambda tower: (-_likeness(tower, model), _precision_rank(tower))))
    return None


def _tower(path: Path) -> Path:
    if not path.exists():
        raise ModelError(f"There is no vision tower {path}.", next_step="Correct --mmproj, or leave it out.")
    if not _checked(path).is_mmproj:
        raise ModelError(
            f"{path} is a model of its own and no vision tower.",
            why="Expected general.architecture = clip in its header.",
            next_step="Give the model's mmproj with --mmproj; a model with mmproj in its name needs another.",
        )
    return path.absolute()


def _likeness(tower: Path, model: Path) -> int:
    """Length of what the names have in common, without the word mmproj; two models may share a folder."""
    bare = re.sub(r"[-_.]?mmproj[-_.]?", "", tower.stem, flags=re.IGNORECASE)
    pairs = zip(bare.lower(), model.stem.lower(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _precision_rank(tower: Path) -> int:
    name = tower.name.upper()
    ranks = (rank for rank, precision in enumerate(MMPROJ_PRECISIONS) if precision in name)
    return next(ranks, len(MMPROJ_PRECISIONS))


# --- folders --------------------------------------------------------------------------------------


def _in_folder(reference: str, folder: Path, wanted: ModelFormat | None) -> ModelFiles:
    models = _models_in(folder)
    has_config = (folder / "config.json").is_file()
    if models and not (has_config and wanted is ModelFormat.HUGGING_FACE):
        return _only_gguf(reference, folder, models)
    if has_config:
        _require_weights(folder)
        return ModelFiles(reference=reference, format=ModelFormat.HUGGING_FACE, path=folder.absolute())
    raise ModelError(
        f"{folder} holds no model.",
        why="Expected a GGUF file, or config.json with safetensors files.",
        next_step="Give --model the folder that has them, or the GGUF file itself.",
    )


def _models_in(folder: Path) -> list[Path]:
    """GGUF models of the folder, a split one by its first part."""
    return sorted(
        path
        for path in folder.glob("*.gguf")
        if not is_mmproj(path.name) and split_parts(path.name)[0] == path.name
    )


def _only_gguf(reference: str, folder: Path, models: list[Path]) -> ModelFiles:
    if len(models) > 1:
        raise ModelError(
            f"{folder} holds {len(models)} models: {', '.join(path.name for path in models[:8])}.",
            why="Only one can be served under --model.",
            next_step=f"Name one, for example --model {models[0]}",
        )
    return _one_file(reference, models[0])


def _require_weights(folder: Path) -> None:
    """Every safetensors file that the index names, or at least one; each as long as its header says."""
    index = folder / SAFETENSORS_INDEX
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        files = [folder / name for name in _named_in(index)]
    missing = [path for path in files if not path.exists()]
    if missing or not files:
        raise ModelError(
            f"{folder} is not complete: {missing[0].name if missing else '*.safetensors'} is not there.",
            why=f"{SAFETENSORS_INDEX} names it." if missing else "There is config.json without any weights.",
            next_step="Download the rest of the model.",
        )
    for path in files:
        _require_length(path)


def _named_in(index: Path) -> list[str]:
    try:
        return sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ModelError(
            f"{index} is not a safetensors index: {problem}.",
            why='Expected JSON with a "weight_map".',
            next_step="Download the file again.",
        ) from problem


def _require_length(path: Path) -> None:
    size = path.stat().st_size
    try:
        header_bytes, header = read_header(path)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        needed = 8 + header_bytes + max(ends, default=0)
        if size < needed:
            raise ValueError(f"it has {size} bytes of {needed}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, RecursionError) as problem:
        raise ModelError(
            f"{path} is not a whole safetensors file: {problem}.",
            why="Expected every tensor that its header names.",
            next_step="Download it again; a download that broke off leaves such a file.",
        ) from problem


# --- repositories ---------------------------------------------------------------------------------


def _from_hub(
    reference: str,
    found: re.Match[str],
    hub: hubs.Hub,
    wanted: ModelFormat | None,
    on_progress: hubs.OnProgress,
) -> ModelFiles:
    fetched = hubs.fetch(
        found["id"],
        hub=hub,
        quantisation=found["quantisation"],
        wanted=wanted,
        on_progress=on_progress,
    )
    choice, folder = fetched.choice, fetched.folder
    if choice.main is None:
        _require_weights(folder)
        return ModelFiles(reference=reference, format=choice.format, path=folder)
    model = folder / choice.main
    _checked(model)
    _require_parts(model)
    return _gguf_files(reference, model, folder / choice.mmproj if choice.mmproj else None)


def _means_a_path(reference: str, path: Path) -> bool:
    """It is written like a path, or differs by a letter or two from one that is there."""
    written_so = reference.startswith((".", "/", "~")) or reference.endswith((".gguf", "/"))
    return written_so or _close_to(path) is not None


# --- what is wrong --------------------------------------------------------------------------------


def _missing(reference: str, path: Path) -> ModelError:
    parent, close = path.parent, _close_to(path)
    hint = f" Did you mean {close}?" if close else ""
    return ModelError(
        f"There is no file or folder {reference}.{hint}",
        why=f"Looked for {path.absolute()}." if parent.is_dir() else f"There is no folder {parent} either.",
        next_step="Give --model a GGUF file, a folder, or a repository such as org/name or org/name:Q4_K_M.",
    )


def _close_to(path: Path) -> Path | None:
    """A neighbour whose name is nearly the same."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return path.parent / close[0] if close else None


def _wrong_format(files: ModelFiles, wanted: ModelFormat) -> ModelError:
    if wanted is ModelFormat.GGUF:
        expected, remedy = "a GGUF file", "Give a GGUF of this model, or use --engine vllm on an NVIDIA GPU."
    else:
        expected, remedy = "config.json with safetensors", "Use --engine llama.cpp for a GGUF file."
    return ModelError(
        f"{files.reference} is not in the format that this engine runs.",
        why=f"It is {files.format}; expected {expected}.",
        next_step=remedy,
    )
