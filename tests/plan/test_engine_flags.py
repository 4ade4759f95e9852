"""The person's own engine flags, as far as a plan weighs them."""

from autoglm_serve.plan.engine_flags import engine_flags
from autoglm_serve.plan.request import Pins
from tests.plan.worlds import chosen, planned


def test_flags_are_read_in_each_spelling() -> None:
    for words in (("--kv-cache-dtype", "fp8"), ("--kv-cache-dtype=fp8",), ("--kv_cache_dtype", "fp8")):
        assert engine_flags(words).kv_element_bytes == 1.0
    assert engine_flags(("--enforce-eager", "--seed", "7")).eager
    assert engine_flags(("-ep",)).expert_parallel


def test_adapters_are_counted() -> None:
    flags = engine_flags(("--enable-lora", "--max-loras", "4", "--max-lora-rank=64"))
    assert (flags.lora_slots, flags.lora_rank) == (4, 64)
    assert engine_flags(("--max-loras", "4")).lora_slots == 0


def test_what_is_not_weighed_is_named_once_it_may_matter() -> None:
    flags = engine_flags(("--seed", "7", "--speculative-config", '{"method":"ngram"}', "--enforce-eager"))
    assert flags.not_weighed == ("--speculative-config",)
    decision = planned("h200", pins=Pins(engine_args=("--speculative-config", "{}")))
    assert any("not weighed in these figures: --speculative-config" in note for note in decision.warnings)


def test_a_smaller_kv_dtype_holds_twice_the_tokens() -> None:
    plain = chosen(planned("rtx4090")).ledger
    small = chosen(planned("rtx4090", pins=Pins(engine_args=("--kv-cache-dtype", "fp8")))).ledger
    assert plain is not None
    assert small is not None
    assert small.kv_cache_tokens > 1.7 * plain.kv_cache_tokens


def test_eager_has_no_graphs_and_no_compiler() -> None:
    ledger = chosen(planned("h200", pins=Pins(engine_args=("--enforce-eager",)))).ledger
    assert ledger is not None
    assert ledger.cuda_graphs_bytes == ledger.cold_bytes == 0
