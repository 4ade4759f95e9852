"""What an attempt's times say of its replica must not depend on how its client reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.exchange.stream_times import StreamTimes

Step = tuple[str, float]
STEPS = st.lists(
    st.tuples(st.sampled_from(["event", "pause", "resume"]), st.integers(0, 1000).map(lambda n: n / 8)),
    max_size=40,
)


def played(steps: list[Step]) -> StreamTimes:
    """Each step after so many seconds. What is paused brings nothing."""
    now_s, events, paused = 100.0, 0, False
    times = StreamTimes(now_s)
    for what, after_s in steps:
        now_s += after_s
        match what:
            case "pause":
                times.pause(now_s)
                paused = True
            case "resume":
                times.resume(now_s)
                paused = False
            case "event" if not paused:
                events += 1
                times.first(now_s)
                times.look(events, now_s)
    return times


def without_pauses(steps: list[Step]) -> list[Step]:
    """The same stream to a client that is always ready: the time of its pauses is cut out."""
    left: list[Step] = []
    paused, carried_s = False, 0.0
    for what, after_s in steps:
        carried_s += 0.0 if paused else after_s
        if what == "event" and not paused:
            left.append((what, carried_s))
            carried_s = 0.0
        paused = what == "pause" or (paused and what != "resume")
    return left


@given(STEPS)
def test_a_slow_reader_teaches_the_same_as_a_fast_one(steps: list[Step]) -> None:
    slow, fast = played(steps), played(without_pauses(steps))
    assert slow.prefill_s == fast.prefill_s
    assert slow.interval_s == fast.interval_s


def test_silence_is_counted_anew_after_a_pause() -> None:
    times = played([("event", 1.0), ("pause", 4.0), ("resume", 50.0)])
    assert times.silent_s(155.0) == 0.0
    assert times.silent_s(158.0) == pytest.approx(3.0)


def test_a_stream_that_its_client_holds_back_is_not_silent() -> None:
    assert played([("event", 1.0), ("pause", 4.0)]).silent_s(10_000.0) == 0.0
