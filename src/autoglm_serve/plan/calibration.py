"""Constants for a kind of GPU: fitted here once and shipped, or fitted to what this machine measured.

Pure. A measurement of this very machine (GPU, driver, engine version, model) wins over the shipped fit for
the GPU, and that over the defaults. `probe.measurements` keeps the files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import (
    Badge,
    Expectation,
    Ledger,
    MeasuredLedger,
    MeasuredSpeed,
    Predicted,
    Subject,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One start of an engine: what the shipped constants predicted, and what it said and did itself."""

    subject: Subject
    gpus_per_replica: int
    predicted: Ledger
    measured: MeasuredLedger
    predicted_speed: Predicted | None = None
    measured_speed: MeasuredSpeed | None = None


def held_against(
    expected: Expectation, ledger: MeasuredLedger, speed: MeasuredSpeed | None
) -> Measurement | None:
    """What a start says of its expectation; None where the engine did not tell enough, or where it compiled
    and counted the compiler's scratch as if serving took it."""
    if not ledger.complete or ledger.compiled:
        return None
    return Measurement(
        subject=expected.subject,
        gpus_per_replica=expected.gpus_per_replica,
        predicted=expected.ledger,
        measured=ledger,
        predicted_speed=expected.speed,
        measured_speed=speed,
    )


SHIPPED: Mapping[str, Constants] = {
    "h200": Constants(
        badge=Badge.CALIBRATED,
        origin="2 and 4 x H200, driver 580, vLLM 0.26: benchmarks/gpu",
        prefill_efficiency=0.60,
        encoder_efficiency=0.84,
        fp8_efficiency=0.486,
        bandwidth_efficiency=0.75,
        layer_overhead_s=43e-6,
        non_torch_bytes=int(0.22 * GIB),
    ),
    "h100": Constants(
        badge=Badge.CALIBRATED,
        origin="4 x H100 SXM, driver 580, vLLM 0.26: benchmarks/gpu",
        prefill_efficiency=0.60,
        encoder_efficiency=0.84,
        fp8_efficiency=0.486,
        bandwidth_efficiency=0.80,
        layer_overhead_s=42e-6,
        non_torch_bytes=int(0.22 * GIB),
        image_turn_s=0.168,
        parallel_turn_s=0.016,
        image_copy_s=0.055,
        parallel_image_s=0.025,
        pipeline_image_s=0.030,
    ),
}
"""Kinds of GPU that were measured with AutoGLM-Phone-9B's shape."""


def constants_for(gpu_key: str, subject: Subject | None, known: Iterable[Measurement]) -> Constants:
    """The best constants there are for a subject; without one, those that ship for the kind of GPU."""
    base = SHIPPED.get(gpu_key, Constants())
    here = [measurement for measurement in known if measurement.subject == subject]
    return refit(base, here) if here else base


def refit(base: Constants, measurements: Iterable[Measurement]) -> Constants:
    """Memory constants that would have predicted what was measured; the latest measurement of a kind wins."""
    fitted = base
    for measurement in measurements:
        fitted = _refit_libraries(fitted, base, measurement)
        fitted = _refit_activation(fitted, base, measurement)
        fitted = _refit_graphs(fitted, base, measurement)
        fitted = _refit_speed(fitted, base, measurement)
    return replace(fitted, badge=Badge.CALIBRATED, origin="measured on this machine", measured_here=True)


def _refit_libraries(fitted: Constants, base: Constants, measurement: Measurement) -> Constants:
    """What the engine calls non-torch memory holds more than libraries in some releases; the prediction held
    the same, so the difference is theirs."""
    said = _non_torch_bytes(measurement.measured)
    if said is None:
        return fitted
    more = said - measurement.predicted.non_torch_bytes
    if measurement.gpus_per_replica == 1:
        return replace(fitted, non_torch_bytes=max(0, base.non_torch_bytes + more))
    return replace(fitted, non_torch_parallel_bytes=max(0, base.non_torch_parallel_bytes + more))


def _non_torch_bytes(said: MeasuredLedger) -> int | None:
    """As reported, or what was taken beside the weights where only the sum is."""
    if said.non_torch_bytes is not None:
        return said.non_torch_bytes
    if said.consumed_bytes is None or said.weights_bytes is None:
        return None
    return max(0, said.consumed_bytes - said.weights_bytes)


def _refit_activation(fitted: Constants, base: Constants, measurement: Measurement) -> Constants:
    said, expected = measurement.measured.peak_activation_bytes, measurement.predicted.peak_activation_bytes
    if not said or not expected:
        return fitted
    scale = said / expected
    return replace(
        fitted,
        layer_activation_factor=base.layer_activation_factor * scale,
        encoder_activation_factor=base.encoder_activation_factor * scale,
        activation_base_bytes=int(base.activation_base_bytes * scale),
    )


def _refit_graphs(fitted: Constants, base: Constants, measurement: Measurement) -> Constants:
    said, expected = measurement.measured.cuda_graphs_bytes, measurement.predicted.cuda_graphs_bytes
    if not said or not expected:
        return fitted
    scale = said / expected
    return replace(
        fitted,
        graph_full_bytes=int(base.graph_full_bytes * scale),
        graph_pieces_bytes=int(base.graph_pieces_bytes * scale),
        graph_full_parallel_bytes=int(base.graph_full_parallel_bytes * scale),
        graph_pieces_parallel_bytes=int(base.graph_pieces_parallel_bytes * scale),
    )


def _refit_speed(fitted: Constants, base: Constants, measurement: Measurement) -> Constants:
    """Factors on the prompt (without the host's share, which is not the GPU's) and on an answer's token."""
    said, expected = measurement.measured_speed, measurement.predicted_speed
    if said is None or expected is None:
        return fitted
    usual = expected.single_host_s or base.image_beside_s + base.image_turn_s
    host = min(usual, 0.8 * said.ttft_s)
    prompt = (said.ttft_s - host) / max(1e-6, expected.single_ttft_s - usual)
    return replace(
        fitted,
        image_beside_s=base.image_beside_s * host / usual,
        image_turn_s=base.image_turn_s * host / usual,
        image_torch_s=base.image_torch_s * host / usual,
        prompt_factor=base.prompt_factor * max(0.1, prompt),
        decode_factor=base.decode_factor * said.tpot_s / expected.single_tpot_s,
    )
