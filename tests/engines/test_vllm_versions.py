"""Which versions of vLLM are known."""

import pytest

from autoglm_serve.engines.vllm import Vllm
from autoglm_serve.engines.vllm_versions import traits


@pytest.mark.parametrize("version", ["0.18.9", "0.11.0", "0.6.3.post1"])
def test_a_version_older_than_any_that_is_known_is_refused(version: str) -> None:
    assert Vllm().too_old(version) == "vllm>=0.19,<0.34"


@pytest.mark.parametrize("version", ["0.19.0", "0.26.0+cu130", "0.33.1", "0.40.0", "a build of one's own"])
def test_any_other_is_taken(version: str) -> None:
    assert Vllm().too_old(version) == ""


@pytest.mark.parametrize(
    ("version", "architecture", "mixed", "quantized", "counts_graphs"),
    [
        ("0.21.0", "Qwen3ForCausalLM", False, False, True),
        ("0.22.0", "Qwen3ForCausalLM", False, False, False),
        ("0.22.0", "Qwen3ForCausalLM", False, True, True),
        ("0.24.0", "Qwen3ForCausalLM", False, True, False),
        ("0.24.0", "LlamaForCausalLM", False, False, True),
        ("0.25.0", "LlamaForCausalLM", False, False, False),
        ("0.26.0", "Qwen3MoeForCausalLM", True, False, True),
        ("0.26.0", "DeepseekV2ForCausalLM", True, False, False),
        ("0.29.0", "Qwen3MoeForCausalLM", True, False, True),
    ],
)
def test_models_went_over_to_the_newer_runner_one_kind_after_the_other(
    version: str, architecture: str, mixed: bool, quantized: bool, counts_graphs: bool
) -> None:
    rules = traits(version).of(architecture, mixed=mixed, quantized=quantized)
    assert rules.budgets_graphs is counts_graphs
