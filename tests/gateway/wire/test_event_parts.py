"""Events come out whole at every cut, and what is long is not gone over for every piece of it."""

import time

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.event_parts import EventParts
from autoglm_serve.gateway.wire.sse import whole_events

TEXTS = st.lists(
    st.sampled_from([b"a", b"data: {}", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r"]), max_size=30
)


@given(TEXTS, st.data())
def test_at_every_cut_what_came_is_what_is_whole_and_the_rest_is_kept(
    texts: list[bytes], data: st.DataObject
) -> None:
    stream, parts, at, held = b"".join(texts), EventParts(), 0, b""
    while at < len(stream):
        end = data.draw(st.integers(at + 1, len(stream)))
        held += stream[at:end]
        cut = whole_events(held)
        assert parts.whole(stream[at:end]) == held[:cut]
        held, at = held[cut:], end
        assert len(parts) == len(held)
    assert parts.take() == held
    assert not parts


def test_an_event_that_comes_in_many_pieces_takes_time_in_proportion() -> None:
    def seconds(pieces: int) -> float:
        parts, began_s = EventParts(), time.process_time()
        for _ in range(pieces):
            assert not parts.whole(b"x" * 256)
        assert len(parts.whole(b"\n\n")) == 256 * pieces + 2
        return time.process_time() - began_s

    few_s = min(seconds(2_000) for _ in range(3))
    assert seconds(64_000) < 32 * few_s * 10  # it was the square: some thousand times
