"""What a client's connection may cost, and how what goes beyond is refused. Pure."""

from dataclasses import dataclass

from autoglm_serve.core.refusal import Refusal, RefusalType


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may cost. A time of 0 means no limit."""

    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 64 * 1024 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    """In which a body must arrive, or as much of it as `least_body_rate` says."""
    least_body_rate: int = 16 * 1024
    """Bytes a second of a body that takes longer."""
    keep_alive_s: float = 75.0
    send_timeout_s: float = 60.0
    """In which a client must take what `least_read_rate` says of what waits for it, or all."""
    least_read_rate: int = 1024
    """Bytes a second."""
    max_unread_bytes: int = 1024 * 1024
    """Of a stream, kept for a client that does not read it yet, before its engine is made to wait."""
    max_unread_whole_bytes: int = 32 * 1024 * 1024
    """The same of an answer that is no stream: its engine is done, and others want its place."""
    max_held_bytes: int = 1024 * 1024 * 1024
    """Bodies and unread answers of all clients of one worker together."""
    max_client_bytes: int = 512 * 1024 * 1024
    """Those of one client."""
    max_connections: int = 16_384
    """Open connections of one worker; one more is refused."""
    max_client_connections: int | None = None
    """Those of one address on another machine; None: half of all."""
    allow_origin: tuple[str, ...] = ("*",)
    """Web origins whose pages may read the answers (CORS); * is any, empty is none."""

    @property
    def most_of_one_client(self) -> int:
        return self.max_client_connections or max(1, self.max_connections // 2)


def holds_too_much(limits: ConnectionLimits) -> Refusal:
    message = (
        "This service holds as much of requests and unread answers as it can: "
        f"{limits.max_held_bytes >> 20} MiB in a worker (--max-held-mb), {limits.max_client_bytes >> 20} MiB "
        "of one client (--max-client-mb). Try again when some of them are answered."
    )
    return Refusal(503, "too_much_held", message, type=RefusalType.OVERLOADED, retry_after_s=1)


def head_too_large(limits: ConnectionLimits) -> Refusal:
    message = (
        f"The request's head is too large: at most {limits.max_head_bytes} bytes and "
        f"{limits.max_headers} headers are taken."
    )
    return Refusal(431, "headers_too_large", message)


def body_too_large(limits: ConnectionLimits) -> Refusal:
    most = f"{limits.max_body_bytes / 1024 / 1024:.0f} MiB"
    return Refusal(413, "body_too_large", f"The body is larger than {most}, the most taken (--max-body-mb).")
