"""The public points and what the planner makes of them.

A point is a model, GPUs, a version, flags and what the engine said. Figures are predicted with the limits of
the point, whether they fit or not; whether they fit is asked of the same arithmetic, as `plan` asks it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import GIB, Gpu, GpuSpec, Hardware, Link
from autoglm_serve.core.ledger import Predicted
from autoglm_serve.core.workload import Workload
from autoglm_serve.engines import vllm_versions
from autoglm_serve.plan.calibration import constants_for
from autoglm_serve.plan.closed_loop import Load, burst
from autoglm_serve.plan.cost import predict, replica_of
from autoglm_serve.plan.memory import EngineLimits, Fit, fit
from autoglm_serve.plan.shapes import Shape
from autoglm_serve.probe import hardware_table, model_facts

FOLDER = Path(__file__).parent
AUTOGLM = "zai-org/AutoGLM-Phone-9B"
ROUNDS = 1
"""Requests of each session of a load that begins all at once, whose latencies are compared; its rate is that
of the load once it has settled."""
VIDEO_TOKENS = 114_688
"""Of the video that vLLM makes room for where nobody limits it: of a context of 128,000 tokens."""


def read(kind: str) -> list[dict[str, Any]]:
    lines = (FOLDER / "points.jsonl").read_text(encoding="utf-8").splitlines()
    return [point for point in map(json.loads, lines) if point["kind"] == kind]


def facts_of(name: str) -> ModelFacts:
    if name == "AUTOGLM":
        found = model_facts.from_profile(AUTOGLM)
        assert found is not None
        return found
    model = json.loads((FOLDER / "models.json").read_text(encoding="utf-8"))[name]
    return model_facts.from_config(name, model["config"], preprocessor=model.get("preprocessor"))


# --- memory ----------------------------------------------------------------------------------------------


def gpus_of(point: Mapping[str, Any]) -> Hardware:
    """The point's GPUs with the memory that its log names."""
    found = hardware_table.hardware(f"{point['gpu']}:{point['gpus']}")
    total = int(point["gpu_total_gib"] * GIB)

    def sized(gpu: Gpu) -> Gpu:
        kept = gpu.total_bytes - gpu.free_bytes
        free = int(point["free"] * GIB) + int(0.5 * GIB) if "free" in point else total - kept
        return replace(gpu, total_bytes=total, free_bytes=min(free, total))

    return replace(found, gpus=tuple(sized(gpu) for gpu in found.gpus))


def limits_of(point: Mapping[str, Any]) -> EngineLimits:
    flags = point.get("flags", "")
    unlimited = "video" in point.get("notes", "") or "-03" in point["id"]
    return EngineLimits(
        max_model_len=point["max_model_len"],
        max_num_seqs=point["max_num_seqs"],
        max_num_batched_tokens=point["max_num_batched_tokens"],
        max_pixels=point.get("max_pixels"),
        gpu_memory_utilization=point["gpu_memory_utilization"],
        eager="eager" in flags or point.get("theirs", {}).get("graphs") == 0.0,
        profiled_tokens=VIDEO_TOKENS if unlimited else 0,
    )


def version_of(point: Mapping[str, Any]) -> str:
    """0.19/0.20, 0.8.x (V0), 0.11? …: the first release that is named; the V0 engine went by older rules."""
    return "0.7" if "V0" in point["vllm"] else str(point["vllm"])


def fitted(point: Mapping[str, Any]) -> Fit:
    found = gpus_of(point)
    link = found.weakest_link(tuple(gpu.index for gpu in found.gpus))
    return fit(
        facts_of(point["model"]),
        found.gpus[0],
        Shape(tensor_parallel=point["tp"], pipeline_parallel=point["pp"]),
        limits_of(point),
        vllm_versions.traits(version_of(point)),
        constants_for(point["gpu"], None, ()),
        link,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of one point."""

    id: str
    figure: str
    predicted: float
    said: float
    gpus: int
    old: bool = False
    """Of an engine whose rules are not kept (vLLM's V0): shown, and in no median."""

    @property
    def off(self) -> float:
        """Relative, signed."""
        return self.predicted / self.said - 1


def figures(point: Mapping[str, Any]) -> Iterator[Compared]:
    """Weights and KV cache, where the point says them and the engine ran or said them all the same."""
    found, theirs = fitted(point), point["theirs"]
    ledger = found.ledger
    compiler = ledger.cold_bytes if point.get("cold") else 0
    tokens = found.layout.tokens(ledger.kv_cache_bytes - compiler, point["max_model_len"])
    pairs = {
        "weights": (ledger.weights_bytes / GIB, theirs.get("weights")),
        "KV tokens": (float(tokens), theirs.get("kv_tokens")),
        "KV GiB": (ledger.kv_cache_bytes / GIB, theirs.get("kv_gib")),
    }
    if theirs.get("kv_tokens"):
        pairs.pop("KV GiB")
    for figure, (predicted, said) in pairs.items():
        if said is not None and said > 0 and not point.get("only_bytes"):
            yield Compared(
                id=point["id"],
                figure=figure,
                predicted=predicted,
                said=said,
                gpus=point["gpus"],
                old="V0" in point["vllm"],
            )


def outcome(point: Mapping[str, Any]) -> tuple[bool, bool | None]:
    """(planned as fitting, whether it ran); None where the log does not say."""
    said = {"runs": True, "no memory": False}.get(point["theirs"]["outcome"])
    return fitted(point).feasible, said


# --- speed -----------------------------------------------------------------------------------------------

MODELS = {"Qwen3-32B": "Qwen3-32B", "Qwen2.5-72B (shape of Qwen2.5-VL-72B)": "Qwen2.5-72B"}
CARDS = {"2x RTX PRO 6000, PCIe 5": "rtxpro6000:2", "2x H100": "h100:2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A speed point, taken apart."""

    facts: ModelFacts
    spec: GpuSpec
    link: Link
    shape: Shape
    prompt_tokens: int
    output_tokens: int
    sessions: int


def timed(point: Mapping[str, Any]) -> Timed:
    words = point["load"].replace(",", " ").split()
    numbers = [int(word) for word in words if word.isdigit()]
    found = hardware_table.hardware(CARDS[point["gpu"]])
    tensor = point["shape"].startswith("TP")
    ways = int(point["shape"][2:])
    return Timed(
        facts=facts_of(MODELS[point["model"]]),
        spec=found.gpus[0].spec,
        link=found.link(0, 1),
        shape=Shape(tensor_parallel=ways if tensor else 1, pipeline_parallel=1 if tensor else ways),
        prompt_tokens=numbers[0],
        output_tokens=numbers[1],
        sessions=numbers[2],
    )


def speed(point: Mapping[str, Any]) -> Predicted:
    """One session alone, or all of them as they begin together."""
    case = timed(point)
    limits = EngineLimits(max_model_len=32_768, max_num_seqs=256, max_num_batched_tokens=8192)
    gpu = hardware_table.hardware(CARDS[point["gpu"]]).gpus[0]
    constants = constants_for(case.spec.key, None, ())
    traits = vllm_versions.traits("0.27.1")
    ledger = fit(case.facts, gpu, case.shape, limits, traits, constants, case.link).ledger
    work = Workload(
        sessions=case.sessions,
        images=0,
        shared_tokens=0,
        fresh_tokens=case.prompt_tokens,
        output_tokens=case.output_tokens,
    )
    found = predict(case.facts, case.spec, case.link, case.shape, limits, 1, ledger, work, constants)
    if case.sessions == 1:
        return found
    load = Load(
        sessions=case.sessions,
        shared_tokens=0,
        text_tokens=case.prompt_tokens,
        images=0,
        image_tokens=0,
        output_tokens=case.output_tokens,
    )
    replica = replica_of(case.facts, case.spec, case.link, case.shape, limits, ledger, load, constants)
    seen = burst(replica, load, ROUNDS)
    return replace(found, ttft_s=seen.ttft_s, tpot_s=seen.tpot_s)


def speeds(point: Mapping[str, Any]) -> Iterator[Compared]:
    found, theirs, sessions = speed(point), point["theirs"], timed(point).sessions
    ttft_ms = 1e3 * (found.single_ttft_s if sessions == 1 else found.ttft_s)
    tpot_ms = 1e3 * (found.single_tpot_s if sessions == 1 else found.tpot_s)
    rate = found.steps_per_s * timed(point).output_tokens
    name = f"{point['model'].split(' ')[0]} {point['shape']} {point['load'].split(' in')[0].split()[-1]} in"
    if sessions > 1:
        name += f", {sessions} at once"
    for figure, predicted, keys in (
        ("TTFT ms", ttft_ms, ("ttft_ms", "median_ttft_ms")),
        ("TPOT ms", tpot_ms, ("tpot_ms", "median_tpot_ms")),
        ("tokens/s", rate, ("output_tok_s",)),
    ):
        said = next((theirs[key] for key in keys if key in theirs), None)
        if said is not None:
            yield Compared(id=name, figure=figure, predicted=predicted, said=said, gpus=2)


# --- one answer alone, by how the weights are stored -----------------------------------------------------

OLD_HOST_S = 2.2e-3
"""Of a step in vLLM's V0 engine, which waited for its scheduler between steps: what the table's BF16 rows
take beyond the plan. Later engines do both at once."""
STORED: Mapping[str, Mapping[str, object]] = {
    "AWQ": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "GPTQ-Int4": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "GPTQ-Int8": {"quant_method": "gptq", "bits": 8, "group_size": 128, "desc_act": False, "sym": True},
}


def answer(point: Mapping[str, Any]) -> Compared:
    """Tokens a second of one answer, its prompt included, with nobody else on the GPUs."""
    config = json.loads((FOLDER / "models.json").read_text(encoding="utf-8"))[point["model"]]["config"]
    stored = STORED.get(point["weights"])
    facts = model_facts.from_config(
        point["model"], {**config, "quantization_config": stored} if stored else config
    )
    found = hardware_table.hardware(f"{point['gpu']}:{point['gpus']}")
    link = found.weakest_link(tuple(gpu.index for gpu in found.gpus))
    shape, constants = Shape(tensor_parallel=point["gpus"]), constants_for(point["gpu"], None, ())
    limits = EngineLimits(max_model_len=32_768, max_num_seqs=256, max_num_batched_tokens=8192)
    spec, traits = found.gpus[0].spec, vllm_versions.traits("0.27.1")
    ledger = fit(facts, found.gpus[0], shape, limits, traits, constants, link).ledger
    work = Workload(
        sessions=1, images=0, shared_tokens=0, fresh_tokens=point["prompt_tokens"],
        output_tokens=point["output_tokens"],
    )  # fmt: skip
    alone = predict(facts, spec, link, shape, limits, 1, ledger, work, constants)
    tokens = point["output_tokens"]
    seconds = alone.single_ttft_s + (tokens - 1) * (alone.single_tpot_s + OLD_HOST_S)
    return Compared(
        id=f"{point['model']} {point['weights']} {point['prompt_tokens']} in",
        figure="tokens/s, one answer",
        predicted=tokens / seconds,
        said=point["theirs"]["output_tok_s"],
        gpus=point["gpus"],
    )
