"""From options to a deployment: which model, which engine, how many replicas, under which names.

`planning` decides about GPUs, `embedded` about the rest.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError, ModelError
from autoglm_serve.core.fleet import MOST_REPLICAS
from autoglm_serve.core.model import ModelFormat
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.deploy import planning
from autoglm_serve.deploy.attach import attach
from autoglm_serve.deploy.embedded import OnDownload, embedded, warnings
from autoglm_serve.deploy.engine import choose_engine
from autoglm_serve.deploy.own_memory import NOTHING, Own
from autoglm_serve.deploy.speech import bundled_speech
from autoglm_serve.engines.base import Place
from autoglm_serve.probe.model_files import find_model

log = logging.getLogger(__name__)


async def decide(options: Options, on_download: OnDownload, own: Own = NOTHING) -> Deployment:
    """What to run, in place of what is `own`. Raises ServeError where that cannot be.

    Blocks nothing, though models are downloaded.
    """
    with readable():
        match choose_engine(options).place:
            case Place.ELSEWHERE:
                member = await attach(options.upstream, options.served_model_name, options.upstream_key_file)
            case Place.PROCESSOR:
                member = await asyncio.to_thread(embedded, options, on_download, own)
                for line in warnings(options, member):
                    log.warning(line)
            case Place.GPUS:
                member = await asyncio.to_thread(_on_gpus, options, on_download, own)
    return within_bounds(Deployment(members=(member, *bundled_speech(options, member))))


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
