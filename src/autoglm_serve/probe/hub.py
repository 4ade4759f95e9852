"""Repositories on a model hub: what is in one, its files on this machine, and why not.

Hugging Face and ModelScope through their own libraries, imported when needed: these keep the cache, resume
and authenticate. Here their errors become `ModelError`, and what they downloaded is checked against the size
and checksum that the hub gives.
"""

import hashlib
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Protocol

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.model import ModelFormat
from autoglm_serve.probe.hub_failures import explain
from autoglm_serve.probe.repository import Choice, NoModel, RemoteFile, choose

logger = logging.getLogger(__name__)

_BY_HAND = (
    "Where there is a network, `{} {}` downloads it: give --model that folder. What has arrived is kept."
)
PARALLEL_FILES = 4
LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """How far a download has come."""

    repository: str
    done_bytes: int
    total_bytes: int | None
    """None where the hub does not say."""


OnProgress = Callable[[Download], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A model's files on this machine."""

    folder: Path
    choice: Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a repository holds at one revision."""

    revision: str
    files: tuple[RemoteFile, ...]


class NotReachable(Exception):
    """The hub did not answer, or we are told to stay offline; the message says which."""

    def __init__(self, why: str, next_step: str = "") -> None:
        super().__init__(why)
        self.next_step = next_step


class Hub(Protocol):
    """One hub. Its methods block."""

    @property
    def title(self) -> str: ...

    @property
    def download_command(self) -> str:
        """What a person types to download a repository by hand, before its id."""
        ...

    def listing(self, repository: str) -> Listing:
        """Raises NotReachable, or ModelError where there is no such repository or it may not be read."""
        ...

    def download(self, repository: str, revision: str, name: str) -> Path:
        """One file, from the cache or the hub; raises NotReachable or ModelError."""
        ...

    def folder(self, repository: str) -> Path:
        """Where its files lie or would lie in the cache."""
        ...

    def snapshot(self, repository: str) -> Path | None:
        """The last revision that was downloaded, whole or not; None where there is none."""
        ...


def fetch(
    repository: str,
    *,
    hub: Hub,
    quantisation: str | None = None,
    wanted: ModelFormat | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Fetched:
    """The files of one model, downloaded where they are not here yet. Raises ModelError."""
    try:
        listing = hub.listing(repository)
        choice = _chosen(repository, hub, listing.files, quantisation, wanted)
        folder = _download(repository, hub, listing.revision, choice, on_progress)
        return Fetched(folder=folder, choice=choice)
    except NotReachable as problem:
        return _from_cache(repository, hub, quantisation, wanted, problem)


def _chosen(
    repository: str,
    hub: Hub,
    files: Sequence[RemoteFile],
    quantisation: str | None,
    wanted: ModelFormat | None,
) -> Choice:
    try:
        return choose(files, quantisation=quantisation, wanted=wanted)
    except NoModel as problem:
        expected = "a GGUF file" if wanted is ModelFormat.GGUF else "a GGUF file, or safetensors with config"
        raise ModelError(
            f"{repository} on {hub.title} is not what the engine can run: {problem}.",
            why=f"Expected {expected}.",
            next_step="Name a repository that has one, as org/name or org/name:QUANTISATION.",
        ) from problem


def _from_cache(
    repository: str, hub: Hub, quantisation: str | None, wanted: ModelFormat | None, problem: NotReachable
) -> Fetched:
    """What an earlier download left, if it is a whole model."""
    why = str(problem)
    folder = hub.snapshot(repository)
    if folder is not None:
        files = tuple(_files_in(folder))
        try:
            choice = choose(files, quantisation=quantisation, wanted=wanted)
        except NoModel as incomplete:
            why = f"{why}, and what is here of it is no whole model: {incomplete}"
        else:
            logger.info("%s: %s; using the copy in %s", repository, why, folder)
            return Fetched(folder=folder, choice=choice)
    raise ModelError(
        f"{repository} is not on this machine and cannot be downloaded.",
        why=f"{why}; looked in {hub.folder(repository)}.",
        next_step=f"{problem.next_step} {_BY_HAND}".strip().format(hub.download_command, repository),
    )


def _files_in(folder: Path) -> Iterator[RemoteFile]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield RemoteFile(name=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size)


def _download(repository: str, hub: Hub, revision: str, choice: Choice, on_progress: OnProgress) -> Path:
    """Every chosen file, checked; returns the folder that has them at their names."""
    _require_room(repository, hub, choice)
    begun_ns = _newest_ns(hub.folder(repository))

    def one(file: RemoteFile) -> Path:
        path = hub.download(repository, revision, file.name)
        _check(repository, hub, file, path, fresh=path.resolve().stat().st_mtime_ns > begun_ns)
        return path

    with _watched(repository, hub, choice, on_progress), ThreadPoolExecutor(PARALLEL_FILES) as pool:
        paths = list(pool.map(one, choice.files))
    depth = len(Path(choice.files[0].name).parts)
    return paths[0].parents[depth - 1]


def _newest_ns(folder: Path) -> int:
    """When the last file of the cache was written; 0 while it is empty."""
    return max((path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()), default=0)


def _require_room(repository: str, hub: Hub, choice: Choice) -> None:
    """Raises ModelError where what is still to come, as far as it is sized, does not fit on the disk."""
    folder = hub.folder(repository)
    there = {path.name for path in folder.rglob("*") if path.is_file()}
    missing = [file.size_bytes or 0 for file in choice.files if Path(file.name).name not in there]
    begun_bytes = sum(path.stat().st_blocks * 512 for path in folder.rglob("*.incomplete"))
    needed_bytes = max(0, sum(missing) - begun_bytes)
    disk = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(disk).free
    if needed_bytes > free_bytes:
        raise ModelError(
            f"There is no room for {repository}: {_sized(needed_bytes)} are still to come, "
            f"{_sized(free_bytes)} are free in {disk}.",
            why="The download would fill the disk and fail.",
            next_step="Make room there, or move the cache: HF_HOME=/other/folder (or MODELSCOPE_CACHE).",
        )


def _sized(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"


def _check(repository: str, hub: Hub, file: RemoteFile, path: Path, *, fresh: bool) -> None:
    """The size where the hub says one; the checksum of what was just downloaded.

    What this run downloaded damaged is removed. What was there before is the person's own and stays.
    """
    size = path.stat().st_size
    damage = ""
    if file.size_bytes is not None and size != file.size_bytes:
        damage = f"it has {size} bytes, {hub.title} says {file.size_bytes}"
    elif fresh and file.sha256 is not None and _sha256(path) != file.sha256:
        damage = "its checksum is not the one the hub gives"
    if damage and not fresh:
        raise ModelError(
            f"{path} is not what {hub.title} has under this name.",
            why=f"{damage}. It was here before, so it was left as it is.",
            next_step="Remove it to download it again, or give --model the file itself to serve it as it is.",
        )
    if damage:
        path.resolve().unlink(missing_ok=True)
        raise ModelError(
            f"{file.name} of {repository} arrived damaged.",
            why=f"{damage}; it was removed.",
            next_step="Start again: what is whole is kept.",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _watched(repository: str, hub: Hub, choice: Choice, on_progress: OnProgress) -> Iterator[None]:
    """Tells the progress by looking at the cache: the libraries show theirs only on a screen of their own."""
    over = threading.Event()

    def tell() -> None:
        done, total = _bytes_in(hub.folder(repository)), choice.size_bytes
        done = done if total is None else min(done, total)
        on_progress(Download(repository=repository, done_bytes=done, total_bytes=total))

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    tell()
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    whole = choice.size_bytes if choice.size_bytes is not None else _bytes_in(hub.folder(repository))
    on_progress(Download(repository=repository, done_bytes=whole, total_bytes=choice.size_bytes))


def _bytes_in(folder: Path) -> int:
    """Bytes of real files; links into the cache count once."""
    total = 0
    for path in folder.rglob("*"):
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        total += info.st_blocks * 512 if path.is_file() and not path.is_symlink() else 0
    return total


# --- Hugging Face ---------------------------------------------------------------------------------


class HuggingFace:
    """huggingface.co, or the mirror in HF_ENDPOINT; its cache in HF_HOME."""

    title = "Hugging Face"
    download_command = "hf download"

    def __init__(
        self, *, endpoint: str | None = None, cache: Path | None = None, revision: str | None = None
    ) -> None:
        """`revision` is a commit, tag or branch; None: the newest."""
        self._endpoint = endpoint
        self._cache = cache
        self._revision = revision

    def listing(self, repository: str) -> Listing:
        library = import_module("huggingface_hub")
        with self._mapped(repository):
            info = library.HfApi(endpoint=self._endpoint).model_info(
                repository, revision=self._revision, files_metadata=True
            )
        files = (
            RemoteFile(name=s.rfilename, size_bytes=s.size, sha256=s.lfs.sha256 if s.lfs else None)
            for s in info.siblings
        )
        return Listing(revision=info.sha, files=tuple(files))

    def download(self, repository: str, revision: str, name: str) -> Path:
        library = import_module("huggingface_hub")
        with self._mapped(repository):
            return Path(
                library.hf_hub_download(
                    repository, name, revision=revision, cache_dir=self._cache, endpoint=self._endpoint
                )
            )

    def folder(self, repository: str) -> Path:
        cache = self._cache or Path(import_module("huggingface_hub.constants").HF_HUB_CACHE)
        return cache / f"models--{repository.replace('/', '--')}"

    def snapshot(self, repository: str) -> Path | None:
        folder = self.folder(repository)
        try:
            revision = (folder / "refs" / (self._revision or "main")).read_text().strip()
        except FileNotFoundError:
            if self._revision is not None:  # a commit has no name of its own there
                pinned = folder / "snapshots" / self._revision
                return pinned if pinned.is_dir() else None
            snapshots = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime)
            return snapshots[-1] if snapshots else None
        path = folder / "snapshots" / revision
        return path if path.is_dir() else None

    @contextmanager
    def _mapped(self, repository: str) -> Iterator[None]:
        """The library's errors as ours."""
        errors = import_module("huggingface_hub.errors")
        try:
            yield
        except errors.OfflineModeIsEnabled as problem:
            raise NotReachable("HF_HUB_OFFLINE says to stay offline") from problem
        except errors.GatedRepoError as problem:
            raise ModelError(
                f"{repository} may only be downloaded by those who accepted its terms.",
                why="Hugging Face refused the download.",
                next_step=f"Accept them on https://huggingface.co/{repository}, then `hf auth login`.",
            ) from problem
        except errors.RepositoryNotFoundError as problem:
            _no_such_repository(repository, self.title, "and `hf auth login` if it is private", problem)
        except Exception as problem:  # of the library, what it calls, the network: there is no one root
            raise _failed(self.title, repository, problem) from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRepository:
    """A repository that was downloaded, whole or in part."""

    name: str
    folder: Path
    size_bytes: int


def cached_repositories(cache: Path | None = None) -> Iterator[CachedRepository]:
    """What lies in the cache of Hugging Face's library, by name."""
    base = cache or Path(import_module("huggingface_hub.constants").HF_HUB_CACHE)
    for folder in sorted(base.glob("models--*")):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        yield CachedRepository(name=name, folder=folder, size_bytes=_bytes_in(folder))


# --- ModelScope -----------------------------------------------------------------------------------


class ModelScope:
    """modelscope.cn; its cache in MODELSCOPE_CACHE, laid out differently by each version of its library."""

    title = "ModelScope"
    download_command = "modelscope download --model"

    def __init__(self, *, cache: Path | None = None, revision: str | None = None) -> None:
        self._cache = cache
        self._revision = revision or "master"

    def listing(self, repository: str) -> Listing:
        api = self._library("modelscope.hub.api").HubApi()
        with self._mapped(repository):
            entries = api.get_model_files(repository, revision=self._revision, recursive=True)
        files = (
            RemoteFile(name=entry["Path"], size_bytes=entry.get("Size"), sha256=entry.get("Sha256") or None)
            for entry in entries
            if entry.get("Type") != "tree"
        )
        return Listing(revision=self._revision, files=tuple(files))

    def download(self, repository: str, revision: str, name: str) -> Path:
        library = self._library("modelscope.hub.file_download")
        cache = str(self._cache) if self._cache else None
        with self._mapped(repository):
            return Path(library.model_file_download(repository, name, revision=revision, cache_dir=cache))

    def folder(self, repository: str) -> Path:
        places = self._places(repository)
        return next((place for place in places if place.is_dir()), places[0])

    def snapshot(self, repository: str) -> Path | None:
        folder = self.folder(repository)
        revisions = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime)
        return revisions[-1] if revisions else folder if folder.is_dir() else None

    def _places(self, repository: str) -> tuple[Path, ...]:
        default = Path.home() / ".cache" / "modelscope"
        base = self._cache or Path(os.environ.get("MODELSCOPE_CACHE") or default)
        owner, name = repository.split("/", 1)
        older = Path(owner) / name.replace(".", "___")
        newer = base / "models" / f"{owner}--{name}"
        return (
            newer,
            base / "models" / older,
            base / "hub" / "models" / older,
            base / "hub" / older,
            base / older,
        )

    def _library(self, name: str) -> Any:
        try:
            return import_module(name)
        except ImportError as problem:
            raise ModelError(
                "Downloading from ModelScope needs its library, which is not installed.",
                why=str(problem),
                next_step=f"{sys.executable} -m pip install modelscope, or leave --hub at huggingface.",
            ) from problem

    @contextmanager
    def _mapped(self, repository: str) -> Iterator[None]:
        try:
            yield
        except Exception as problem:
            # Its errors moved between versions, and have no root that tells a typo from a dead network.
            if "NotExist" in type(problem).__name__ or "404" in str(problem):
                _no_such_repository(repository, self.title, "", problem)
            raise _failed(self.title, repository, problem) from problem


def _no_such_repository(repository: str, hub: str, also: str, problem: Exception) -> NoReturn:
    raise ModelError(
        f"There is no model {repository} on {hub}.",
        why="It is misspelt, private, or neither a file nor a folder of this machine.",
        next_step=f"Check the id on the hub's site {also}".strip() + ".",
    ) from problem


def _failed(title: str, repository: str, problem: Exception) -> ModelError | NotReachable:
    """What is wrong here is the person's to mend; without the hub, what was downloaded before may do."""
    failure = explain(problem)
    if failure.here:
        return ModelError(
            f"{repository} cannot be downloaded from {title}.", why=failure.why, next_step=failure.next_step
        )
    return NotReachable(f"{title} could not be reached: {failure.why}", failure.next_step)


HUBS: dict[str, Callable[..., Hub]] = {"huggingface": HuggingFace, "modelscope": ModelScope}
