"""Which lines are said again, and that none is lost from the count."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.observe.repeats import BURST, WINDOW_S, Repeats

EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 60).map(str), st.floats(0, 5)), max_size=200
)


@given(EVENTS)
def test_each_line_is_said_or_counted_and_a_kind_fills_no_disk(events: list[tuple[str, str, float]]) -> None:
    repeats, now_s, said, counted = Repeats(), 0.0, [], 0
    for kind, line, after_s in events:
        now_s += after_s
        counted += sum(summary.count for summary in repeats.over(now_s))
        if repeats.admit(kind, line, now_s):
            said.append((kind, line, now_s))
    counted += sum(summary.count for summary in repeats.over(now_s + WINDOW_S))
    assert len(said) + counted == len(events)
    windows = now_s // WINDOW_S + 1
    assert len(said) <= 2 * BURST * windows


def test_what_repeats_is_said_once_and_then_with_its_count() -> None:
    repeats = Repeats()
    assert [repeats.admit("k", "it broke", now_s) for now_s in (0, 1, 2)] == [True, False, False]
    (summary,) = repeats.over(WINDOW_S)
    assert (summary.last, summary.count) == ("it broke", 2)
    assert repeats.admit("k", "it broke", WINDOW_S)


def test_two_different_lines_are_two_events() -> None:
    repeats = Repeats()
    assert repeats.admit("replica %s broke", "replica r0 broke", 0)
    assert repeats.admit("replica %s broke", "replica r1 broke", 0)
