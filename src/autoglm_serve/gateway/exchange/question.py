"""What a replica is asked in one attempt, and on which terms its answer is waited for. Pure."""

from collections.abc import Callable
from typing import NamedTuple

from autoglm_serve.gateway.recovery.seam import Seam
from autoglm_serve.gateway.wire.splice import Slot


class Question(NamedTuple):
    """Made for every attempt: a frozen dataclass takes three times as long."""

    body: bytes
    model_slot: Slot | None = None
    """Where the model's name stands in the body, or should, if it is known."""
    splicer: Seam | None = None
    """Set where the answer goes on with a stream that another replica began."""
    ahead_tokens: int = 0
    """What the replica has to work off before the answer begins, this question's prompt among it."""
    may_go: Callable[[], bool] | None = None
    """Whether another replica could take the request."""
    impatient: bool = False
    """It goes there if this one does not begin to answer."""
    patience: float = 1.0
    """How many times as long as usual a silence is waited for."""
    whole: bool = False
    """The answer comes in one piece."""
