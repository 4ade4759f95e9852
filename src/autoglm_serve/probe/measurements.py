"""Measured ledgers, kept in the user's data directory: one small JSON file for each subject and shape.

Owns the files and their format. What follows from a measurement is `plan.calibration`'s. A file that cannot
be read counts as not there: calibration is a help, never a reason not to plan.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoglm_serve.core.codec import from_plain
from autoglm_serve.plan.calibration import Measurement

FORMAT = 2  # 1 was predicted by a formula for rounds
RANGES = ("steps_range_per_s", "ttft_range_s")
FOLDER = Path("autoglm-serve") / "measurements"


def folder(environ: Mapping[str, str]) -> Path:
    """$XDG_DATA_HOME/autoglm-serve/measurements, or under ~/.local/share."""
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / FOLDER


def save(where: Path, measurement: Measurement) -> Path:
    """Keep a measurement, in place of an earlier one of the same subject and shape.

    One that knows no speed (a service reads memory only) leaves the earlier one's.
    """
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"{_key(measurement)}.json"
    earlier = _read(path)
    if measurement.measured_speed is None and earlier is not None:
        measurement = replace(
            measurement,
            predicted_speed=earlier.predicted_speed,
            measured_speed=earlier.measured_speed,
        )
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps({"format": FORMAT, **asdict(measurement)}, indent=1), encoding="utf-8")
    os.replace(scratch, path)
    return path


def load(where: Path) -> tuple[Measurement, ...]:
    """Every measurement that can be read, oldest first."""
    files = (path for path in where.glob("*.json") if path.is_file())
    paths = sorted(files, key=lambda file: (_written_ns(file), file.name))
    return tuple(found for path in paths if (found := _read(path)) is not None)


def _written_ns(path: Path) -> int:
    with suppress(OSError):  # somebody has deleted it
        return path.stat().st_mtime_ns
    return 0


def _read(path: Path) -> Measurement | None:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    return None


def _key(measurement: Measurement) -> str:
    words = (*asdict(measurement.subject).values(), measurement.gpus_per_replica)
    return hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()[:20]


def _parse(raw: dict[str, Any]) -> Measurement:
    if raw.pop("format") != FORMAT:
        raise ValueError("another format")
    predicted, speed, asked = raw["predicted"], raw["measured_speed"], raw["predicted_speed"]
    for figures in (predicted, raw["measured"]):
        _require(figures, least=0)
    for figures in filter(None, (speed, asked)):
        _require(figures, least=1e-9)
    return from_plain(Measurement, raw)


def _require(figures: dict[str, Any], *, least: float) -> None:
    """Every figure is one that arithmetic can be done with, or was not said."""
    for name, value in figures.items():
        numbers = value if name in RANGES and value is not None else (value,)
        for number in numbers:
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not (name == "badge" or number is None or (is_number and least <= number < 1e18)):
                raise ValueError(f"{name} is {value!r}")
