"""Every parser against what nobody would write, for as long as is asked.

    python -m tests.fuzz [--minutes 10] [--seed 1] [--only chat,gguf]

Begins with the corpus (tests/fuzz/corpus/TARGET/*), goes on with changes to it. An input that raises what is
no refusal, or takes longer than half a second, is written to the corpus and makes the exit status 1. Mended,
it stays there, and every test run reads it again (tests/fuzz/test_corpus.py).
"""

import argparse
import hashlib
import random
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import REFUSALS, TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
SLOW_S = 0.5


def corpus_of(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))] or [b""]


def fault_of(target: Target, data: bytes) -> str:
    """What is wrong with how it is read; nothing where it is read or refused in time."""
    begun_s = time.perf_counter()
    try:
        target(data)
    except REFUSALS:
        pass
    except Exception:  # noqa: BLE001 (whatever it is, it is what is looked for)
        return traceback.format_exc(limit=-3)
    took_s = time.perf_counter() - begun_s
    return f"it took {took_s:.2f} s" if took_s > SLOW_S else ""


def run(names: list[str], seconds: float, seed: int) -> int:
    """How many faults were found."""
    dice, until_s, tried, faults = random.Random(seed), time.monotonic() + seconds, 0, 0
    seeds = {name: corpus_of(name) for name in names}
    while time.monotonic() < until_s:
        for name in names:
            data = mutated(dice.choice(seeds[name]), seeds[name], dice)
            tried += 1
            if fault := fault_of(TARGETS[name], data):
                faults += 1
                kept = CORPUS / name / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
                sys.stdout.write(f"{name}: {kept}\n{fault}\n")
    sys.stdout.write(f"{tried} inputs to {len(names)} parsers, seed {seed}: {faults} faults\n")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Parsers against what nobody would write.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", help="names of parsers, separated by commas")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(TARGETS)
    sys.exit(run(names, arguments.minutes * 60, arguments.seed) > 0)


if __name__ == "__main__":
    main()
