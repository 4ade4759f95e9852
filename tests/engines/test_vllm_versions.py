"""Which versions of vLLM are known."""

import pytest

from autoglm_serve.engines.vllm import Vllm


@pytest.mark.parametrize("version", ["0.18.9", "0.11.0", "0.6.3.post1"])
def test_a_version_older_than_any_that_is_known_is_refused(version: str) -> None:
    assert Vllm().too_old(version) == "vllm>=0.19,<0.34"


@pytest.mark.parametrize("version", ["0.19.0", "0.26.0+cu130", "0.33.1", "0.40.0", "a build of one's own"])
def test_any_other_is_taken(version: str) -> None:
    assert Vllm().too_old(version) == ""
