"""Server-sent events as they arrive in pieces of any size. Pure.

An event may be long: a picture, a whole response. What has come of it is neither copied nor searched again
for every piece that follows, only where a piece may complete its end.
"""

from autoglm_serve.gateway.wire.http import Pieces
from autoglm_serve.gateway.wire.sse import whole_events

_EDGE_BYTES = 3
"""Of an event's end, at most, before its last byte."""


class EventParts:
    """The beginning of an event, and what completes it."""

    __slots__ = ("_edge", "_pieces")

    def __init__(self) -> None:
        self._pieces = Pieces()
        self._edge = b""
        """The last bytes of what is held."""

    def __len__(self) -> int:
        return len(self._pieces)

    def whole(self, data: bytes) -> bytes:
        """The whole events that `data` completes or brings; the rest of it is kept."""
        if not self._pieces:
            cut = whole_events(data)
            if cut == len(data):
                return data
            self._keep(data[cut:])
            return data[:cut]
        looked = self._edge + data
        cut = whole_events(looked) - len(self._edge)
        if cut <= 0:
            self._keep(data)
            return b""
        self._pieces.add(data[:cut])
        events = self.take()
        if cut < len(data):
            self._keep(data[cut:])
        return events

    def take(self) -> bytes:
        """What is held, of which no more comes."""
        held, self._pieces, self._edge = self._pieces.joined(), Pieces(), b""
        return held

    def _keep(self, data: bytes) -> None:
        self._pieces.add(data)
        self._edge = (self._edge + data)[-_EDGE_BYTES:] if len(data) < _EDGE_BYTES else data[-_EDGE_BYTES:]
