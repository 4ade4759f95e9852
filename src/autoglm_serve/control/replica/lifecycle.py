"""A replica's life as a table: which state follows from which event, and nothing else does.

Pure. The supervisor asks it before every change; a move that is not here is a fault in the supervisor.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from autoglm_serve.core.replica import ReplicaState as S


class LifecycleEvent(StrEnum):
    """What can happen to a replica."""

    START = "start"  # its process is started, or an address is looked at again
    ADOPTED = "adopted"  # found running and able to serve, left by an earlier control plane
    ANSWERED = "answered"  # its health path said 200
    DRAIN = "drain"  # no new requests, please
    STOP = "stop"  # asked to exit, for good or to sleep
    STUCK = "stuck"  # lives but does not answer; it is ended to be started again
    ENDED = "ended"  # gone, as asked
    RENEWED = "renewed"  # gone, as asked, to be started again at once
    CRASHED = "crashed"  # gone by itself; another start may go better
    DOOMED = "doomed"  # gone by itself; every start ends this way


E = LifecycleEvent

TRANSITIONS: Mapping[tuple[S, LifecycleEvent], S] = MappingProxyType(
    {
        (S.STOPPED, E.START): S.STARTING,
        (S.WAITING, E.START): S.STARTING,
        (S.FAILED, E.START): S.STARTING,
        (S.STOPPED, E.ADOPTED): S.READY,
        (S.STARTING, E.ANSWERED): S.READY,
        (S.READY, E.DRAIN): S.DRAINING,
        (S.STARTING, E.STOP): S.STOPPING,
        (S.READY, E.STOP): S.STOPPING,
        (S.DRAINING, E.STOP): S.STOPPING,
        (S.WAITING, E.STOP): S.STOPPED,
        (S.FAILED, E.STOP): S.STOPPED,
        (S.STARTING, E.STUCK): S.STOPPING,
        (S.READY, E.STUCK): S.STOPPING,
        (S.DRAINING, E.STUCK): S.STOPPING,
        (S.DRAINING, E.ENDED): S.STOPPED,
        (S.STOPPING, E.ENDED): S.STOPPED,
        (S.STOPPING, E.RENEWED): S.WAITING,
        (S.STARTING, E.CRASHED): S.WAITING,
        (S.READY, E.CRASHED): S.WAITING,
        (S.STOPPING, E.CRASHED): S.WAITING,
        (S.STARTING, E.DOOMED): S.FAILED,
        (S.READY, E.DOOMED): S.FAILED,
        (S.STOPPING, E.DOOMED): S.FAILED,
    }
)


class IllegalMove(Exception):
    """An event that cannot happen in this state."""


def after(state: S, event: LifecycleEvent) -> S:
    """The state that follows; raises IllegalMove where the table has none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalMove(f"a replica that is {state} cannot be {event}") from None
