"""Which engine runs a model."""

from autoglm_serve.config.options import AUTO, Options
from autoglm_serve.deploy import planning
from autoglm_serve.engines.base import Engine
from autoglm_serve.engines.catalog import BY_OPTION
from autoglm_serve.probe import gpus
from autoglm_serve.probe.packages import installed


def choose_engine(options: Options) -> Engine:
    """The engine that was asked for; else vLLM where it and a GPU are, and the embedded one elsewhere."""
    if options.engine != AUTO:
        return BY_OPTION[options.engine]
    vllm = BY_OPTION[planning.GPU_ENGINE]
    is_gguf = options.model is not None and options.model.endswith(".gguf")
    if not is_gguf and vllm.package and installed(vllm.package) and gpus.read().gpus:
        return vllm
    return BY_OPTION["llama_cpp"]
