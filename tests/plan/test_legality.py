"""What engines refuse at once, row by row."""

from dataclasses import replace

import pytest

from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.engines import vllm_versions
from autoglm_serve.engines.sglang import Sglang
from autoglm_serve.plan.legality import RULES, Setting, why_refused
from autoglm_serve.plan.request import Pins
from autoglm_serve.plan.shapes import Shape
from autoglm_serve.probe.gpu_specs import BY_KEY
from autoglm_serve.probe.model_facts import from_config
from tests.plan.worlds import NEWEST, autoglm, chosen, planned
from tests.probe.test_model_facts import QWEN3

EXPERTS = {
    **QWEN3,
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 2,
}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def refused(
    facts: ModelFacts,
    ways: int,
    *,
    gpu: str = "h100",
    version: str | None = None,
    expert_parallel: bool = False,
) -> str:
    setting = Setting(
        facts=facts,
        shape=Shape(tensor_parallel=ways),
        specs=(BY_KEY[gpu],) * ways,
        expert_parallel=expert_parallel,
    )
    return why_refused(setting, vllm_versions.traits(version)) or ""


def test_every_row_names_its_source() -> None:
    assert all(rule.source for rule in RULES)


def test_blocks_of_fp8_experts_are_not_cut() -> None:
    """1,536 columns over 8 GPUs are 192 each; a block is 128."""
    facts = from_config("m", EXPERTS | {"quantization_config": FP8})
    assert "blocks of 128" in refused(facts, 8)
    assert not refused(facts, 4)
    assert not refused(facts, 8, expert_parallel=True)


def test_a_plan_for_eight_gpus_goes_around_what_is_refused() -> None:
    facts = from_config("m", EXPERTS | {"quantization_config": FP8, "num_hidden_layers": 94})
    decision = planned("h100:8", facts=facts)
    assert chosen(decision).tensor_parallel in (1, 2, 4)
    assert any("TP8" in other.name and "blocks of 128" in other.reason for other in decision.rejected)
    whole = planned(
        "h100:8", facts=facts, pins=Pins(engine_args=("--enable-expert-parallel",), tensor_parallel=8)
    )
    assert chosen(whole).tensor_parallel == 8


def test_groups_of_four_bit_weights_are_not_cut() -> None:
    """Qwen2.5-VL-72B-AWQ: 29,568 / 2 is no multiple of 128; vLLM refused it (QwenLM/Qwen3-VL#831)."""
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128}
    facts = from_config(
        "m", QWEN3 | {"intermediate_size": 29_568, "hidden_size": 8192, "quantization_config": awq}
    )
    assert "groups of 128" in refused(facts, 2)
    assert not refused(facts, 1)
    padded = from_config(
        "m", QWEN3 | {"intermediate_size": 29_696, "hidden_size": 8192, "quantization_config": awq}
    )
    assert not refused(padded, 2)


def test_a_tower_whose_mlp_does_not_divide_goes_as_whole_images() -> None:
    facts = autoglm()
    assert facts.vision is not None
    odd = replace(facts, vision=replace(facts.vision, heads=16, intermediate=3420))
    assert "3420 columns" in refused(odd, 8)
    assert chosen(planned("h200:8", facts=odd, pins=Pins(tensor_parallel=8))).encoder_data_parallel


@pytest.mark.parametrize(
    ("version", "says"), [("0.14.0", ""), ("0.26.0", "compute capability 7.5"), (None, "7.5")]
)
def test_volta_ends_with_the_builds_that_have_it(version: str | None, says: str) -> None:
    assert (says in refused(autoglm(), 1, gpu="v100", version=version)) is True
    assert bool(refused(autoglm(), 1, gpu="v100", version=version)) is bool(says)


def test_a_chip_that_is_too_old_is_said_with_what_to_do() -> None:
    decision = planned("v100:2")
    assert "would refuse to start" in decision.problem
    assert any("llama_cpp" in offer.change for offer in decision.offers)


def test_gemma_needs_bfloat16() -> None:
    facts = from_config("m", QWEN3 | {"architectures": ["Gemma3ForCausalLM"]})
    assert "overflows in float16" in refused(facts, 1, gpu="t4")
    assert not refused(facts, 1, gpu="l4")


def test_fp8_weights_on_turing_hang_on_the_release() -> None:
    facts = from_config("m", QWEN3 | {"quantization_config": {"quant_method": "fp8"}})
    assert "fp8" in refused(facts, 1, gpu="t4", version="0.10.2")
    assert not refused(facts, 1, gpu="t4", version="0.26.0")


@pytest.mark.parametrize("method", ["quanto", "higgs", "rot13"])
def test_a_quantisation_that_no_release_knows_is_not_planned(method: str) -> None:
    facts = from_config("m", QWEN3 | {"quantization_config": {"quant_method": method, "bits": 4}})
    assert f"knows no quantisation called '{method}'" in refused(facts, 1)


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "compressed-tensors", "torchao", None])
def test_one_that_is_known_or_not_named_is_planned(method: str | None) -> None:
    facts = from_config(
        "m", QWEN3 | {"quantization_config": {"quant_method": method} if method else {"x": 1}}
    )
    assert not refused(facts, 1)


def test_slices_run_replicas_of_their_own() -> None:
    plan = chosen(planned("h100/3g.40gb:2"))
    assert plan.gpu_groups == ((0,), (1,))
    assert "MIG slices" in planned("h100/3g.40gb:2", pins=Pins(tensor_parallel=2)).problem


def test_sglang_has_rules_of_its_own() -> None:
    setting = Setting(facts=autoglm(), shape=Shape(tensor_parallel=3))
    assert "32 attention heads" in (why_refused(setting, Sglang().traits(None)) or "")
    assert NEWEST.engine == "vllm"
