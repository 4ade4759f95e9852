"""What an address that already serves says of itself."""

import asyncio

import pytest

from autoglm_serve.core.errors import Unreachable
from autoglm_serve.probe.upstream import RemoteModel, _model, models_at
from tests.fakes.engine_process import running_engine


@pytest.mark.process
def test_an_engine_names_its_models() -> None:
    with running_engine("--models", "a,b") as engine:
        models = asyncio.run(models_at(engine.url, timeout_s=5))
    assert models == tuple(RemoteModel(name=name, max_model_len=8192, owned_by="test") for name in "ab")


def test_llama_cpp_says_its_context_elsewhere() -> None:
    assert _model({"id": "m", "meta": {"n_ctx": 4096}}) == RemoteModel(name="m", max_model_len=4096)


def test_a_server_may_say_nothing_of_its_context() -> None:
    assert _model({"id": "m"}) == RemoteModel(name="m", max_model_len=None)


def test_an_address_where_nobody_is() -> None:
    with pytest.raises(Unreachable, match="is not an OpenAI-compatible server"):
        asyncio.run(models_at("http://127.0.0.1:1", timeout_s=5))


@pytest.mark.process
def test_a_server_that_is_something_else() -> None:
    with running_engine() as engine, pytest.raises(Unreachable) as problem:
        asyncio.run(models_at(f"{engine.url}/v2", timeout_s=5))
    assert "404" in problem.value.why
