"""The simulated load: by hand where a hand can follow it, and laws where it cannot."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.plan.closed_loop import Load, Replica, Window, watch

PLAIN = Replica(
    beside_s=0.0,
    turn_s=0.0,
    image_s=0.1,
    token_s=1e-4,
    pair_s=0.0,
    weights_s=0.005,
    cached_s=0.0,
    pass_s=0.005,
    prompt_pass_s=0.0,
    batched_tokens=2000,
    image_room_tokens=2000,
    at_once=64,
)
"""A pass without prompts takes 10 ms, one with a whole prompt of 1,000 tokens 205 ms."""
ONE = Load(sessions=1, shared_tokens=0, text_tokens=100, images=1, image_tokens=900, output_tokens=100)


def test_one_session_is_counted_by_hand() -> None:
    seen = watch(replace(PLAIN, beside_s=0.02, turn_s=0.0), ONE)
    assert seen.ttft_s == pytest.approx(0.02 + 0.1 + 1000 * 1e-4 + 0.005)
    assert seen.tpot_s == pytest.approx(0.010)
    assert 1 / seen.steps_per_s == pytest.approx(seen.ttft_s + 100 * 0.010, rel=0.02)


def test_a_long_prompt_takes_several_passes() -> None:
    whole = watch(PLAIN, ONE)
    pieces = watch(replace(PLAIN, batched_tokens=400), ONE)
    assert pieces.ttft_s == pytest.approx(whole.ttft_s + 2 * 0.005)


def test_a_host_that_is_behind_sets_the_pace() -> None:
    slow = replace(PLAIN, turn_s=0.5)
    seen = watch(slow, replace(ONE, sessions=32))
    assert seen.steps_per_s == pytest.approx(1 / 0.5, rel=0.03)
    assert seen.ttft_s > 10
    assert seen.tpot_s < 0.1


def test_answers_wait_while_prompts_are_read() -> None:
    alone, crowded = watch(PLAIN, ONE), watch(PLAIN, replace(ONE, sessions=16))
    assert crowded.tpot_s > 2 * alone.tpot_s
    assert crowded.steps_per_s < 1 / 0.2


def test_what_exceeds_at_once_waits() -> None:
    load = replace(ONE, sessions=16)
    few, many = watch(replace(PLAIN, at_once=2), load), watch(PLAIN, load)
    assert few.ttft_s > 3 * many.ttft_s
    assert few.tpot_s < many.tpot_s


def test_an_image_waits_for_room_among_those_of_two_passes() -> None:
    """Room for one image in two passes: every prompt is followed by a pass without one."""
    tight = replace(PLAIN, image_room_tokens=900)
    load = replace(ONE, sessions=32)
    assert watch(tight, load).tpot_s < watch(PLAIN, load).tpot_s


def test_without_images_nothing_is_encoded() -> None:
    words = replace(ONE, images=0, image_tokens=0, text_tokens=1000)
    assert watch(PLAIN, words).ttft_s == pytest.approx(0.1 + 0.005)


def test_a_window_counts_what_ends_in_it() -> None:
    load = replace(ONE, sessions=8)
    early = watch(PLAIN, load, Window(spread_s=4.0, until_s=8.0))
    settled = watch(PLAIN, load)
    assert early.steps_per_s == pytest.approx(settled.steps_per_s, rel=0.25)


LOADS = st.builds(
    lambda sessions, shared, text, images, output: Load(
        sessions=sessions,
        shared_tokens=shared,
        text_tokens=text,
        images=images,
        image_tokens=900,
        output_tokens=output,
    ),
    st.integers(1, 40),
    st.integers(0, 5000),
    st.integers(1, 3000),
    st.integers(0, 3),
    st.integers(2, 200),
)
REPLICAS = st.builds(
    lambda batched, room, at_once, turn: replace(
        PLAIN, batched_tokens=batched, image_room_tokens=room, at_once=at_once, turn_s=turn, pair_s=1e-10
    ),
    st.integers(200, 20_000),
    st.integers(900, 20_000),
    st.integers(1, 100),
    st.floats(0, 0.3),
)


@settings(deadline=None, max_examples=60)
@given(replica=REPLICAS, load=LOADS)
def test_nothing_is_faster_than_its_parts(replica: Replica, load: Load) -> None:
    seen = watch(replica, load)
    assert seen.steps_per_s > 0
    assert seen.tpot_s >= replica.weights_s
    assert seen.ttft_s >= load.images * replica.image_s
    least_s = load.images * replica.image_s + load.new_tokens * replica.token_s
    assert seen.steps_per_s <= 1.1 / max(least_s, 0.75 * replica.turn_s)
    assert seen.steps_per_s <= 1.1 * load.sessions / (
        least_s + (load.output_tokens * 0.9 - 1) * replica.weights_s
    )


@settings(deadline=None, max_examples=30)
@given(replica=REPLICAS, load=LOADS)
def test_the_same_question_has_the_same_answer(replica: Replica, load: Load) -> None:
    assert watch(replica, load) == watch(replica, load)
