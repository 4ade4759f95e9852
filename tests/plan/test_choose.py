"""Which plan is chosen for which host, and what is said where there is none."""

from dataclasses import replace

import pytest

from autoglm_serve.core.hardware import GIB, GpuProcess, Host, Link
from autoglm_serve.plan.calibration import constants_for
from autoglm_serve.plan.request import Goal, Pins
from autoglm_serve.probe import hardware_table
from tests.plan.worlds import autoglm, chosen, planned, with_memory


@pytest.mark.parametrize(
    ("hardware", "replicas"),
    [("h200:2", 2), ("h200:4", 4), ("rtx4090:2", 2), ("rtx3090:2", 2), ("l40s:8@pcie", 8), ("a100:4", 4)],
)
def test_a_model_that_fits_one_gpu_runs_as_replicas_under_load(hardware: str, replicas: int) -> None:
    plan = chosen(planned(hardware, sessions=32 * replicas))
    assert (plan.replicas, plan.tensor_parallel, plan.pipeline_parallel) == (replicas, 1, 1)
    assert "whole replica" in plan.reasons[0]


def test_few_sessions_for_many_gpus_are_answered_sooner_by_two_of_them_together() -> None:
    """Eight sessions a GPU leave it idle at times: sharing it costs hardly any steps then."""
    plan = chosen(planned("a100:4", sessions=32))
    assert plan.tensor_parallel == 2
    assert "--goal throughput takes those" in plan.reasons[0]


def test_a_host_that_sets_the_pace_is_named() -> None:
    few = Host(memory_bytes=512 * GIB, free_bytes=512 * GIB, cores=4)
    small = replace(hardware_table.hardware("h200:2"), host=few)
    together = planned(small, sessions=128, pins=Pins(tensor_parallel=2))
    apart = planned("h200:2", sessions=32)
    assert any("the host sets the pace" in warning for warning in together.warnings)
    assert not any("the host sets the pace" in warning for warning in apart.warnings)


def test_every_loser_comes_with_a_reason() -> None:
    decision = planned("h200:2")
    assert {rejected.name for rejected in decision.rejected} == {"1x TP2", "1x PP2"}
    assert all(rejected.reason for rejected in decision.rejected)


def test_latency_takes_tensor_parallel_where_the_link_is_fast() -> None:
    plan = chosen(planned("h200:2", goal=Goal.LATENCY))
    assert (plan.replicas, plan.tensor_parallel) == (1, 2)
    assert plan.peer_access


def test_targets_that_no_plan_meets_are_said_to_be_missed() -> None:
    decision = planned("h200:4", goal=Goal.TARGETS, sessions=4, target_ttft_s=0.01, target_tpot_s=0.001)
    assert decision.chosen is not None
    assert any("no plan meets the targets" in warning for warning in decision.warnings)


def test_a_plan_is_not_compared_with_itself() -> None:
    """Two L4s together hold more steps at once than one each: most steps and shortest ones."""
    plan = chosen(planned("l4:2"))
    assert plan.tensor_parallel == 2
    assert "0% off" not in plan.reasons[0]


def test_a_target_that_replicas_meet_is_met_with_replicas() -> None:
    plan = chosen(planned("h200:4", goal=Goal.TARGETS, target_ttft_s=30.0, target_tpot_s=1.0))
    assert plan.replicas == 4


def test_a_target_that_only_tensor_parallel_meets_takes_it() -> None:
    decision = planned("h200:4", goal=Goal.TARGETS, sessions=1, target_tpot_s=0.0045)
    plan = chosen(decision)
    assert plan.tensor_parallel > 1
    assert any(rejected.reason.startswith("misses the targets") for rejected in decision.rejected)


def test_gpus_too_small_for_a_replica_share_one() -> None:
    plan = chosen(planned("rtx4080:2"))
    assert plan.replicas == 1
    assert plan.tensor_parallel * plan.pipeline_parallel == 2
    assert not plan.peer_access


def test_groups_follow_nvlink() -> None:
    host = hardware_table.hardware("rtx3090:4")
    bridged = {(0, 2), (1, 3)}
    links = tuple((a, b, Link.NVLINK if (a, b) in bridged else link) for a, b, link in host.links)
    plan = chosen(planned(replace(host, links=links), pins=Pins(tensor_parallel=2)))
    assert set(plan.gpu_groups) == bridged
    assert plan.peer_access


# --- pins ------------------------------------------------------------------------------------------------


def test_what_is_pinned_stays() -> None:
    pins = Pins(
        tensor_parallel=2,
        replicas=1,
        max_model_len=8192,
        max_num_seqs=20,
        max_num_batched_tokens=6144,
        gpu_memory_utilization=0.7,
        max_pixels=3_000_000,
        dtype="float16",
        quantization="fp8",
        engine_args=("--seed", "1"),
    )
    plan = chosen(planned("h200:4", pins=pins))
    assert plan.tensor_parallel == 2
    assert plan.replicas == 1
    assert plan.max_model_len == 8192
    assert plan.max_num_seqs == 20
    assert plan.max_num_batched_tokens == 6144
    assert plan.gpu_memory_utilization == 0.7
    assert plan.max_pixels == 3_000_000
    assert plan.dtype == "float16"
    assert plan.quantization == "fp8"
    assert plan.engine_args == ("--seed", "1")


def test_pinned_gpus_are_the_only_ones_used() -> None:
    plan = chosen(planned("h200:4", pins=Pins(gpus=(1, 3))))
    assert plan.gpu_groups == ((1,), (3,))


def test_nothing_is_quantised_unasked() -> None:
    assert chosen(planned("rtx4090:2")).quantization is None
    assert any("fp8" in offer.change for offer in planned("rtx4090:2").offers)


def test_auto_may_quantise() -> None:
    assert chosen(planned("rtx4090:2", pins=Pins(quantization="auto"))).quantization == "fp8"


@pytest.mark.parametrize("ways", [3, 5, 6])
def test_a_split_that_heads_do_not_allow_names_those_that_are_possible(ways: int) -> None:
    decision = planned("h200:8", pins=Pins(tensor_parallel=ways))
    assert decision.chosen is None
    assert f"tensor parallel {ways} is not possible: 32 attention heads" in decision.problem
    assert "Possible: 1, 2, 4, 8" in decision.problem


def test_more_gpus_than_there_are_is_one_clear_line() -> None:
    assert "4 GPUs were asked for" in planned("h200:2", pins=Pins(tensor_parallel=4)).problem
    assert "8 GPUs were asked for" in planned("h200:4", pins=Pins(tensor_parallel=4, replicas=2)).problem
    assert planned("h200:2", pins=Pins(gpus=(0, 7))).problem == (
        "GPU 7 was asked for and this machine shows 2: 0 to 1"
    )


def test_a_context_beyond_the_model_s_own_is_refused() -> None:
    problem = planned("h200", pins=Pins(max_model_len=100_000)).problem
    assert problem == "the model's context ends at 65,536 tokens and 100,000 were asked for"


def test_bfloat16_is_refused_where_the_chip_has_none() -> None:
    assert "no bfloat16" in planned("t4:2", pins=Pins(dtype="bfloat16")).problem
    assert chosen(planned("t4:2")).dtype == "float16"


# --- hosts that are not ideal ----------------------------------------------------------------------------


def test_mixed_gpus_leave_the_weaker_kind_out_and_say_so() -> None:
    decision = planned("rtx4090:2,rtx3060:1")
    assert chosen(decision).gpu_groups == ((0,), (1,))
    assert any("GPUs differ" in warning and "3060" in warning for warning in decision.warnings)


def test_a_gpu_that_somebody_fills_is_planned_around() -> None:
    host = hardware_table.hardware("rtx4090:2")
    busy = replace(host.gpus[0], free_bytes=10 * GIB, processes=(GpuProcess(pid=42, used_bytes=13 * GIB),))
    decision = planned(replace(host, gpus=(busy, host.gpus[1])))
    assert chosen(decision).gpu_groups == ((1,),)
    assert any("GPU 0 stays unused" in warning for warning in decision.warnings)


def test_a_share_is_chosen_from_what_is_free_now() -> None:
    host = hardware_table.hardware("h200")
    half = replace(host.gpus[0], free_bytes=70 * GIB)
    plan = chosen(planned(replace(host, gpus=(half,))))
    assert plan.gpu_memory_utilization is not None
    assert plan.gpu_memory_utilization * half.total_bytes < 70 * GIB


def test_a_model_that_does_not_fit_says_by_how_much_and_what_would() -> None:
    decision = planned("rtx3060")
    assert decision.chosen is None
    assert "needs 10.8 GiB more on each GPU" in decision.problem
    assert any(offer.change.endswith("RTX 3060") for offer in decision.offers)


def test_a_narrow_miss_offers_quantisation_and_a_shorter_context() -> None:
    decision = planned("l4")
    assert decision.chosen is None
    changes = [offer.change for offer in decision.offers]
    assert "--quantization fp8" in changes
    assert any(change.startswith("--max-model-len") for change in changes)


def test_pins_that_make_it_impossible_are_named_as_the_way_out() -> None:
    decision = planned("h200", pins=Pins(gpu_memory_utilization=0.1))
    assert decision.chosen is None
    assert any(offer.change == "fewer pinned options" for offer in decision.offers)


def test_no_gpu_at_all_is_a_value_and_no_crash() -> None:
    host = replace(hardware_table.hardware("h200"), gpus=(), links=())
    assert planned(host).problem == "vllm needs a GPU and none is visible"


def test_an_unknown_architecture_is_planned_with_a_margin_and_says_so() -> None:
    known = autoglm()
    unknown = replace(known, known=False, notes=("FooModel is not an architecture this planner knows",))
    ours, theirs = chosen(planned("h200", facts=known)), planned("h200", facts=unknown)
    assert chosen(theirs).ledger is not None
    assert ours.ledger is not None
    assert chosen(theirs).ledger.weights_bytes > ours.ledger.weights_bytes * 1.04  # type: ignore[union-attr]
    assert any("FooModel" in warning for warning in theirs.warnings)


# --- traps -----------------------------------------------------------------------------------------------


def test_the_longest_image_always_fits_the_encoder_budget() -> None:
    """vLLM refuses an image longer than max_num_batched_tokens; tall ones reach 6,144 tokens."""
    for hardware in ("rtx4090:2", "h200:2", "l4:2", "rtx4080:2"):
        plan = chosen(planned(hardware))
        assert plan.max_num_batched_tokens is not None
        longest = 6144 if plan.max_pixels is None else plan.max_pixels // (2 * 28 * 28)
        assert plan.max_num_batched_tokens >= longest


def test_a_pinned_budget_below_the_longest_image_is_warned_of() -> None:
    decision = planned("h200", pins=Pins(max_num_batched_tokens=2048))
    assert any("will be refused (400)" in warning for warning in decision.warnings)


def test_a_context_shorter_than_a_step_is_warned_of() -> None:
    def warned(context: int | None) -> list[str]:
        found = planned("h200", pins=Pins(max_model_len=context)).warnings
        return [warning for warning in found if "a phone agent's step" in warning]

    assert warned(None) == warned(6144) == []
    (warning,) = warned(4096)
    assert "about 5,682 tokens" in warning  # 2,200 of text, 3,354 of a picture, 128 of an answer
    assert "raise --max-model-len to 6144" in warning


def test_one_screenshot_is_never_worth_splitting_the_tower_over_pcie() -> None:
    plan = chosen(planned("l40s:2", pins=Pins(tensor_parallel=2)))
    assert plan.encoder_data_parallel
    plan = chosen(planned("h200:2", pins=Pins(tensor_parallel=2)))
    assert not plan.encoder_data_parallel


def test_twelve_vision_heads_over_eight_gpus_go_as_whole_images() -> None:
    assert chosen(planned("h200:8", pins=Pins(tensor_parallel=8))).encoder_data_parallel


# --- hosts whose GPUs differ, and limits that contradict each other --------------------------------------


def test_gpus_of_different_sizes_share_what_each_has_free() -> None:
    """The engine is told one share: 95 % of a small empty card is more than a half-full large one has."""
    host = hardware_table.hardware("rtx4090:1,h100:1")
    small, large = host.gpus
    host = replace(host, gpus=(small, replace(large, free_bytes=60 * GIB)))
    for pins in (Pins(gpus=(0, 1), quantization="fp8"), Pins(gpus=(0, 1), tensor_parallel=2)):
        plan = chosen(planned(host, pins=pins))
        for index in [index for group in plan.gpu_groups for index in group]:
            gpu = host.gpu(index)
            assert (plan.gpu_memory_utilization or 1) * gpu.total_bytes <= gpu.free_bytes


def test_of_different_gpus_the_slower_sets_number_format_and_the_time_of_a_step() -> None:
    """Each runs a replica of its own, so their steps per second add up."""
    host = hardware_table.hardware("a100:1,t4:1")
    host = with_memory(host, 40 * GIB, 40 * GIB)
    plan = chosen(planned(host, pins=Pins(gpus=(0, 1), replicas=2)))
    assert plan.dtype == "float16"
    slow = chosen(planned(with_memory(hardware_table.hardware("t4:2"), 40 * GIB, 40 * GIB)))
    assert plan.predicted is not None
    assert slow.predicted is not None
    assert plan.predicted.single_step_s(128) == slow.predicted.single_step_s(128)
    assert plan.predicted.steps_per_s > slow.predicted.steps_per_s


def test_two_cards_of_different_kinds_get_a_replica_each() -> None:
    decision = planned("rtx4090:1,rtx3090:1", goal=Goal.THROUGHPUT)
    plan = chosen(decision)
    assert plan.gpu_groups == ((0,), (1,))
    assert "each runs a replica of its own" in plan.reasons[0]
    alone = chosen(planned("rtx4090:1", goal=Goal.THROUGHPUT))
    assert plan.predicted is not None
    assert alone.predicted is not None
    assert plan.predicted.steps_per_s > alone.predicted.steps_per_s


def test_a_pass_has_room_for_a_token_of_each_sequence() -> None:
    """vLLM refuses to start otherwise."""
    few = chosen(planned("h200", pins=Pins(max_num_batched_tokens=100)))
    assert (few.max_num_seqs or 0) <= 100
    many = chosen(planned("h200", pins=Pins(max_num_seqs=10_000)))
    assert (many.max_num_batched_tokens or 0) >= 10_000
    both = planned("h200", pins=Pins(max_num_seqs=200, max_num_batched_tokens=100))
    assert both.chosen is None
    assert "lower --max-num-seqs" in both.problem


def test_a_nearly_full_gpu_that_would_slow_all_the_others_is_left_out() -> None:
    """It holds one sequence, and all replicas run with the same limits."""
    host = hardware_table.hardware("h100:3")
    host = replace(host, gpus=(replace(host.gpus[0], free_bytes=int(23.7 * GIB)), *host.gpus[1:]))
    decision = planned(host, sessions=96, goal=Goal.THROUGHPUT)
    plan = chosen(decision)
    assert plan.gpu_groups == ((1,), (2,))
    assert any("GPU 0 stays unused" in warning for warning in decision.warnings)


# --- how sure it is --------------------------------------------------------------------------------------


def test_a_choice_that_hangs_on_the_link_is_called_a_tie() -> None:
    """Eight replicas or four pairs: as fast as this host's PCIe is."""
    assert any("are a tie as far as is known" in note for note in planned("l40s:8").warnings)
    assert not any("are a tie" in note for note in planned("h200:2").warnings)


def test_figures_carry_a_range_that_is_wider_where_the_link_is_not_known() -> None:
    def width(hardware: str, ways: int) -> float:
        constants = constants_for(hardware.partition(":")[0], None, ())
        found = chosen(planned(hardware, pins=Pins(tensor_parallel=ways), constants=constants)).predicted
        assert found is not None
        assert found.steps_range_per_s is not None
        low, high = found.steps_range_per_s
        assert low < found.steps_per_s < high
        return high / low

    assert width("h200", 1) < width("l40s", 1) < width("l40s:2", 2)


def test_nothing_is_scaled_down_unasked() -> None:
    """A smaller bound for images changes answers, so it is an offer."""
    decision = planned("l4")
    assert decision.chosen is None
    assert chosen(planned("rtx4090")).max_pixels is None
    longest = next(offer for offer in decision.offers if offer.change.startswith("--max-model-len"))
    context = int(longest.change.split()[1])
    assert planned("l4", pins=Pins(max_model_len=context)).chosen is not None
    assert planned("l4", pins=Pins(max_model_len=context + 16)).chosen is None


def test_a_gguf_is_offered_where_main_memory_holds_it() -> None:
    def offered(memory_bytes: int) -> bool:
        host = Host(memory_bytes=memory_bytes, free_bytes=memory_bytes)
        found = planned(replace(hardware_table.hardware("rtx3060"), host=host))
        return any("llama_cpp" in offer.change for offer in found.offers)

    assert offered(16 * GIB)
    assert not offered(4 * GIB)
