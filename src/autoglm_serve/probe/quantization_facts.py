"""How a checkpoint's weights are stored: what its config says, and what its headers show beyond that."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from autoglm_serve.core.facts import QuantizationFacts, TextFacts
from autoglm_serve.probe.checkpoint import WORD_BITS, Tensor, is_packed, is_text
from autoglm_serve.probe.config_values import Config, Meaningless, whole, within

_FLOATING = ("fp8", "fbgemm_fp8", "modelopt", "mxfp8", "modelopt_fp8")
_FOUR_BITS = ("awq", "gptq", "mxfp4", "nvfp4", "modelopt_fp4", "auto-round", "awq_marlin", "gptq_marlin")
_METHODS_BITS = {"bitsandbytes": 4, "compressed-tensors": 8, "experts_int8": 8, "quark": 8, "torchao": 8}
_POSSIBLE_BITS = (2, 3, 4, 8)


def quantization_facts(config: Config) -> QuantizationFacts | None:
    """None where the config names no quantisation. Raises Meaningless."""
    found = within(config, "quantization_config", "compression_config") or within(
        within(config, "text_config", "llm_config"), "quantization_config"
    )
    if not found:
        return None
    method = str(found.get("quant_method", "unknown"))
    weights = _weights(found)
    block = found.get("weight_block_size")
    if method == "bitsandbytes" and found.get("load_in_8bit"):
        return QuantizationFacts(method=method, bits=8)
    floating = method in _FLOATING or str(weights.get("type", "")) == "float"
    usual = 8 if floating else 4 if method in _FOUR_BITS else _METHODS_BITS.get(method, 8)
    if str(found.get("format", "")).startswith("pack"):
        usual = 4
    bits = whole(found, "bits", "w_bit", default=0) or whole(weights, "num_bits", default=usual)
    if bits > 16:
        raise Meaningless(f"bits is {bits}")
    group = found.get("group_size", found.get("q_group_size", weights.get("group_size")))
    return QuantizationFacts(
        method=method,
        bits=bits,
        group=group if isinstance(group, int) and 0 < group < 2**20 else 0,
        block=_block(block or weights.get("block_structure")),
        floating=floating and bits == 8,
    )


def _weights(found: Config) -> Config:
    """The weights' part of the first group of a compressed-tensors config."""
    groups = within(found, "config_groups")
    first = next(iter(groups.values()), None)
    return within(first, "weights") if isinstance(first, dict) else {}


def _block(value: object) -> tuple[int, int] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    if not all(isinstance(side, int) and 0 < side < 2**20 for side in value):
        raise Meaningless(f"weight_block_size is {str(value)[:40]!r}")
    return (value[0], value[1])


def seen_bits(stored: QuantizationFacts, text: TextFacts, tensors: Sequence[Tensor]) -> QuantizationFacts:
    """The bits of packed weights as a projection of known size shows them; else as the config says."""
    sizes = {
        ".o_proj.": text.hidden * text.heads * text.head_dim,
        ".mlp.down_proj.": text.hidden * text.intermediate,
    }
    for tensor in tensors:
        if not (is_text(tensor.name) and is_packed(tensor)):
            continue
        weights = next((size for part, size in sizes.items() if part in tensor.name), 0)
        if weights:
            bits = round(tensor.elements * WORD_BITS[tensor.dtype] / weights)
            return replace(stored, bits=bits) if bits in _POSSIBLE_BITS else stored
    return stored


# --- what a quantised config without headers implies -----------------------------------------------------


def quantized(
    tensors: Iterable[Tensor], stored: QuantizationFacts, is_linear: Iterable[str]
) -> Iterator[Tensor]:
    """The same tensors with their linears as `stored` has them: words, and scales beside them."""
    linear = frozenset(is_linear)
    for tensor in tensors:
        if tensor.name not in linear:
            yield tensor
            continue
        rows, columns = tensor.shape[0], tensor.elements // tensor.shape[0]
        base = tensor.name.removesuffix(".weight")
        if stored.bits == 8 and stored.floating:
            yield replace(tensor, dtype="F8_E4M3")
        elif stored.bits == 16:
            yield tensor
        else:
            words = max(1, columns * stored.bits // 32)
            yield Tensor(name=f"{base}.weight_packed", shape=(rows, words), dtype="I32")
        yield Tensor(
            name=f"{base}.weight_scale",
            shape=_scales(rows, columns, stored),
            dtype="F32" if stored.block else "F16",
        )


def _scales(rows: int, columns: int, stored: QuantizationFacts) -> tuple[int, int]:
    if stored.block:
        return max(1, rows // stored.block[0]), max(1, columns // stored.block[1])
    return rows, max(1, columns // stored.group) if stored.group else 1
