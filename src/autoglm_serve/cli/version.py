"""`autoglm version`: what is installed here, for a person and for bug reports."""

import json
import platform
from argparse import ArgumentParser, Namespace

from autoglm_serve import __version__
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.probe.packages import installed


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def run(args: Namespace) -> int:
    packages = dict.fromkeys(engine.package for engine in ENGINES.values() if engine.package)
    engines = {name: found for name in packages if (found := installed(name))}
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
