"""What is verified: one model at one address, and the ways of asking it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autoglm_serve.probe.upstream import RemoteModel

from .golden import GoldenScreen, golden_screens
from .server import AskedServer, Completion, Content, Message

GREEDY: dict[str, Any] = {"temperature": 0, "seed": 0}
"""Sampling under which the same question has the same answer, or nearly, on a busy GPU."""
MOST_TOKENS = 512
"""No right answer here is as long."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model at an address. What several checks need is asked once."""

    address: AskedServer
    served: tuple[RemoteModel, ...]
    name: str
    long_tokens: int
    """How long a prompt the check of the context sends."""

    @property
    def context_tokens(self) -> int | None:
        return next((one.max_model_len for one in self.served if one.name == self.name), None)

    def body(self, content: Content, *, max_tokens: int = MOST_TOKENS, **more: Any) -> dict[str, Any]:
        return self.talk([{"role": "user", "content": content}], max_tokens=max_tokens, **more)

    def talk(self, messages: list[Message], *, max_tokens: int = MOST_TOKENS, **more: Any) -> dict[str, Any]:
        return {"model": self.name, "messages": messages, "max_tokens": max_tokens, **GREEDY, **more}

    def whole(self, content: Content, *, max_tokens: int = MOST_TOKENS, **more: Any) -> Completion:
        return self.address.whole(self.body(content, max_tokens=max_tokens, **more))

    @cached_property
    def golden(self) -> tuple[tuple[GoldenScreen, Completion], ...]:
        """Every golden screen and what is answered to it alone."""
        return tuple((screen, self.whole(screen.content())) for screen in golden_screens())

    @cached_property
    def golden_blind(self) -> Completion:
        """What is answered to the first golden screen's task without its picture."""
        return self.whole([{"type": "text", "text": golden_screens()[0].task}])

    @cached_property
    def golden_streamed(self) -> Completion:
        return self.address.stream(self.body(golden_screens()[0].content()))
