"""From options to a decision about GPUs: probe or table, model facts, engine traits, calibration, plan.

The one place where these stages meet; `autoglm plan` prints the decision and `deployment` runs it.
"""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from autoglm_serve.config.options import Options
from autoglm_serve.core.engine_traits import Constants, EngineTraits
from autoglm_serve.core.errors import ConfigError, ModelError, NoPlan
from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import GpuSource, Hardware, Host
from autoglm_serve.core.ledger import Expectation, MeasuredLedger, MeasuredSpeed, Subject
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Plan
from autoglm_serve.core.workload import Workload
from autoglm_serve.deploy.own_memory import NOTHING, Own, without
from autoglm_serve.engines.catalog import BY_OPTION
from autoglm_serve.plan.calibration import constants_for, held_against
from autoglm_serve.plan.choose import Decision, decide
from autoglm_serve.plan.request import Goal, Pins, PlanRequest
from autoglm_serve.probe import gpus, hardware_table, measurements, model_facts
from autoglm_serve.probe.packages import installed

DEFAULT_MODEL = "zai-org/AutoGLM-Phone-9B"

_MOST_THREADS = 64


def plan(
    options: Options,
    environ: Mapping[str, str],
    *,
    hardware: str | None = None,
    load: Workload | None = None,
    version: str | None = None,
    own: Own = NOTHING,
) -> Decision:
    """The decision for these options; `hardware` plans for the table's GPUs instead of the ones here, `load`
    for another load than the phone agents', `version` by the rules of another release of the engine.

    Raises ConfigError, ModelError or NoPlan where there is nothing to decide about.
    """
    facts = model(options.model or DEFAULT_MODEL, hub=options.hub, revision=options.revision)
    found = hardware_table.hardware(hardware) if hardware else probed(environ, own=own)
    traits = traits_of(options.engine, version)
    asked = request(options)
    asked = asked if load is None else replace(asked, workload=load)
    return decide(facts, found, asked, traits, constants(found, traits, facts, environ))


def model(reference: str, *, hub: str = "huggingface", revision: str | None = None) -> ModelFacts:
    """Facts of a model: a folder, a profile that ships with this package, or a repository on the hub."""
    path = Path(reference).expanduser()
    if path.suffix == ".gguf":
        raise ModelError(
            f"{reference} is a GGUF file, which only the embedded engine runs.",
            next_step="leave --engine out; to plan for GPUs give the safetensors model",
        )
    if path.exists() or reference.startswith((".", "/", "~")):
        return model_facts.from_folder(path, reference)
    known = model_facts.from_profile(reference)
    if known is None and hub != "huggingface":
        raise ModelError(
            f"{reference} cannot be planned for before it is here.",
            why=f"{hub} gives no part of a file, so a model's tensors are only known once it is downloaded",
            next_step="download it, and give --model its folder",
        )
    return known or model_facts.from_hub(reference, revision=revision)


def probed(environ: Mapping[str, str], own: Own = NOTHING) -> Hardware:
    """The GPUs of this machine, as they would be if nothing ran of what is `own`.

    Raises NoPlan, in three different ways, where there is none.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    snapshot = without(own, gpus.read())
    found = gpus.hardware(snapshot, visible)
    match snapshot.driver:
        case gpus.Driver.NO_GPU:
            raise _no_gpu(gpus.other_accelerator())
        case gpus.Driver.BROKEN:
            raise NoPlan(
                "The NVIDIA driver does not answer.",
                why=snapshot.detail,
                next_step="see whether nvidia-smi works; after a driver update, restart the machine",
            )
        case gpus.Driver.NO_DEVICE | gpus.Driver.OK if not found.gpus:
            hidden = (
                f"CUDA_VISIBLE_DEVICES={visible!r} hides them" if snapshot.gpus else "the driver shows none"
            )
            raise NoPlan(
                "No GPU is visible.",
                why=hidden,
                next_step="unset CUDA_VISIBLE_DEVICES, or give the container its GPUs (--gpus all)",
            )
    return replace(found, host=host_here(environ))


def host_here(environ: Mapping[str, str]) -> Host:
    """Main memory, and the disk that models are downloaded to."""
    memory = psutil.virtual_memory()
    home = Path(environ.get("HF_HOME") or environ.get("HOME") or Path.home())
    existing = next((path for path in (home, *home.parents) if path.exists()), Path("/"))
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(existing).free
    return Host(
        memory_bytes=memory.total,
        free_bytes=memory.available,
        disk_free_bytes=free,
        cores=len(os.sched_getaffinity(0)),
        threads=_threads(environ.get("OMP_NUM_THREADS", "")),
    )


def _threads(value: str) -> int | None:
    """OMP takes a list, one number for each level of nesting."""
    first = value.partition(",")[0].strip()
    return int(first) if first.isdecimal() and 0 < int(first) <= _MOST_THREADS else None


def _no_gpu(other: str) -> NoPlan:
    """No NVIDIA driver; `other` is whose accelerator there is instead, if any."""
    if other:
        return NoPlan(
            f"There is no NVIDIA GPU here, but one of {other}.",
            why="the planner and the engines that it starts know NVIDIA's GPUs alone",
            next_step=f"{hardware_table.ELSEWHERE}; to plan for NVIDIA GPUs elsewhere, name them: "
            "autoglm plan --hardware rtx4090:2",
        )
    return NoPlan(
        "There is no NVIDIA GPU here.",
        why="no NVIDIA driver is installed",
        next_step="to plan for other hardware, name it: autoglm plan --hardware rtx4090:2; "
        "to serve without a GPU, use the embedded engine: --engine llama_cpp with a GGUF model",
    )


NOT_INSTALLED = "the newest known; none is installed here"
GPU_ENGINE = "vllm"
"""What runs models on GPUs where nobody asks for another."""


def traits_of(engine: str, named: str | None = None) -> EngineTraits:
    """The traits of the engine that would run: of the version that is named, else of the installed one, else
    of the newest known.

    Raises ConfigError where what is installed is older than anything that is known of it, or where what is
    named is no version.
    """
    asked = BY_OPTION.get(engine, BY_OPTION[GPU_ENGINE])
    if named is not None and not re.match(r"v?\d{1,3}\.\d{1,4}", named):
        raise ConfigError(
            f"--engine-version {named[:40]}: that is no version.", next_step="write it as 0.26.0"
        )
    version = named.removeprefix("v") if named else installed(asked.package or asked.name)
    if named is None and version and (instead := asked.too_old(version)):
        raise ConfigError(
            f"{asked.title} {version} is installed, which is older than this service knows.",
            why="Its flags, its log and how it sizes its memory would be guesses.",
            next_step=f"pip install --upgrade '{instead}'",
        )
    own = asked.traits(version)
    if own is None:
        return traits_of(GPU_ENGINE, named)
    origin = "as --engine-version names it" if named else "installed here" if version else NOT_INSTALLED
    return replace(own, origin=origin)


def constants(
    hardware: Hardware, traits: EngineTraits, facts: ModelFacts, environ: Mapping[str, str]
) -> Constants:
    """Fitted constants where there are any for this hardware."""
    if not hardware.gpus:
        return Constants()
    known = measurements.load(measurements.folder(environ))
    return constants_for(hardware.gpus[0].spec.key, subject(hardware, traits, facts), known)


def subject(hardware: Hardware, traits: EngineTraits, facts: ModelFacts) -> Subject:
    """What a measurement of this hardware, engine and model would hold for."""
    return Subject(
        gpu=hardware.gpus[0].spec.key,
        driver=hardware.driver,
        engine=f"{traits.engine} {traits.version}",
        model=facts.reference,
    )


def remember(
    decision: Decision, ledger: MeasuredLedger, speed: MeasuredSpeed | None, environ: Mapping[str, str]
) -> Path | None:
    """Keep what a start measured, for the next plan; None where it was not told enough.

    Raises ConfigError where it cannot be written.
    """
    expected = expectation(decision)
    found = held_against(expected, ledger, speed) if expected else None
    if found is None:
        return None
    folder = measurements.folder(environ)
    try:
        return measurements.save(folder, found)
    except OSError as error:
        raise ConfigError(
            f"What was measured could not be kept in {folder}.",
            why=error.strerror or str(error),
            next_step="make room there or set XDG_DATA_HOME to a folder that you may write to; measure again",
        ) from error


def expectation(decision: Decision) -> Expectation | None:
    """What a start of the chosen plan is held against; None for a plan on paper.

    The prediction is made again with the shipped constants, so that a fit is never fitted to a fit.
    """
    if decision.chosen is None or decision.hardware.source is GpuSource.TABLE:
        return None
    plain = pinned(decision, constants_for(decision.hardware.gpus[0].spec.key, None, ()))
    if plain is None or plain.ledger is None:
        return None
    return Expectation(
        subject=subject(decision.hardware, decision.traits, decision.facts),
        gpus_per_replica=plain.tensor_parallel * plain.pipeline_parallel,
        ledger=plain.ledger,
        speed=plain.predicted,
    )


def pinned(decision: Decision, constants: Constants) -> Plan | None:
    """The chosen plan again, everything pinned, with other constants: its ledger and speed under those."""
    plan = decision.chosen
    assert plan is not None
    pins = replace(
        decision.request.pins,
        tensor_parallel=plan.tensor_parallel,
        pipeline_parallel=plan.pipeline_parallel,
        replicas=plan.replicas,
        gpus=tuple(index for group in plan.gpu_groups for index in group),
        quantization=plan.quantization,
        max_model_len=plan.max_model_len,
        max_num_seqs=plan.max_num_seqs,
        max_num_batched_tokens=plan.max_num_batched_tokens,
        gpu_memory_utilization=plan.gpu_memory_utilization,
        max_pixels=plan.max_pixels,
    )
    asked = replace(decision.request, pins=pins)
    return decide(decision.facts, decision.hardware, asked, decision.traits, constants).chosen


def request(options: Options) -> PlanRequest:
    """What the person asked for, as the planner's value."""
    targets = options.target_ttft is not None or options.target_tpot is not None
    return PlanRequest(
        goal=Goal.TARGETS if targets else Goal(options.goal),
        workload=Workload(sessions=options.sessions),
        target_ttft_s=options.target_ttft,
        target_tpot_s=options.target_tpot,
        pins=Pins(
            tensor_parallel=options.tp,
            pipeline_parallel=options.pp,
            replicas=options.replicas,
            gpus=_gpus(options.gpus),
            dtype=None if options.dtype == "auto" else options.dtype,
            quantization=options.quantization,
            max_model_len=options.max_model_len,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            gpu_memory_utilization=options.gpu_memory_utilization,
            max_pixels=options.max_pixels,
            engine_args=options.engine_args,
        ),
    )


def _gpus(words: tuple[str, ...]) -> tuple[int, ...] | None:
    wrong = next((word for word in words if not (word.isascii() and word.isdigit())), None)
    if wrong is not None:
        raise ConfigError(
            f"--gpus {','.join(words)}: {wrong!r} is no GPU number.", next_step="write it as --gpus 0,1"
        )
    return tuple(dict.fromkeys(map(int, words))) or None


def member(decision: Decision, options: Options) -> Member:
    """The deployment's member for a decision. Raises NoPlan where nothing fits."""
    facts = decision.facts
    if decision.chosen is None:
        raise no_plan(decision)
    path = Path(facts.reference).expanduser()
    files = ModelFiles(
        reference=facts.reference,
        format=ModelFormat.HUGGING_FACE,
        path=path if path.exists() else None,
        revision=options.revision,
    )
    return Member(
        names=options.served_model_name or (path.name if path.exists() else facts.reference,),
        files=files,
        plan=decision.chosen,
        capabilities=facts.capabilities,
        vision=facts.vision.geometry if facts.vision else None,
        vocabulary=facts.text.vocab,
        expected=expectation(decision),
        may_degrade=options.degrade,
    )


def no_plan(decision: Decision) -> NoPlan:
    """The error of a decision without a plan, with the nearest way out as its next step."""
    ways = "; ".join(f"{offer.change} ({offer.effect})" for offer in decision.offers)
    return NoPlan(
        f"{decision.problem}.",
        next_step=ways or "leave the pinned option out; `autoglm plan --explain` shows what was tried",
    )
