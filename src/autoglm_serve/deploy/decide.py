"""From options to a deployment: which model, which engine, how many replicas, under which names.

The one place that chooses an engine. `planning` decides about GPUs, `plan.embedded` about the rest.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from autoglm_serve.config.options import AUTO, Options, Section, declared
from autoglm_serve.core.errors import ConfigError, ModelError, NoPlan
from autoglm_serve.core.fleet import MOST_REPLICAS
from autoglm_serve.core.model import AudioSpan, Capability, ModelFiles, ModelFormat
from autoglm_serve.core.plan import Deployment, Member, Placement, Plan
from autoglm_serve.core.workload import Workload
from autoglm_serve.demo import demo_model, demo_speech
from autoglm_serve.deploy import planning
from autoglm_serve.deploy.attach import attach
from autoglm_serve.deploy.own_memory import NOTHING, Own, main_bytes
from autoglm_serve.engines import llama_cpp
from autoglm_serve.engines.base import Engine, Place
from autoglm_serve.engines.catalog import BY_OPTION
from autoglm_serve.engines.llama_cpp_speech import LlamaCppSpeech
from autoglm_serve.plan.embedded import WAYS_OUT, Host, HostModel, Wishes, plan_embedded, why_too_large
from autoglm_serve.plan.reasons import short_context
from autoglm_serve.plan.search import beyond_context
from autoglm_serve.probe import gpus
from autoglm_serve.probe.gguf import read_gguf
from autoglm_serve.probe.hub import Download
from autoglm_serve.probe.model_files import REPOSITORY, find_model
from autoglm_serve.probe.packages import installed
from autoglm_serve.probe.repository import split_parts

log = logging.getLogger(__name__)

AUDIO_DECODER = "miniaudio"
"""Has no wheel for every processor, so it may be missing."""
DEMO = "the bundled demo model"
DEMO_SPEECH = "the bundled speech model"
_SPEECH_THREADS = 1
"""llama.cpp's threads wait for each other after every step. On 2 cores that others used too, a clip took
0.8 s with one thread and 1.3 to 16 s with two; on idle ones 0.3 and 0.2 s."""
_SPEECH_SLOTS = 2
OnDownload = Callable[[Download], None]


async def decide(options: Options, on_download: OnDownload, own: Own = NOTHING) -> Deployment:
    """What to run, in place of what is `own`. Raises ServeError where that cannot be.

    Blocks nothing, though models are downloaded.
    """
    with readable():
        match choose_engine(options).place:
            case Place.ELSEWHERE:
                member = await attach(options.upstream, options.served_model_name)
            case Place.PROCESSOR:
                member = await asyncio.to_thread(_embedded, options, on_download, own)
                for line in warnings(options, member):
                    log.warning(line)
            case Place.GPUS:
                member = await asyncio.to_thread(_on_gpus, options, on_download, own)
    return within_bounds(Deployment(members=(member, *_speech(options, member))))


def within_bounds(deployment: Deployment) -> Deployment:
    """The deployment, if the gateway can tell all of its replicas apart. Raises ConfigError."""
    replicas = sum(member.plan.replicas for member in deployment.members)
    if replicas <= MOST_REPLICAS:
        return deployment
    raise ConfigError(
        f"{replicas:,} replicas are more than one service carries.",
        why=f"its gateway keeps the load of {MOST_REPLICAS:,}, those of all models together",
        next_step="Ask for fewer (--replicas, --upstream), or start a second service on another port.",
    )


@contextmanager
def readable() -> Iterator[None]:
    """What the system refuses while a model is looked for is the person's to mend, wherever it was met."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise ModelError(
            f"{error.filename} cannot be used.",
            why=error.strerror or str(error),
            next_step="Check its name, its permissions and those of its folders.",
        ) from error


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


def remember(path: Path, options: Options, deployment: Deployment) -> None:
    """Write down what was decided, for the control plane that comes after this one. Raises OSError."""
    draft = path.with_suffix(".tmp")
    draft.write_bytes(TypeAdapter(_Decided).dump_json(_Decided(asked=_asked(options), deployment=deployment)))
    draft.replace(path)


def recall(path: Path, options: Options | None) -> Deployment | None:
    """What was decided for the same options (None: for any); None where nothing was, or it cannot be read.

    While replicas run, deciding anew would find their memory taken.
    """
    try:
        decided = TypeAdapter(_Decided).validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return decided.deployment if options is None or decided.asked == _asked(options) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    asked: dict[str, str]
    """The options that it was decided by."""
    deployment: Deployment


_DECISIVE = frozenset({Section.MODEL, Section.ENGINE, Section.PLAN, Section.SPEECH})


def _asked(options: Options) -> dict[str, str]:
    return {
        option.name: str(getattr(options, option.name))
        for option in declared()
        if option.doc.section in _DECISIVE
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What other settings would change in a running service."""

    options: Options
    """The settings that would be in force: the new ones where they can be."""
    live: tuple[str, ...]
    not_live: tuple[str, ...]
    for_deployment: bool
    for_workers: bool


def change_of(before: Options, after: Options) -> Change:
    """The difference between two sets of options, by what it takes to go over. Pure."""
    changed = [o for o in declared() if getattr(before, o.name) != getattr(after, o.name)]
    fixed = [o.name for o in changed if o.doc.section in _FIXED or o.name in _FIXED_OPTIONS]
    live = [o for o in changed if o.name not in fixed]
    return Change(
        options=replace(after, **{name: getattr(before, name) for name in fixed}),
        live=tuple(o.name for o in live),
        not_live=tuple(fixed),
        for_deployment=any(o.doc.section in _DECISIVE for o in live),
        for_workers=any(o.doc.section is Section.GATEWAY for o in live),
    )


_FIXED = frozenset({Section.ADDRESS, Section.STATE})
_FIXED_OPTIONS = frozenset({"gateway_workers", "upstream"})
_AMENDABLE = frozenset({"served_model_name", "engine_args"})
"""Options that change a replica on GPUs and not its plan: what runs there is not measured anew for them."""


async def revise(before: Deployment, change: Change, own: Own) -> Deployment:
    """What to run instead, in place of what is `own`. Raises ServeError where that cannot be."""
    if not change.for_deployment:
        return before
    amended = all(name in _AMENDABLE or not _is_decisive(name) for name in change.live)
    if not (amended and before.members[0].plan.gpu_groups):
        return await decide(change.options, lambda download: None, own)
    first, *others = before.members
    names = change.options.served_model_name or first.names
    plan = replace(first.plan, engine_args=change.options.engine_args)
    return Deployment(members=(replace(first, names=names, plan=plan), *others))


def _is_decisive(name: str) -> bool:
    return name in {option.name for option in declared() if option.doc.section in _DECISIVE}


def choose_engine(options: Options) -> Engine:
    """The engine that was asked for; else vLLM where it and a GPU are, and the embedded one elsewhere."""
    if options.engine != AUTO:
        return BY_OPTION[options.engine]
    vllm = BY_OPTION[planning.GPU_ENGINE]
    is_gguf = options.model is not None and options.model.endswith(".gguf")
    if not is_gguf and vllm.package and installed(vllm.package) and gpus.read().gpus:
        return vllm
    return BY_OPTION["llama_cpp"]


def _on_gpus(options: Options, on_download: OnDownload, own: Own) -> Member:
    """A member for vLLM or SGLang: planned first, so that what cannot run is not downloaded."""
    decision = planning.plan(options, os.environ, own=own)
    member = planning.member(decision, options)
    for line in decision.warnings:
        log.warning(line)
    files = find_model(
        member.files.reference, hub=options.hub, wanted=ModelFormat.HUGGING_FACE, on_progress=on_download
    )
    return replace(member, files=files)


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
    return _embedded(options, lambda download: None)


def _embedded(options: Options, on_download: OnDownload, own: Own = NOTHING) -> Member:
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
        Host(
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
    )


def _speech(options: Options, chat: Member) -> tuple[Member, ...]:
    """The bundled speech model beside the bundled chat model; it costs nothing until somebody speaks."""
    if not options.speech or options.model is not None or chat.plan.engine != llama_cpp.LlamaCpp.name:
        return ()
    if not installed(AUDIO_DECODER):
        log.warning("speech is left out: audio is decoded by %s; pip install it", AUDIO_DECODER)
        return ()
    speech = demo_speech()
    assert speech.min_audio_s is not None
    assert speech.max_audio_s is not None
    plan = Plan(
        engine=LlamaCppSpeech.name,
        placements=(Placement(),),
        threads=_SPEECH_THREADS,
        max_model_len=speech.context_tokens,
        max_num_seqs=_SPEECH_SLOTS,
    )
    member = Member(
        names=_names_of_its_own(options.speech_name or (speech.name,), chat),
        files=ModelFiles(
            reference=DEMO_SPEECH, format=ModelFormat.GGUF, path=speech.gguf, mmproj=speech.mmproj
        ),
        plan=plan,
        capabilities=frozenset({Capability.TRANSCRIPTION}),
        audio=AudioSpan(shortest_s=speech.min_audio_s, longest_s=speech.max_audio_s),
        on_demand=True,
        idle_stop_s=options.speech_idle_s,
    )
    return (member,)


def _names_of_its_own(names: tuple[str, ...], chat: Member) -> tuple[str, ...]:
    """A request names one model. Raises ConfigError where it would name two."""
    both = sorted(set(names) & set(chat.names))
    if both:
        raise ConfigError(
            f"Two models would answer to {both[0]}: the one that chats and the one that hears.",
            next_step="Give one of them another name with --served-model-name or --speech-name.",
        )
    return names


def _files(options: Options, on_download: OnDownload) -> tuple[ModelFiles, str]:
    """The model's files, and the name it goes by."""
    if options.model is None:
        demo = demo_model()
        files = ModelFiles(reference=DEMO, format=ModelFormat.GGUF, path=demo.gguf, mmproj=demo.mmproj)
        return files, demo.name
    files = find_model(
        options.model,
        hub=options.hub,
        wanted=ModelFormat.GGUF,
        mmproj=options.mmproj or _engines_own_tower(options.engine_args),
        on_progress=on_download,
    )
    return files, _name(options.model)


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
