"""Breaks things on purpose, and counts what the clients see.

python -m benchmarks.chaos                    ten minutes of random faults; --seed replays a run
python -m benchmarks.chaos kills              kill -9 of the serving replica at a random point of a stream
"""

import argparse
import sys
from types import ModuleType

from benchmarks.chaos import alone, kills, large, overhead, overload, pairs, peers, rolling, steady, storm

MEASURES: dict[str, ModuleType] = {
    "storm": storm,
    "pairs": pairs,
    "kills": kills,
    "alone": alone,
    "steady": steady,
    "rolling": rolling,
    "overload": overload,
    "large": large,
    "overhead": overhead,
    "peers": peers,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measures = parser.add_subparsers(dest="measure", required=True)
    for name, module in MEASURES.items():
        assert module.__doc__
        own = measures.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        own.add_argument("--seed", type=int, default=1)
        module.add(own)
    argv = sys.argv[1:]
    named = argv[:1] and (argv[0] in MEASURES or argv[0] in ("-h", "--help"))
    arguments = parser.parse_args(argv if named else ["storm", *argv])
    sys.exit(0 if MEASURES[arguments.measure].run(arguments) else 1)


if __name__ == "__main__":
    main()
