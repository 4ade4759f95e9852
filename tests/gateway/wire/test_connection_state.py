"""The table of a connection's states: what holds of it whatever happens in which order."""

from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.wire.connection_state import TRANSITIONS, ConnectionEvent, Effect, State, after

ENDS = (Effect.TELL_END, Effect.TELL_LOST)
BUSY = (State.ANSWERING, State.HELD)


@given(st.lists(st.sampled_from(ConnectionEvent), max_size=40))
def test_an_idle_connection_is_read_from_and_who_waits_is_told_once(events: list[ConnectionEvent]) -> None:
    state, reading, waiting = State.IDLE, True, False
    for event in events:
        before = state
        state, effects = after(state, event)
        if event is ConnectionEvent.SEND and before is State.IDLE:
            waiting = True
        for effect in effects:
            match effect:
                case Effect.HOLD:
                    assert reading
                    reading = False
                case Effect.READ:
                    assert not reading
                    reading = True
                case Effect.KEEP:
                    assert (state, reading) == (State.IDLE, True)
                case Effect.TELL_END | Effect.TELL_LOST:
                    assert waiting
                    waiting = False
                case Effect.CLOSE | Effect.CUT:
                    assert state is State.OVER
        if event is ConnectionEvent.DROP:  # who wants no more is told nothing
            waiting = False
        assert waiting == (state in BUSY)
        assert state is State.OVER or reading == (state is not State.HELD)


@given(st.sampled_from(ConnectionEvent))
def test_what_is_over_stays_so(event: ConnectionEvent) -> None:
    assert after(State.OVER, event) == (State.OVER, ())


@given(
    st.sampled_from(
        [
            ConnectionEvent.PAUSE,
            ConnectionEvent.RESUME,
            ConnectionEvent.WHOLE,
            ConnectionEvent.LAST,
            ConnectionEvent.BREAK,
        ]
    )
)
def test_an_answer_that_is_over_has_no_say_in_an_idle_connection(event: ConnectionEvent) -> None:
    assert after(State.IDLE, event) == (State.IDLE, ())


def test_an_answer_comes_to_one_end() -> None:
    for (_, event), (_, effects) in TRANSITIONS.items():
        assert sum(effect in ENDS for effect in effects) <= 1
        assert (Effect.TELL_END in effects) == (event in (ConnectionEvent.WHOLE, ConnectionEvent.LAST))
