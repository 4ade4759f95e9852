"""Gathers the facts: reads this machine, and asks a service. Downloads nothing, starts nothing."""

import http.client
import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil

from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ModelError, ServeError
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.doctor.facts import Folder, HostFacts, HubFacts, ServiceFacts, StreamTiming
from autoglm_serve.engines.catalog import BY_OPTION
from autoglm_serve.probe import gpus, hub
from autoglm_serve.probe.http_client import asked, root_of
from autoglm_serve.probe.model_files import REPOSITORY, find_model
from autoglm_serve.probe.packages import installed
from autoglm_serve.probe.ports import holder_of
from autoglm_serve.probe.upstream import listed

_SHM = Path("/dev/shm")
_PACKAGES = ("torch", "transformers")
_TIMEOUT_S = 20.0
_PIECES = 64
_QUESTION = "Count from one to forty, in words."


def this_machine(options: Options, environ: Mapping[str, str], *, ours: ServiceFacts | None) -> HostFacts:
    """What `autoglm serve` with these options would meet here. `ours` is the service that holds the port."""
    snapshot = gpus.read()
    memory = psutil.virtual_memory()
    names = (*_PACKAGES, *(engine.package for engine in BY_OPTION.values() if engine.package))
    found, problem = _model(options)
    return HostFacts(
        gpus=snapshot,
        hardware=gpus.hardware(snapshot, environ.get("CUDA_VISIBLE_DEVICES")),
        accelerator=gpus.other_accelerator(machine=platform.machine()),
        packages={name: version for name in names if (version := installed(name))},
        environ=environ,
        cores=os.cpu_count() or 1,
        memory_bytes=memory.total,
        memory_free_bytes=memory.available,
        shm_bytes=shutil.disk_usage(_SHM).total if _SHM.is_dir() else None,
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        cache=_folder(hub.HUBS[options.hub]().folder("any/model").parent),
        state=_folder(options.state_dir_for(options.port, environ)),
        hub=found,
        port=options.port,
        port_holder="" if ours is not None and not ours.unreachable else holder_of(options.port) or "",
        model_problem=problem,
    )


def _folder(path: Path) -> Folder:
    """The folder, or what is there of its parents: where it would be made."""
    there = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    return Folder(path=path, free_bytes=shutil.disk_usage(there).free, writable=os.access(there, os.W_OK))


def _model(options: Options) -> tuple[HubFacts, ServeError | None]:
    """Whether the model is there, and if not, whether it can be had."""
    asked = hub.HUBS[options.hub]()
    here = HubFacts(title=asked.title)
    if options.model is None or options.upstream:
        return here, None
    found = None if Path(options.model).expanduser().exists() else REPOSITORY.fullmatch(options.model)
    if found is not None and asked.snapshot(found["id"]) is None:
        return _asked(asked, found["id"])
    try:
        find_model(options.model, hub=options.hub, mmproj=options.mmproj)
    except ServeError as problem:
        return here, problem
    return here, None


def _asked(asked: hub.Hub, repository: str) -> tuple[HubFacts, ServeError | None]:
    missing = HubFacts(title=asked.title, model_cached=False)
    try:
        asked.listing(repository)
    except hub.NotReachable as problem:
        offline = "offline" in str(problem)
        return HubFacts(
            title=asked.title, model_cached=False, offline=offline, unreachable=str(problem)
        ), None
    except ModelError as problem:
        return missing, problem
    return missing, None


def service(url: str, key: str, status: ServiceStatus | None) -> ServiceFacts:
    """What an address says from outside, with a short stream of its first model."""
    try:
        with asked(root_of(url), "GET", "/v1/models", key=key, timeout_s=_TIMEOUT_S) as reply:
            models = tuple(model.name for model in listed(json.loads(_good(reply).read())))
            date = reply.headers.get("date", "")
    except _NO_ANSWER as error:
        return ServiceFacts(url=url, unreachable=str(error) or type(error).__name__, status=status)
    timing, problem = _stream(url, key, models[0]) if models else (None, "it serves no model")
    ahead_s = None
    if date:
        with suppress(ValueError):
            ahead_s = parsedate_to_datetime(date).timestamp() - time.time()
    return ServiceFacts(
        url=url, status=status, models=models, stream=timing, stream_problem=problem, clock_ahead_s=ahead_s
    )


def _stream(url: str, key: str, model: str) -> tuple[StreamTiming | None, str]:
    """When each piece of an answer to a short question comes."""
    body = {"model": model, "stream": True, "max_tokens": _PIECES, "temperature": 0,
            "messages": [{"role": "user", "content": _QUESTION}]}  # fmt: skip
    chat = "/v1/chat/completions"
    began_s = time.monotonic()
    try:
        with asked(root_of(url), "POST", chat, body, key=key, timeout_s=_TIMEOUT_S) as reply:
            pieces_s = tuple(
                time.monotonic() - began_s
                for line in _good(reply)
                if line.startswith(b"data:") and b"[DONE]" not in line
            )
    except _NO_ANSWER as error:
        return None, str(error) or type(error).__name__
    return (StreamTiming(pieces_s=pieces_s), "") if pieces_s else (None, "the stream was empty")


def _good(reply: http.client.HTTPResponse) -> http.client.HTTPResponse:
    """Raises ValueError with its words where it is a refusal."""
    if reply.status != 200:
        raise ValueError(f"{reply.status}: {reply.read(200).decode('utf-8', 'replace')}")
    return reply


_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
