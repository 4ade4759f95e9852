"""A request that is over is one line, or one object for who reads JSON."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from autoglm_serve.core.control_messages import RequestEnded, decode_message, encode_message
from autoglm_serve.core.request_line import RequestLine
from autoglm_serve.observe import request_lines
from autoglm_serve.observe.logs import JsonFormatter, PlainFormatter

LINE = RequestLine(
    id="a-1", client="k7", model="phone", path="/v1/chat/completions", outcome="lost", failed=True,
    reason="connection reset", replica="r1", attempts=2, recoveries=1, seconds=3.25, first_s=0.4,
    prompt_tokens=3300, output_tokens=12,
)  # fmt: skip


@pytest.fixture(params=[PlainFormatter, JsonFormatter])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    request_lines.log.addHandler(handler)
    try:
        yield stream
    finally:
        request_lines.log.removeHandler(handler)


def test_it_is_one_line_with_its_parts(written: io.StringIO) -> None:
    request_lines.tell(LINE)
    (line,) = written.getvalue().splitlines()
    if line.startswith("{"):
        assert json.loads(line)["request"]["replica"] == "r1"
    else:
        assert line.endswith(
            "request a-1 k7 /v1/chat/completions phone lost (connection reset) on r1 2 attempts 1 recoveries "
            "3.250 s first 0.400 s 3300+12 tokens"
        )


def test_what_a_worker_tells_is_what_is_heard() -> None:
    assert decode_message(encode_message(RequestEnded(request=LINE))) == RequestEnded(request=LINE)
