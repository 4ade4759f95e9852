"""Constants for a kind of GPU: fitted here once and shipped, or fitted to what this machine measured.

Pure. A measurement of this very machine (GPU, driver, engine version, model) wins over the shipped fit for
the GPU, and that over the defaults. `probe.measurements` keeps the files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.ledger import Badge, Ledger, MeasuredLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a measurement holds for."""

    gpu: str
    driver: str
    engine: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One start of an engine: what was predicted with which constants, and what it said itself."""

    subject: Subject
    gpus_per_replica: int
    captured_graphs: int
    predicted: Ledger
    measured: MeasuredLedger


SHIPPED: Mapping[str, Constants] = {}


def constants_for(gpu_key: str, subject: Subject, known: Iterable[Measurement]) -> Constants:
    """The best constants there are for a subject."""
    base = SHIPPED.get(gpu_key, Constants())
    here = [measurement for measurement in known if measurement.subject == subject]
    return refit(base, here) if here else base


def refit(base: Constants, measurements: Iterable[Measurement]) -> Constants:
    """Memory constants that would have predicted what was measured; the latest measurement of a kind wins."""
    fitted = base
    for measurement in measurements:
        said = measurement.measured
        if measurement.gpus_per_replica == 1 and said.non_torch_bytes is not None:
            fitted = replace(fitted, non_torch_bytes=said.non_torch_bytes)
        elif said.non_torch_bytes is not None:
            fitted = replace(fitted, non_torch_parallel_bytes=said.non_torch_bytes)
        fitted = _refit_activation(fitted, measurement)
        fitted = _refit_graphs(fitted, measurement)
    return replace(fitted, badge=Badge.CALIBRATED, origin="measured on this machine")


def _refit_activation(constants: Constants, measurement: Measurement) -> Constants:
    said, expected = measurement.measured.peak_activation_bytes, measurement.predicted.peak_activation_bytes
    if not said or not expected:
        return constants
    factor = constants.layer_activation_factor * said / expected
    return replace(constants, layer_activation_factor=factor)


def _refit_graphs(constants: Constants, measurement: Measurement) -> Constants:
    said, expected = measurement.measured.cuda_graphs_bytes, measurement.predicted.cuda_graphs_bytes
    if not said or not expected:
        return constants
    scale = said / expected
    return replace(
        constants,
        graphs_base_bytes=int(constants.graphs_base_bytes * scale),
        graph_bytes=int(constants.graph_bytes * scale),
    )
