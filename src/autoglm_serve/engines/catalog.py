"""Every engine this project can run, by name. Adding one is a line here and a file beside it."""

from collections.abc import Mapping
from types import MappingProxyType

from autoglm_serve.engines.base import Engine, MeasuringEngine
from autoglm_serve.engines.external import External
from autoglm_serve.engines.llama_cpp import LlamaCpp
from autoglm_serve.engines.llama_cpp_speech import LlamaCppSpeech
from autoglm_serve.engines.sglang import Sglang
from autoglm_serve.engines.vllm import Vllm

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {engine.name: engine for engine in (LlamaCpp(), LlamaCppSpeech(), Vllm(), Sglang(), External())}
)

MEASURING: Mapping[str, MeasuringEngine] = MappingProxyType(
    {engine.name: engine for engine in (Vllm(), Sglang())}
)
"""Those whose log tells what their memory went to."""
