"""Requests are told of when they are over: which, with what, and never with what was in them."""

from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.gateway.exchange.request_log import RequestLog
from autoglm_serve.gateway.settings import LoggedRequests
from tests.fakes.engine_process import running_engine
from tests.gateway.gateway_process import GatewayProcess, running_gateway

SECRET = "my PIN is 4711"


def told(gateway: GatewayProcess, request_id: str) -> dict[str, Any]:
    """What the control plane hears of a request."""
    while True:
        for message in gateway.heard:
            request = message.get("request")
            if isinstance(request, dict) and request["id"] == request_id:
                return request
        gateway.ask("GET", "/health")


@pytest.mark.process
def test_a_request_without_an_answer_is_told_with_what_became_of_it(tmp_path: Path) -> None:
    with running_engine() as engine, running_gateway(tmp_path, [engine.url]) as gateway:
        chat = {"model": "demo", "messages": [{"role": "user", "content": SECRET}]}
        gateway.ask("POST", "/v1/chat/completions", chat, {"x-request-id": "well"})
        gateway.ask(
            "POST", "/v1/chat/completions", {**chat, "fault": "status:500"}, {"x-request-id": "broken"}
        )
        gateway.ask("POST", "/v1/chat/completions", {**chat, "model": "none"}, {"x-request-id": "refused"})
        broken, refused = told(gateway, "broken"), told(gateway, "refused")
        assert (broken["outcome"], broken["replica"], broken["client"]) == ("engine_error", "r0", "127.0.0.1")
        assert broken["attempts"] >= 1
        assert broken["seconds"] > 0
        assert (refused["outcome"], refused["reason"]) == ("refused", "model_not_found")
        assert "replica" not in refused or not refused["replica"]
        everything = str(gateway.heard)
        assert "well" not in everything  # its answer is no error
        assert SECRET not in everything


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        (LoggedRequests.ALL, set(Outcome)),
        (LoggedRequests.ERRORS, set(Outcome) - {Outcome.OK, Outcome.CANCELLED}),
        (LoggedRequests.OFF, set()),
    ],
)
def test_which_requests_are_told_of(which: LoggedRequests, wanted: set[Outcome]) -> None:
    log = RequestLog(which, lambda line: None)
    assert {outcome for outcome in Outcome if log.wants(outcome)} == wanted
