"""Flags that people bring along from vLLM, SGLang and llama-server: ours for them, or what to do instead.

Names are from `vllm serve --help` (0.33), `sglang.launch_server --help` (0.5) and llama-server's README.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

SAME: Mapping[str, str] = MappingProxyType(
    {
        "--tensor-parallel-size": "--tp",
        "--tp-size": "--tp",
        "-tp": "--tp",
        "--pipeline-parallel-size": "--pp",
        "--pp-size": "--pp",
        "-pp": "--pp",
        "--data-parallel-size": "--replicas",
        "--dp-size": "--replicas",
        "-dp": "--replicas",
        "--ctx-size": "--max-model-len",
        "--context-length": "--max-model-len",
        "-c": "--max-model-len",
        "--parallel": "--max-num-seqs",
        "-np": "--max-num-seqs",
        "--max-running-requests": "--max-num-seqs",
        "--chunked-prefill-size": "--max-num-batched-tokens",
        "--mem-fraction-static": "--gpu-memory-utilization",
        "--model-path": "--model",
        "-m": "--model",
        "--hf-repo": "--model",
        "-hf": "--model",
        "--alias": "--served-model-name",
        "-a": "--served-model-name",
        "-q": "--quantization",
        "-t": "--threads",
        "--allowed-origins": "--allow-origin",
        "--ssl-certfile": "--tls-cert",
        "--ssl-cert-file": "--tls-cert",
        "--ssl-keyfile": "--tls-key",
        "--ssl-key-file": "--tls-key",
        "--ssl-ca-certs": "--tls-client-ca",
        "--uvicorn-log-level": "--log-level",
    }
)
"""Another server's name of a flag that means the same here."""

_AFTER = "It is a flag of the engine: write it after a bare --, as in `autoglm serve --model M -- {flag}`."
_KEYS = "Keys of clients are not checked yet: whatever key a client sends is let through."
_GPU_LAYERS = "The embedded llama.cpp runs on the processor; GPUs are vLLM's, with --engine vllm."
_ONE = "The plan decides it; `autoglm plan --explain` says how and why."

INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "--api-key": _KEYS,
        "--api-key-file": _KEYS,
        "--n-gpu-layers": _GPU_LAYERS,
        "-ngl": _GPU_LAYERS,
        "--api-server-count": _ONE,
        "--limit-mm-per-prompt": _ONE,
        "--disable-log-requests": "Requests are never logged with what is in them.",
        "--root-path": "A proxy in front can serve it below a path, which it takes away before it asks.",
    }
)
"""Flags that have no counterpart here, and what to know instead."""

ENGINES_OWN = frozenset(
    """
    --trust-remote-code --chat-template --chat-template-content-format --enable-auto-tool-choice
    --tool-call-parser --reasoning-parser --enforce-eager --kv-cache-dtype --enable-prefix-caching
    --no-enable-prefix-caching --enable-chunked-prefill --block-size --swap-space --cpu-offload-gb
    --load-format --download-dir --tokenizer --tokenizer-mode --hf-overrides --enable-lora
    --lora-modules --max-loras --speculative-config --compilation-config --mm-processor-kwargs
    --mm-encoder-tp-mode --generation-config --seed --enable-expert-parallel
    --distributed-executor-backend --disable-log-stats
    --jinja --flash-attn -fa --cache-type-k --cache-type-v -ctk -ctv --batch-size -b --ubatch-size -ub --mlock
    --no-mmap --embeddings --embedding --pooling --reranking --grammar --rope-scaling --rope-freq-base
    --n-predict -n --cont-batching -cb --attention-backend --disable-cuda-graph --schedule-policy
    --enable-torch-compile
    """.split()  # noqa: SIM905
)
"""Flags that only an engine understands."""


def translated(argv: Sequence[str]) -> list[str]:
    """The command line with another server's names of our flags replaced by ours."""
    return [_own_name(word) for word in argv]


def _own_name(word: str) -> str:
    flag, equals, value = word.partition("=")
    return SAME.get(flag, flag) + equals + value


def advice(flag: str) -> str:
    """What to do about a flag that is none of ours; empty where nothing is known of it."""
    if flag in ENGINES_OWN:
        return _AFTER.format(flag=flag)
    return INSTEAD.get(flag, "")


def unknown_in(argv: Sequence[str], known: Mapping[str, object]) -> Iterator[str]:
    """The flags of a command line, in their order, that are not among `known`."""
    for word in argv:
        flag = word.partition("=")[0]
        looks_so = flag.startswith("--") or (flag[:1] == "-" and flag[1:2].isalpha())
        if looks_so and flag not in known:
            yield flag
