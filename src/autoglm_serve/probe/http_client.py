"""One HTTP request to an address, on a connection of its own: for who asks few things and may wait."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit


def root_of(url: str) -> str:
    """The address whose paths begin with /v1, whether it was given with that or without."""
    return url.rstrip("/").removesuffix("/v1")


def connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """To the host of an http or https URL, made when it is first used. Raises ValueError for a port that is
    none.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout_s)


@contextmanager
def asked(
    url: str, method: str, path: str, body: object = None, *, key: str = "", timeout_s: float
) -> Iterator[http.client.HTTPResponse]:
    """The reply, whatever its status, to be read within the block; `body` goes as JSON, `path` is below it.

    Raises OSError, http.client.HTTPException, or ValueError for a URL that is none.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["content-type"] = "application/json"
    with closing(connection(url, timeout_s)) as line:
        data = None if body is None else json.dumps(body)
        line.request(method, urlsplit(url).path.rstrip("/") + path, data, headers)
        with line.getresponse() as reply:
            yield reply
