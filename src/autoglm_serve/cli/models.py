"""`autoglm models`: the models on this machine, and which of them are served."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import ADDRESS, RunningService
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ExitCode, Unreachable
from autoglm_serve.launch.listeners import local_url

_GIB = 2**30
_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model that `autoglm serve` needs no network for."""

    name: str
    size_bytes: int
    where: str


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, only=ADDRESS, words=ADDRESS)
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def run(args: Namespace, options: Options) -> int:
    local, served = list(local_models()), served_names(options)
    if args.json:
        print(json.dumps({"served": served, "local": [asdict(model) for model in local]}, indent=2))
        return ExitCode.OK
    rows = [(model.name, f"{model.size_bytes / _GIB:.2f} GiB", model.where) for model in local]
    print(table(("model", "size", "where"), rows))
    address = local_url(options.host, options.port).removeprefix("http://")
    print(f"\nserved at {address}: {', '.join(served)}" if served else f"\nnothing is served at {address}")
    return ExitCode.OK


def served_names(options: Options) -> list[str]:
    """What the service at this address answers to; nothing where none runs."""
    try:
        answer = RunningService.of(options).ask("GET", "/v1/models", timeout_s=_TIMEOUT_S)
    except Unreachable:
        return []
    return [str(model["id"]) for model in answer.get("data", ())]


def local_models() -> Iterator[LocalModel]:
    """The bundled model, then what is in the cache of Hugging Face's library."""
    from autoglm_serve.demo import FILES, demo_model
    from autoglm_serve.probe.hub import cached_repositories

    demo = demo_model()
    size = sum(path.stat().st_size for path in (demo.gguf, demo.mmproj))
    yield LocalModel(name="the bundled demo model", size_bytes=size, where=str(FILES))
    for repository in cached_repositories():
        yield LocalModel(name=repository.name, size_bytes=repository.size_bytes, where=str(repository.folder))
