"""Every engine this project can run, by name. Adding one is a line here and a file beside it."""

from collections.abc import Mapping
from types import MappingProxyType

from autoglm_serve.engines.base import Engine
from autoglm_serve.engines.external import External
from autoglm_serve.engines.llama_cpp import LlamaCpp
from autoglm_serve.engines.llama_cpp_speech import LlamaCppSpeech
from autoglm_serve.engines.sglang import Sglang
from autoglm_serve.engines.vllm import Vllm

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            LlamaCpp(),
            LlamaCppSpeech(),
            Vllm(),
            Sglang(),
            External(),
        )
    }
)

BY_OPTION: Mapping[str, Engine] = MappingProxyType(
    {engine.option: engine for engine in ENGINES.values() if engine.option}
)
"""Those that --engine can ask for, by what it calls them."""


def owner_of(owned_by: str) -> Engine | None:
    """The engine whose /v1/models says this of its models; None where it is none of ours."""
    return next((engine for engine in ENGINES.values() if engine.owned_by == owned_by), None)
