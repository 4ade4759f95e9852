"""What engines refuse at once: one table of rules, each with where it is written.

A rule holds for an engine from one release on, until another. It looks at a `Setting` and says what is wrong
in words that follow "because", or nothing. Memory is not its business. Checked against the sources of vLLM
0.8, 0.10, 0.11, 0.19, 0.26, 0.27 and 0.33; paths are below `vllm/`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from autoglm_serve.core.engine_traits import EngineTraits
from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import GpuSpec
from autoglm_serve.plan.shapes import Shape

EVERY_RELEASE = (0, 0)
NO_RELEASE = (10_000, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is to be run, on what."""

    facts: ModelFacts
    shape: Shape
    specs: tuple[GpuSpec, ...] = ()
    quantization: str | None = None
    """Done while loading; None runs the weights as they are stored."""
    expert_parallel: bool = False
    """Each GPU holds whole experts instead of a part of each."""
    dtype: str | None = None
    sliced: bool = False
    """The GPUs are MIG slices."""

    @property
    def ways(self) -> int:
        return self.shape.tensor_parallel

    @property
    def capability(self) -> tuple[int, int]:
        """Of the oldest GPU."""
        return min((spec.compute_capability for spec in self.specs), default=(99, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that an engine refuses."""

    check: Callable[[Setting], str | None]
    source: str
    engines: tuple[str, ...] = ("vllm", "sglang")
    since: tuple[int, int] = EVERY_RELEASE
    until: tuple[int, int] = NO_RELEASE
    """The first release in which it no longer holds."""

    def holds(self, traits: EngineTraits) -> bool:
        release = _release(traits.version)
        return traits.engine in self.engines and (
            traits.engine != "vllm" or self.since <= release < self.until
        )


def why_refused(setting: Setting, traits: EngineTraits) -> str | None:
    """Why the engine would refuse this setting; None where it would not."""
    return next((found for rule in RULES if rule.holds(traits) and (found := rule.check(setting))), None)


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (9999, 0)


# --- how it is spread ------------------------------------------------------------------------------------


def _heads(setting: Setting) -> str | None:
    text, ways = setting.facts.text, setting.ways
    return f"{text.heads} attention heads do not divide by {ways}" if text.heads % ways else None


def _key_heads(setting: Setting) -> str | None:
    text, ways = setting.facts.text, setting.ways
    if not text.kv_heads or not (text.kv_heads % ways and ways % text.kv_heads):
        return None
    if text.latent_copy_bytes:  # one latent vector, whole on each GPU
        return None
    return f"{text.kv_heads} key/value heads neither divide by {ways} nor repeat evenly over it"


def _recurrent_heads(setting: Setting) -> str | None:
    heads, ways = setting.facts.text.recurrent_heads, setting.ways
    return f"the {heads} heads of its recurrent layers do not divide by {ways}" if heads % ways else None


def _mlp(setting: Setting) -> str | None:
    columns, ways = setting.facts.text.intermediate, setting.ways
    return f"the MLP of {columns} columns does not divide by {ways}" if columns % ways else None


def _experts(setting: Setting) -> str | None:
    text, ways = setting.facts.text, setting.ways
    if not text.experts or setting.expert_parallel or not text.expert_intermediate % ways:
        return None
    return f"experts of {text.expert_intermediate} columns do not divide by {ways}"


def _tower(setting: Setting) -> str | None:
    vision, ways = setting.facts.vision, setting.ways
    if vision is None or setting.shape.encoder_data_parallel or ways == 1:
        return None
    if vision.heads % ways:
        return f"the vision tower's {vision.heads} heads do not divide by {ways}"
    if vision.intermediate % ways:
        return f"the vision tower's MLP of {vision.intermediate} columns does not divide by {ways}"
    return None


def _stages(setting: Setting) -> str | None:
    layers, stages = setting.facts.text.layers, setting.shape.pipeline_parallel
    return f"{layers} layers are fewer than {stages} pipeline stages" if stages > layers else None


def _slices(setting: Setting) -> str | None:
    if not setting.sliced or setting.shape.gpus == 1:
        return None
    return "MIG slices cannot reach each other, so each runs a replica of its own"


# --- how the weights are stored --------------------------------------------------------------------------


def _block_experts(setting: Setting) -> str | None:
    """A scale belongs to a block of weights, and no block is cut."""
    stored, text, ways = setting.facts.stored, setting.facts.text, setting.ways
    if not stored or not stored.block or not text.experts or setting.expert_parallel or ways == 1:
        return None
    rows, columns = stored.block
    part = text.expert_intermediate // ways
    if part % rows or part % columns:
        return (
            f"{ways} parts of an expert's {text.expert_intermediate} columns have {part} each, which the "
            f"checkpoint's blocks of {rows} do not divide (-- --enable-expert-parallel keeps experts whole)"
        )
    return None


def _block_linears(setting: Setting) -> str | None:
    stored, ways = setting.facts.stored, setting.ways
    if not stored or not stored.block or ways == 1:
        return None
    rows, columns = stored.block
    for name, size in _split_sizes(setting.facts):
        part = size // ways
        if part % columns or part % rows:
            return (
                f"{name} of {size} in {ways} parts of {part} is cut across the checkpoint's blocks of {rows}"
            )
    return None


def _split_sizes(facts: ModelFacts) -> Iterator[tuple[str, int]]:
    """Sizes that tensor parallel cuts through, of linears that every layer has."""
    text = facts.text
    yield "attention", text.heads * text.head_dim
    if text.intermediate and not (text.experts and text.expert_layers >= text.layers):
        yield "the MLP", text.intermediate
    if text.shared_expert_intermediate:
        yield "the shared expert", text.shared_expert_intermediate


def _groups(setting: Setting) -> str | None:
    """A scale belongs to a group of weights along the input, which row-parallel linears cut."""
    stored, ways = setting.facts.stored, setting.ways
    if not stored or not stored.group or stored.bits > 8 or ways == 1:
        return None
    for name, size in _split_sizes(setting.facts):
        if size % ways == 0 and size // ways % stored.group:
            return (
                f"{name} of {size} in {ways} parts of {size // ways} is not aligned with the checkpoint's "
                f"groups of {stored.group} weights"
            )
    return None


def _packed_experts(setting: Setting) -> str | None:
    stored, text, ways = setting.facts.stored, setting.facts.text, setting.ways
    if not stored or stored.bits > 8 or stored.floating or not text.experts:
        return None
    part = text.expert_intermediate // ways
    if setting.expert_parallel or ways == 1 or part % LEAST_GROUP == 0:
        return None
    columns = text.expert_intermediate
    return (
        f"an expert's {columns} columns in {ways} parts leave {part}, which are no groups of packed weights"
    )


LEAST_GROUP = 32


# --- what the chip can do --------------------------------------------------------------------------------


def _chip(least: tuple[int, int]) -> Callable[[Setting], str | None]:
    def check(setting: Setting) -> str | None:
        if setting.capability >= least:
            return None
        wanted, has = ".".join(map(str, least)), ".".join(map(str, setting.capability))
        return f"its builds need compute capability {wanted} and {_oldest(setting).title} has {has}"

    return check


def _oldest(setting: Setting) -> GpuSpec:
    return min(setting.specs, key=lambda spec: spec.compute_capability)


def _method(methods: Sequence[str], least: tuple[int, int]) -> Callable[[Setting], str | None]:
    """A quantisation, of the checkpoint or while loading, needs a chip of this generation."""

    def check(setting: Setting) -> str | None:
        stored = setting.facts.stored
        method = setting.quantization or (stored.method if stored else None)
        if method not in methods or setting.capability >= least:
            return None
        wanted = ".".join(map(str, least))
        return f"{method} weights need compute capability {wanted}, newer than {_oldest(setting).title}"

    return check


METHODS = frozenset(
    {
        "aqlm",
        "auto-round",
        "auto_awq",
        "auto_gptq",
        "awq",
        "awq_marlin",
        "bitblas",
        "bitsandbytes",
        "compressed-tensors",
        "cpu_awq",
        "deepseek_v4_fp8",
        "deepspeedfp",
        "experts_int8",
        "fbgemm_fp8",
        "fp8",
        "fp_quant",
        "gguf",
        "gpt_oss_mxfp4",
        "gptq",
        "gptq_bitblas",
        "gptq_marlin",
        "gptq_marlin_24",
        "hqq",
        "humming",
        "inc",
        "ipex",
        "marlin",
        "modelopt",
        "modelopt_fp4",
        "modelopt_fp8",
        "modelopt_mixed",
        "modelopt_mxfp8",
        "moe_wna16",
        "mxfp4",
        "mxfp8",
        "neuron_quant",
        "online",
        "petit_nvfp4",
        "ptpc_fp8",
        "qqq",
        "quark",
        "rtn",
        "torchao",
        "tpu_int8",
        "unknown",
    }
)
"""Of any release; `unknown` is a config that names none."""


def _no_method(setting: Setting) -> str | None:
    stored = setting.facts.stored
    method = setting.quantization or (stored.method if stored else None)
    return f"it knows no quantisation called {method[:40]!r}" if method and method not in METHODS else None


def _half_precision(setting: Setting) -> str | None:
    """Families whose activations overflow 16-bit floats with a short exponent."""
    kind = setting.facts.architecture
    unfit = kind.startswith(("Gemma2", "Gemma3")) or kind == "Glm4ForCausalLM"
    half = setting.dtype == "float16" or (setting.dtype is None and setting.capability < (8, 0))
    if not unfit or not half:
        return None
    return (
        f"{kind} overflows in float16, and this GPU has no bfloat16 (--dtype float32 runs, at twice the size)"
    )


RULES: tuple[Rule, ...] = (
    Rule(check=_heads, source="config/model.py: verify_with_parallel_config"),
    Rule(check=_key_heads, source="model_executor/layers/linear.py: QKVParallelLinear"),
    Rule(check=_recurrent_heads, source="model_executor/layers/mamba/mamba_utils.py: divide"),
    Rule(check=_mlp, source="model_executor/layers/linear.py: divide"),
    Rule(check=_experts, source="model_executor/layers/fused_moe/layer.py: intermediate_size % tp_size"),
    Rule(check=_tower, source="model_executor/models/qwen2_5_vl.py, glm4_1v.py: ColumnParallelLinear"),
    Rule(check=_stages, source="distributed/utils.py: get_pp_indices"),
    Rule(check=_slices, source="NVIDIA MIG user guide: no peer access between slices"),
    Rule(
        check=_block_experts,
        source="model_executor/layers/quantization/fp8.py: Fp8MoEMethod.create_weights",
        engines=("vllm", "sglang"),
    ),
    Rule(check=_block_linears, source="quantization/utils/fp8_utils.py: validate_fp8_block_shape"),
    Rule(
        check=_groups,
        source="quantization/auto_awq.py (awq.py, gptq.py before 0.26): input size not aligned; "
        "QwenLM/Qwen3-VL#831",
    ),
    Rule(check=_packed_experts, source="quantization/moe_wna16.py: group_size_div_factor"),
    Rule(
        check=_chip((7, 0)),
        source="docs/getting_started/installation/gpu.md of 0.14",
        engines=("vllm",),
        until=(0, 20),
    ),
    Rule(
        check=_chip((7, 5)),
        source="docs/getting_started/installation/gpu.cuda.inc.md of 0.21; CUDA 13 has no older chips",
        engines=("vllm",),
        since=(0, 20),
    ),
    Rule(check=_chip((7, 5)), source="docs.sglang.ai: install", engines=("sglang",)),
    Rule(
        check=_method(("fp8", "awq_marlin", "gptq_marlin"), (8, 0)),
        source="quantization/fp8.py, awq_marlin.py: get_min_capability 80 in 0.8 to 0.10",
        engines=("vllm",),
        until=(0, 11),
    ),
    Rule(
        check=_method(("fp8", "awq", "awq_marlin", "gptq_marlin", "modelopt", "modelopt_fp4"), (7, 5)),
        source="quantization/*.py: get_min_capability 75 since 0.19",
        engines=("vllm",),
        since=(0, 11),
    ),
    Rule(
        check=_method(("awq",), (7, 5)), source="quantization/awq.py: get_min_capability", engines=("vllm",)
    ),
    Rule(
        check=_method(("mxfp4", "experts_int8", "fbgemm_fp8"), (8, 0)),
        source="quantization/mxfp4.py, experts_int8.py, fbgemm_fp8.py: get_min_capability",
        engines=("vllm",),
    ),
    Rule(
        check=_method(("modelopt_fp8",), (8, 9)),
        source="quantization/modelopt.py: get_min_capability 89 until 0.32",
        engines=("vllm",),
    ),
    Rule(
        check=_no_method,
        source="model_executor/layers/quantization/__init__.py: QUANTIZATION_METHODS, of 0.7 to 0.26",
        engines=("vllm",),
    ),
    Rule(
        check=_half_precision,
        source="config/model.py: _FLOAT16_NOT_SUPPORTED_MODELS",
        engines=("vllm",),
    ),
)
