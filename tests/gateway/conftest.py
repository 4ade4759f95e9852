"""One gateway and one engine that all tests of a module share; each test looks only at its own requests."""

from collections.abc import Iterator

import pytest

from tests.fakes.engine_process import EngineProcess, running_engine
from tests.gateway.gateway_process import GatewayProcess, running_gateway


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with running_engine("--chunks", "4") as process:
        yield process


@pytest.fixture(scope="module")
def gateway(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("state"), [engine.url]) as process:
        yield process
