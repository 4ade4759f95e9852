"""What a replica's own log tells of one start: when each phase was over, and what memory it took. Pure."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from functools import reduce
from typing import Any

from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.engines.vllm import Vllm

_STAMP = re.compile(r"(?:INFO|WARNING|ERROR|DEBUG) (\d\d-\d\d \d\d:\d\d:\d\d)")
_PHASES = (
    ("server imported", ""),
    ("engine core imported", "Initializing a V1 LLM engine"),
    ("weights begun", "Starting to load model"),
    ("weights loaded", "Model loading took"),
    ("compiled", "torch.compile t"),
    ("memory known", "KV cache size:"),
    ("graphs captured", "Graph capturing finished"),
    ("engine ready", "init engine (profile"),
    ("pictures warmed up", "Multi-modal warmup completed"),
)
"""The end of each phase, and the first dated line that tells of it; the server is ready seconds later."""
_SECONDS = (
    ("torch.compile", re.compile(r"torch\.compile (?:takes|took) ([\d.]+) s")),
    ("graph capture", re.compile(r"Graph capturing finished in ([\d.]+) sec")),
    ("init engine", re.compile(r"init engine \(profile.*?took ([\d.]+) s")),
)
"""What vLLM says that a phase took."""


def start_of(lines: Iterable[str], begun: datetime) -> dict[str, Any]:
    """Seconds from `begun` to the end of each phase (the log counts whole ones), and bytes by the ledger."""
    adapter = Vllm()
    phases: dict[str, int] = {}
    seconds: dict[str, float] = {}
    said = [MeasuredLedger()]
    for line in lines:
        said += filter(None, [adapter.measured(line)])
        stamp = _STAMP.search(line)
        for name, text in _PHASES if stamp else ():
            if text in line and name not in phases:
                assert stamp is not None
                at = datetime.strptime(f"{begun.year}-{stamp[1]}", "%Y-%m-%d %H:%M:%S")
                phases[name] = round((at - begun).total_seconds())
        for name, pattern in _SECONDS:
            if match := pattern.search(line):
                seconds[name] = float(match[1])
    ledger = asdict(reduce(MeasuredLedger.merged, said))
    return {
        "phases_s": phases,
        "said_s": seconds,
        "memory": {name: value for name, value in ledger.items() if value is not None},
    }
