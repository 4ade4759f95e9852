"""The limit of open files as a process finds it, and what is nobody else's fault."""

import errno
import resource
from collections.abc import Iterator

import pytest

from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.worker import affordable
from autoglm_serve.launch import descriptors


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_one(limits: tuple[int, int]) -> None:
    hard = limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    raised = descriptors.raise_limit()
    assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert raised == min(hard, 1 << 18)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_what_this_machine_lacks_is_a_shortage(code: int) -> None:
    assert descriptors.is_shortage(OSError(code, ""))


@pytest.mark.parametrize("error", [ConnectionRefusedError(errno.ECONNREFUSED, ""), TimeoutError()])
def test_what_the_other_end_does_is_none(error: OSError) -> None:
    assert not descriptors.is_shortage(error)


@pytest.mark.parametrize("most_open", [1, 97, 256, 1024, 1 << 18])
def test_each_client_can_have_a_connection_to_its_replica(most_open: int) -> None:
    most = affordable(ConnectionLimits(), most_open).max_connections
    assert 1 <= most <= ConnectionLimits().max_connections
    assert most_open <= 97 or 2 * most + 96 <= most_open
