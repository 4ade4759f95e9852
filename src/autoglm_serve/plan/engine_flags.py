"""The person's own engine flags, as far as they change what a plan weighs; the rest is named as not weighed.

Reads words after `--`. Knows vLLM's spelling and SGLang's where it differs; whether a flag exists at all is
the engine's to say.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

KV_BYTES: Mapping[str, float] = {
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_inc": 1.0,
    "int8": 1.0,
    "nvfp4": 0.5625,
}
"""Bytes of one number in the KV cache by `--kv-cache-dtype`; others are stored in 16 bits."""
_EAGER = frozenset({"--enforce-eager", "--disable-cuda-graph"})
_EXPERTS = frozenset({"--enable-expert-parallel", "-ep", "--enable-ep-moe"})
_HARMLESS = (
    "--seed", "--api-key", "--chat-template", "--served-model-name", "--tokenizer", "--revision",
    "--trust-remote-code", "--tool-call-parser", "--reasoning-parser", "--enable-auto-tool-choice",
    "--uvicorn-log-level", "--api-server-count", "--download-dir", "--load-format", "--generation-config",
    "--disable-log", "--enable-log", "--log-", "--no-enable-log", "--allowed-", "--root-path", "--ssl",
    "--mm-processor-cache", "-cc.pass_config.fuse_allreduce_rms", "--override-generation-config",
)  # fmt: skip
"""Flags that cost neither memory nor time worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """What the flags after `--` say of memory and of how the model is spread."""

    eager: bool = False
    kv_element_bytes: float = 2.0
    expert_parallel: bool = False
    lora_slots: int = 0
    """Adapters held at once; 0 without."""
    lora_rank: int = 16
    not_weighed: tuple[str, ...] = ()
    """Names of the others that may matter."""


def engine_flags(args: Sequence[str]) -> EngineFlags:
    given = dict(_pairs(args))
    kv = given.get("--kv-cache-dtype", "auto")
    lora = "--enable-lora" in given
    weighed = _EAGER | _EXPERTS | {
        "--kv-cache-dtype", "--enable-lora", "--max-loras", "--max-lora-rank", "--lora-modules",
    }  # fmt: skip
    return EngineFlags(
        eager=not _EAGER.isdisjoint(given),
        kv_element_bytes=KV_BYTES.get(kv, 2.0),
        expert_parallel=not _EXPERTS.isdisjoint(given),
        lora_slots=_number(given.get("--max-loras"), 1) if lora else 0,
        lora_rank=_number(given.get("--max-lora-rank"), 16),
        not_weighed=tuple(name for name in given if name not in weighed and not name.startswith(_HARMLESS)),
    )


def _pairs(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag, value) of words like --flag value, --flag=value and --flag; underscores count as dashes."""
    for position, word in enumerate(args):
        if not word.startswith("-") or word.lstrip("-")[:1].isdigit():
            continue
        name, _, value = word.partition("=")
        following = args[position + 1] if position + 1 < len(args) else ""
        yield name.replace("_", "-"), value or ("" if following.startswith("-") else following)


def _number(word: str | None, usual: int) -> int:
    return int(word) if word and word.isascii() and word.isdigit() and len(word) < 7 else usual
