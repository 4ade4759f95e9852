"""The member that llama.cpp runs: its files, its plan for this machine, and what to know of it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from autoglm_serve.config.options import Options, Section, declared
from autoglm_serve.core.errors import ModelError, NoPlan
from autoglm_serve.core.model import Capability, ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member
from autoglm_serve.core.workload import Workload
from autoglm_serve.demo import DemoModel, changed, demo_model
from autoglm_serve.deploy.engine import choose_engine
from autoglm_serve.deploy.own_memory import NOTHING, Own, main_bytes
from autoglm_serve.engines import llama_cpp
from autoglm_serve.engines.base import Place
from autoglm_serve.engines.catalog import BY_OPTION
from autoglm_serve.plan.embedded import (
    WAYS_OUT,
    EmbeddedHost,
    HostModel,
    Wishes,
    plan_embedded,
    why_too_large,
)
from autoglm_serve.plan.reasons import short_context
from autoglm_serve.plan.search import beyond_context
from autoglm_serve.probe.gguf import read_gguf
from autoglm_serve.probe.hub import Download
from autoglm_serve.probe.model_files import REPOSITORY, find_model
from autoglm_serve.probe.repository import split_parts

DEMO = "the bundled demo model"
OnDownload = Callable[[Download], None]


def warnings(options: Options, member: Member) -> tuple[str, ...]:
    """What to know of llama.cpp's plan before it is started."""
    workload = Workload()
    step_tokens = workload.step_tokens(workload.image_tokens(member.vision))
    short = short_context(member.plan.max_model_len, step_tokens)
    return (*without_effect(options), *short)


def without_effect(options: Options) -> list[str]:
    """What was asked for and is for GPUs only, where llama.cpp runs on the processor."""
    section = (option for option in declared() if option.doc.section is Section.PLAN)
    asked = (option for option in section if option.name not in _WITHOUT_GPUS_TOO)
    return [
        f"{option.flag} has no say: llama.cpp runs on the processor"
        for option in asked
        if getattr(options, option.name) != option.default
    ]


_WITHOUT_GPUS_TOO = frozenset({"sessions", "degrade"})
"""Of the section for GPUs; not worth a warning elsewhere."""


def is_embedded(options: Options) -> bool:
    """The model is asked of the embedded engine: by its name, or by giving it what only that runs."""
    asked = BY_OPTION.get(options.engine)
    if asked is not None:
        return asked.place is Place.PROCESSOR
    path = Path(options.model or "").expanduser()
    ggufs = path.suffix == ".gguf" or (any(path.glob("*.gguf")) and not (path / "config.json").exists())
    return options.model is not None and ggufs


def embedded_here(options: Options) -> Member:
    """The member for llama.cpp of what is here already: nothing is downloaded for a plan."""
    asked = options.model or ""
    named = REPOSITORY.fullmatch(asked) and not asked.endswith(".gguf")
    if named and not Path(asked).expanduser().exists():
        raise ModelError(
            f"{asked} cannot be planned for before it is here.",
            why="which of a repository's GGUF files is meant is only known once it is downloaded",
            next_step="download it, and give --model its file",
        )
    return embedded(options, lambda download: None)


def embedded(options: Options, on_download: OnDownload, own: Own = NOTHING) -> Member:
    """A member for llama.cpp: the demo, or the GGUF that was asked for. Raises NoPlan where it cannot run."""
    files, name = _files(options, on_download)
    assert files.path is not None
    facts = read_gguf(files.path)
    beyond = beyond_context(options.max_model_len, facts.context_length)
    if beyond:
        raise NoPlan(f"{beyond}.", next_step="lower --max-model-len, or leave it out")
    vision = read_gguf(files.mmproj).vision if files.mmproj else None
    image_max_tokens = demo_model().image_max_tokens if options.model is None else None
    memory = psutil.virtual_memory()
    free_bytes = min(memory.available + main_bytes(own), memory.total)
    plan = plan_embedded(
        choose_engine(options).name,
        HostModel(
            weights_bytes=_size_bytes(files),
            layers=facts.n_layers or 0,
            kv_heads=facts.n_kv_heads or 0,
            head_dim=facts.head_dim or 0,
            hidden=facts.embedding_length or 0,
            vocabulary=facts.vocabulary or 0,
        ),
        EmbeddedHost(
            cores=len(os.sched_getaffinity(0)),
            total_bytes=memory.total,
            free_bytes=free_bytes,
        ),
        Wishes(
            context_tokens=llama_cpp.context_tokens(options.max_model_len, facts.context_length),
            context_is_asked=options.max_model_len is not None,
            slots=options.max_num_seqs or llama_cpp.DEFAULT_SLOTS,
            slots_are_asked=options.max_num_seqs is not None,
            prompt_cache_bytes=llama_cpp.PROMPT_CACHE_MIB * 2**20,
            replicas=options.replicas,
            threads=options.threads,
        ),
        image_max_tokens=image_max_tokens,
        engine_args=options.engine_args,
    )
    shortfall = why_too_large(plan)
    if shortfall:
        raise NoPlan(f"{files.reference} {shortfall}.", next_step=WAYS_OUT)
    return Member(
        names=options.served_model_name or (name,),
        files=files,
        plan=plan,
        capabilities=frozenset({Capability.CHAT} | ({Capability.VISION} if vision else set())),
        vision=llama_cpp.vision_geometry(vision.patch_px, vision.merge, image_max_tokens) if vision else None,
        vocabulary=facts.vocabulary,
    )


def _files(options: Options, on_download: OnDownload) -> tuple[ModelFiles, str]:
    """The model's files, and the name it goes by."""
    if options.model is None:
        demo = demo_model()
        require_as_shipped(demo)
        files = ModelFiles(reference=DEMO, format=ModelFormat.GGUF, path=demo.gguf, mmproj=demo.mmproj)
        return files, demo.name
    files = find_model(
        options.model,
        hub=options.hub,
        revision=options.revision,
        wanted=ModelFormat.GGUF,
        mmproj=options.mmproj or _engines_own_tower(options.engine_args),
        on_progress=on_download,
    )
    return files, _name(options.model)


def require_as_shipped(demo: DemoModel) -> None:
    """Raises ModelError where a bundled file is not the one that was shipped."""
    for path in changed((demo.gguf, demo.mmproj)):
        raise ModelError(
            f"{path} is not the file that was shipped.",
            why="Its SHA-256 is not the one in checksums.json: damaged, or changed by somebody.",
            next_step="Install autoglm-serve again, or serve a model of your own with --model.",
        )


def _engines_own_tower(engine_args: Sequence[str]) -> Path | None:
    """The tower that was named with llama.cpp's own flag: the gateway has to know that the model sees."""
    words = [part for word in engine_args for part in word.split("=", 1)]
    at = next((place for place, word in enumerate(words) if word in ("--mmproj", "-mm")), None)
    return Path(words[at + 1]) if at is not None and at + 1 < len(words) else None


def _name(reference: str) -> str:
    """A repository keeps its id; a path is known by its last part."""
    path = Path(reference)
    return path.stem if path.suffix == ".gguf" else path.name if path.exists() else reference


def _size_bytes(files: ModelFiles) -> int:
    """Of every file of the model; a split one is named by its first part."""
    if files.path is None:
        return 0
    parts = [files.path.with_name(name) for name in split_parts(files.path.name)]
    return sum(path.stat().st_size for path in (*parts, files.mmproj) if path)
