"""One service for all examples, started as a person starts it: bundled model, real engine."""

import os
from collections.abc import Iterator

import pytest

from tests.process.service_process import ServiceProcess, running_service

NAMES = "autoglm-phone-demo,autoglm-phone-9b"
"""The demo's own honest name first; the other is the one that clients of the real model ask for."""


@pytest.fixture(scope="package")
def service() -> Iterator[ServiceProcess]:
    # Room for a screen and an answer, and an end for a model that finds none.
    with running_service(
        "--replicas", "1", "--served-model-name", NAMES, "--max-model-len", "1024"
    ) as service:
        yield service


@pytest.fixture
def environment(service: ServiceProcess) -> dict[str, str]:
    """What an example needs to find the service."""
    return {**os.environ, "OPENAI_BASE_URL": f"{service.url}/v1", "LANGSMITH_TRACING": "false"}
