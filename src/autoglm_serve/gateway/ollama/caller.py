"""A client of Ollama's API, as those see it who serve OpenAI's."""

from collections.abc import Callable

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.ollama.answer import Telling
from autoglm_serve.gateway.wire.client_connection import ClientConnection
from autoglm_serve.gateway.wire.http import Headers, Request

_STREAM = (b"content-type", b"application/x-ndjson")
_JSON = (b"content-type", b"application/json; charset=utf-8")


class OllamaCaller:
    """Hands on what is answered, in Ollama's form (`dispatch.Asker`)."""

    def __init__(self, connection: ClientConnection, asked: Request, telling: Telling) -> None:
        self._connection = connection
        self._asked = asked
        self._telling = telling

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._connection.respond(status, _typed(headers, _JSON), self._telling.whole(body))

    def start(self, status: int, headers: Headers, first: bytes) -> None:
        lines = self._telling.lines(first) or self._telling.lines(b":")
        self._connection.start(status, _typed(headers, _STREAM), lines)

    def write(self, data: bytes) -> None:
        if lines := self._telling.lines(data):
            self._connection.write(lines)

    def finish(self) -> None:
        if last := self._telling.end():
            self._connection.write(last)
        self._connection.finish()

    def refuse(self, refusal: Refusal, headers: Headers = ()) -> None:
        self._connection.refuse(self._telling.question.in_their_words(refusal), headers)

    def abort(self) -> None:
        self._connection.abort()

    def owes(self, request: Request) -> bool:
        """The request that was made of its own is not the one that the connection knows."""
        return self._connection.owes(self._asked)

    @property
    def gone(self) -> bool:
        return self._connection.gone

    @property
    def answering(self) -> bool:
        return self._connection.answering

    @property
    def paused(self) -> bool:
        return self._connection.paused

    @property
    def on_pause(self) -> Callable[[], None] | None:
        return self._connection.on_pause

    @on_pause.setter
    def on_pause(self, told: Callable[[], None] | None) -> None:
        self._connection.on_pause = told

    @property
    def on_resume(self) -> Callable[[], None] | None:
        return self._connection.on_resume

    @on_resume.setter
    def on_resume(self, told: Callable[[], None] | None) -> None:
        self._connection.on_resume = told


def _typed(headers: Headers, kind: tuple[bytes, bytes]) -> Headers:
    return (kind, *(header for header in headers if header[0] != b"content-type"))
