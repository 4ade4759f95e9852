"""Tells the service's own log of requests that are over."""

import logging
from dataclasses import asdict

from autoglm_serve.core.request_line import RequestLine

log = logging.getLogger("autoglm_serve.requests")


def tell(line: RequestLine) -> None:
    """A line, with its parts for who reads JSON. Failures are warnings, and no more of them are said than of
    other warnings."""
    level = logging.WARNING if line.failed else logging.INFO
    log.log(level, "request %s", line, extra={"data": {"request": asdict(line)}})
