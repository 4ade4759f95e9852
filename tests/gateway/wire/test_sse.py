"""Whole events only, at whatever place the bytes were cut."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.sse import data_of, event, whole_events

EVENTS = st.lists(
    st.sampled_from([b"data: {}", b"data: x\ndata: y", b": ping", b"event: e\ndata: 1", b"data: [DONE]"]),
    max_size=8,
)


def naive_events(text: bytes, line_end: bytes) -> int:
    """Reads line by line, as a client does, and counts the bytes up to the last blank line."""
    taken = whole = 0
    for line in text.split(line_end)[:-1]:
        taken += len(line) + len(line_end)
        if not line:
            whole = taken
    return whole


@given(EVENTS, st.sampled_from([b"\n", b"\r\n"]))
def test_it_agrees_with_reading_line_by_line_at_every_cut(events: list[bytes], line_end: bytes) -> None:
    text = b"".join(event.replace(b"\n", line_end) + 2 * line_end for event in events)
    for cut in range(len(text) + 1):
        assert whole_events(text[:cut]) == naive_events(text[:cut], line_end), text[:cut]


@given(EVENTS, st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_pieces_and_leftovers_join_to_the_same_stream(
    events: list[bytes], line_end: bytes, data: st.DataObject
) -> None:
    text = b"".join(event.replace(b"\n", line_end) + 2 * line_end for event in events)
    sent, held, rest = b"", b"", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        held, rest = held + rest[:size], rest[size:]
        cut = whole_events(held)
        sent, held = sent + held[:cut], held[cut:]
        assert not sent or sent.endswith(2 * line_end)
    assert sent + held == text
    assert not held


def test_data_of_joins_lines_and_passes_over_comments() -> None:
    events = b": ping\n\nevent: e\r\ndata: 1\r\ndata: 2\r\n\r\n" + event(b"[DONE]")
    assert list(data_of(events)) == [b"1\n2", b"[DONE]"]
