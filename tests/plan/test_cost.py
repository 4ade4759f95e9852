"""The cost model's pieces, each against a number that can be checked by hand or was published."""

import pytest

from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.hardware import Link
from autoglm_serve.core.workload import Workload
from autoglm_serve.plan import cost
from autoglm_serve.plan.closed_loop import Load, Replica, SeenSpeed, watch
from autoglm_serve.plan.memory import capture_sizes
from autoglm_serve.plan.request import Pins
from autoglm_serve.probe.hardware_table import BY_KEY
from tests.plan.worlds import autoglm, chosen, planned


def test_a_screenshot_costs_46_teraflop_of_vision() -> None:
    facts = autoglm()
    tokens = cost.image_tokens(facts, Workload(), None)
    assert tokens == 3354
    assert sum(cost.encoder_flops(facts, tokens)) == pytest.approx(46e12, rel=0.02)


def test_quarter_pixels_cost_a_seventh() -> None:
    facts = autoglm()
    ratio = sum(cost.encoder_flops(facts, 3354)) / sum(cost.encoder_flops(facts, 817))
    assert ratio == pytest.approx(7.2, rel=0.05)


def test_max_pixels_counts_two_frames_for_this_family() -> None:
    """Measured with transformers: 3,108 tokens at 5,000,000; the area bound alone gives 3,188."""
    tokens = cost.image_tokens(autoglm(), Workload(), 5_000_000)
    assert tokens == pytest.approx(3108, rel=0.03)


def test_every_text_linear_is_multiplied_once_a_token() -> None:
    assert cost.active_linears(autoglm()) == pytest.approx(8.158e9, rel=0.001)


@pytest.mark.parametrize(
    ("key", "link", "ways", "size_bytes", "published_s"),
    [
        ("h200", Link.NVLINK, 2, 16 * 2**20, 77e-6),
        ("a100", Link.NVLINK, 2, 16 * 2**20, 126e-6),
        ("l40s", Link.P2P, 2, 16 * 2**20, 892e-6),
        ("l40s", Link.P2P, 4, 16 * 2**20, 6676e-6),
        ("rtxpro6000", Link.P2P, 2, 16 * 2**20, 475e-6),
    ],
)
def test_collectives_are_near_published_all_reduce_tables(
    key: str, link: Link, ways: int, size_bytes: int, published_s: float
) -> None:
    found = cost.collective(BY_KEY[key], link, ways).seconds(size_bytes, ways)
    assert found == pytest.approx(published_s, rel=0.4)


def test_one_gpu_reduces_with_nobody() -> None:
    assert cost.collective(BY_KEY["h200"], Link.NVLINK, 1).seconds(1e9, 1) == 0


def test_captured_sizes_are_vllm_s() -> None:
    assert capture_sizes(4, 8192) == (1, 2, 4, 8)
    assert len(capture_sizes(1024, 8192)) == 51
    assert capture_sizes(64, 8192)[-1] == 128


def test_more_sessions_never_lower_the_throughput_of_a_roomy_replica() -> None:
    speeds = []
    for sessions in (1, 2, 4, 8, 16, 32, 64, 128):
        predicted = chosen(planned("h200", sessions=sessions, pins=Pins(max_num_seqs=128))).predicted
        assert predicted is not None
        speeds.append(predicted.steps_per_s)
    assert speeds == sorted(speeds)


def test_sessions_beyond_max_num_seqs_wait() -> None:
    few = chosen(planned("h200", sessions=64, pins=Pins(max_num_seqs=64))).predicted
    waiting = chosen(planned("h200", sessions=64, pins=Pins(max_num_seqs=8))).predicted
    assert few is not None
    assert waiting is not None
    assert waiting.ttft_s > few.ttft_s


def test_no_more_sessions_are_simulated_than_twice_what_the_kv_cache_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pinned max_num_seqs of 16,384 once took half a minute."""
    seen: list[int] = []

    def watched(replica: Replica, load: Load) -> SeenSpeed:
        seen.append(load.sessions)
        return watch(replica, load)

    monkeypatch.setattr(cost, "watch", watched)
    planned("h200", pins=Pins(max_num_seqs=4096), sessions=10**6)
    assert max(seen) < 2_000  # with smaller pictures in fp8, the most here, 741 steps fit at once


def test_fp8_is_faster_where_the_chip_has_it_and_not_before() -> None:
    new, old = BY_KEY["h200"], BY_KEY["a100"]
    constants = Constants()
    assert cost.rates(new, "fp8", constants).linear_flops > cost.rates(new, None, constants).linear_flops
    assert cost.rates(old, "fp8", constants).linear_flops == cost.rates(old, None, constants).linear_flops
