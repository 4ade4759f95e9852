"""The inference paths of the OpenAI API that may reach an engine. Everything else of an engine stays inside.

An engine's own key does not cover its tokenize, pause, update_weights or docs paths; vLLM's security guide
calls a proxy with an allow list the most effective protection.
"""

from dataclasses import dataclass
from enum import Enum

from autoglm_serve.core.model import Capability


class BodyKind(Enum):
    JSON = "json"
    MULTIPART = "multipart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    path: str
    body: BodyKind = BodyKind.JSON
    required: tuple[str, ...] = ()
    """Top-level fields that must be there."""
    ends_with_done: bool = False
    """Its streams end with `data: [DONE]`."""
    typed_events: bool = False
    """Its streams are events that name their type, and end with one."""
    answer: str | None = ""
    """An answer in one piece is a JSON object with this field, any if it is empty; None: anything."""
    needs: Capability | None = None
    """Only a model with this capability is asked."""


RESPONSES = "/v1/responses"

ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            path="/v1/chat/completions",
            required=("messages",),
            needs=Capability.CHAT,
            ends_with_done=True,
            answer="choices",
        ),
        Endpoint(
            path="/v1/completions",
            required=("prompt",),
            needs=Capability.CHAT,
            ends_with_done=True,
            answer="choices",
        ),
        Endpoint(path=RESPONSES, required=("input",), needs=Capability.CHAT, typed_events=True),
        Endpoint(path="/v1/messages", required=("messages",), needs=Capability.CHAT, typed_events=True),
        Endpoint(path="/v1/messages/count_tokens", required=("messages",), needs=Capability.CHAT),
        Endpoint(path="/v1/embeddings", required=("input",), answer="data"),
        Endpoint(path="/v1/rerank", required=("query", "documents")),
        Endpoint(path="/v1/score"),
        Endpoint(path="/v1/classify", required=("input",)),
        Endpoint(path="/v1/moderations", required=("input",)),
        Endpoint(path="/v1/images/generations", required=("prompt",)),
        Endpoint(path="/v1/audio/speech", required=("input",), answer=None),
        *(
            Endpoint(path=path, body=BodyKind.MULTIPART, needs=Capability.TRANSCRIPTION, answer=None)
            for path in ("/v1/audio/transcriptions", "/v1/audio/translations")
        ),
    )
}
