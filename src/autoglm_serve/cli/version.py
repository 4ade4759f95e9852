"""`autoglm version`: what is installed here, for a person and for bug reports."""

import json
import platform
from argparse import ArgumentParser, Namespace
from importlib.metadata import PackageNotFoundError, version

from autoglm_serve import __version__

ENGINE_PACKAGES = ("xllamacpp", "vllm", "sglang")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def run(args: Namespace) -> int:
    engines = {name: found for name in ENGINE_PACKAGES if (found := _installed(name))}
    facts = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engines": engines,
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print(f"autoglm-serve {__version__}")
        print(f"Python {facts['python']} on {facts['platform']}")
        print("engines: " + (", ".join(f"{name} {found}" for name, found in engines.items()) or "none"))
    return 0


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
