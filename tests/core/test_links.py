"""Which variables Kubernetes and Docker made, and which a person did."""

import pytest

from autoglm_serve.core.links import is_link, without_links

MADE = {
    "AUTOGLM_SERVICE_HOST": "10.96.0.7",
    "AUTOGLM_SERVICE_PORT": "8000",
    "AUTOGLM_SERVICE_PORT_HTTP": "8000",
    "AUTOGLM_PORT": "tcp://10.96.0.7:8000",
    "AUTOGLM_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "AUTOGLM_PORT_8000_TCP_PROTO": "tcp",
    "AUTOGLM_PORT_8000_TCP_PORT": "8000",
    "AUTOGLM_PORT_8000_TCP_ADDR": "10.96.0.7",
    "AUTOGLM_SERVE_PORT": "tcp://[fd00::7]:8000",  # of a Service named autoglm-serve
    "AUTOGLM_DNS_PORT_53_UDP": "udp://10.96.0.7:53",
    "AUTOGLM_NAME": "/web/autoglm",  # Docker: who linked to whom
    "VLLM_PORT": "tcp://10.96.0.9:8000",
}
WRITTEN = {
    "AUTOGLM_PORT": "8000",
    "VLLM_PORT": "5600",
    "AUTOGLM_MODEL_NAME": "autoglm-phone-9b",
    "AUTOGLM_MODEL": "/models/phone.gguf",
    "AUTOGLM_HOST": "0.0.0.0",
}


@pytest.mark.parametrize(("name", "value"), MADE.items())
def test_a_link_is_told_by_its_form(name: str, value: str) -> None:
    assert is_link(name, value)


@pytest.mark.parametrize(("name", "value"), WRITTEN.items())
def test_what_a_person_wrote_is_none(name: str, value: str) -> None:
    assert not is_link(name, value)


def test_an_engine_gets_no_link_that_it_would_read_as_a_setting() -> None:
    ours = {"PATH": "/bin", "VLLM_USE_V1": "1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    links = {"VLLM_PORT": "tcp://10.96.0.9:80", "SGLANG_SERVICE_HOST": "10.96.0.9"}
    assert without_links(ours | links, ("VLLM_", "SGLANG_")) == ours
