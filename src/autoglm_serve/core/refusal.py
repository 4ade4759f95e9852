"""A refusal: the answer of the HTTP API to what it cannot or will not do.

The gateway turns one into an OpenAI error envelope; nothing else may decide what an error looks like.
"""

from enum import StrEnum


class RefusalType(StrEnum):
    """The `type` of an OpenAI error envelope."""

    INVALID_REQUEST = "invalid_request_error"
    NOT_FOUND = "not_found_error"
    PERMISSION = "permission_error"
    REQUESTS = "requests"
    TOKENS = "tokens"
    NO_BUDGET = "insufficient_quota"
    OVERLOADED = "overloaded_error"
    SERVER = "server_error"


class Refusal(Exception):
    """Why a request is not served: status, envelope, and whether the connection can go on."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: RefusalType = RefusalType.INVALID_REQUEST,
        param: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.type = type
        self.param = param
        self.retry_after_s = retry_after_s
        self.close = close
        self.headers = headers
        """What the answer says beside it."""
