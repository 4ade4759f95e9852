"""What a connection to a replica is doing, as a table: which state follows which event, and what is done.

Pure. A connection carries one answer after the other; the table says what has to be over before the next.
Two laws follow from it, whatever the order of events: who waits for a request is told its end once, and a
connection that lies idle is read from, whoever was slow before. What nobody may do in a state is not in the
table and changes nothing: an answer that is over has no say in who uses the connection next.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """What a connection is doing."""

    IDLE = "idle"  # nobody waits for anything; it may be used
    ANSWERING = "answering"  # a request was sent, its answer is read as it comes
    HELD = "held"  # the same, and nothing is read for now
    OVER = "over"  # it carries nothing any more


class ConnectionEvent(StrEnum):
    """What can happen to it."""

    SEND = "send"  # a request goes out
    PAUSE = "pause"  # who is answered takes no more for now
    RESUME = "resume"  # who is answered takes more
    WHOLE = "whole"  # the answer is complete, and nothing speaks against another
    LAST = "last"  # the answer is complete, and this connection carries no more
    BREAK = "break"  # no answer comes of it: it was cut, or what came is none
    DROP = "drop"  # who is answered wants no more
    STRAY = "stray"  # bytes came that nobody asked for
    CLOSE = "close"  # it is no longer needed
    GONE = "gone"  # the other end closed it while nobody waited


class Effect(StrEnum):
    """What is done about it, in this order."""

    HOLD = "hold"  # stop reading
    READ = "read"  # read on
    KEEP = "keep"  # to those that may be used again
    CLOSE = "close"
    CUT = "cut"  # at once: the replica sees its client leave
    TELL_END = "tell end"
    TELL_LOST = "tell lost"


S, E, F = State, ConnectionEvent, Effect

TRANSITIONS: Mapping[tuple[State, ConnectionEvent], tuple[State, tuple[Effect, ...]]] = MappingProxyType(
    {
        (S.IDLE, E.SEND): (S.ANSWERING, ()),
        (S.IDLE, E.STRAY): (S.OVER, (F.CUT,)),
        (S.IDLE, E.DROP): (S.OVER, (F.CUT,)),
        (S.IDLE, E.CLOSE): (S.OVER, (F.CLOSE,)),
        (S.IDLE, E.GONE): (S.OVER, ()),
        (S.ANSWERING, E.PAUSE): (S.HELD, (F.HOLD,)),
        (S.ANSWERING, E.WHOLE): (S.IDLE, (F.KEEP, F.TELL_END)),
        (S.ANSWERING, E.LAST): (S.OVER, (F.CLOSE, F.TELL_END)),
        (S.ANSWERING, E.BREAK): (S.OVER, (F.CUT, F.TELL_LOST)),
        (S.ANSWERING, E.DROP): (S.OVER, (F.CUT,)),
        (S.ANSWERING, E.CLOSE): (S.OVER, (F.CUT, F.TELL_LOST)),
        (S.HELD, E.RESUME): (S.ANSWERING, (F.READ,)),
        (S.HELD, E.WHOLE): (S.IDLE, (F.READ, F.KEEP, F.TELL_END)),
        (S.HELD, E.LAST): (S.OVER, (F.CLOSE, F.TELL_END)),
        (S.HELD, E.BREAK): (S.OVER, (F.CUT, F.TELL_LOST)),
        (S.HELD, E.DROP): (S.OVER, (F.CUT,)),
        (S.HELD, E.CLOSE): (S.OVER, (F.CUT, F.TELL_LOST)),
    }
)


def after(state: State, event: ConnectionEvent) -> tuple[State, tuple[Effect, ...]]:
    """The state that follows, and what is done on the way; nothing where the table has no such move."""
    return TRANSITIONS.get((state, event)) or (state, ())
