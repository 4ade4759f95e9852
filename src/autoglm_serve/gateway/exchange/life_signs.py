"""The streams of one worker that must not look dead to whoever stands between them and their clients."""

from autoglm_serve.gateway.exchange.delivery import Delivery

_LOOK_S = 0.5


class LifeSigns:
    """Deliveries of streams, from the moment that they are waited for: queued, for a replica, for a token."""

    def __init__(self) -> None:
        self._deliveries: set[Delivery] = set()
        self._looked_s = 0.0

    def enter(self, delivery: Delivery) -> None:
        self._deliveries.add(delivery)

    def leave(self, delivery: Delivery) -> None:
        self._deliveries.discard(delivery)

    def sweep(self, now_s: float) -> None:
        """Look at each now and then."""
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        for delivery in tuple(self._deliveries):
            delivery.sign_of_life(now_s)
