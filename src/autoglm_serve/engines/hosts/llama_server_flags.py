"""llama-server's own flags, as people write them after a bare `--`: what each sets in llama.cpp's parameters.

Names are from llama-server's README. Those that the service decides itself (address, model, context, slots,
keys) are not here and are refused by the parser, as are those that reach files or the network.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlag:
    """One flag, and what it does to the parameters; `library` is the module xllamacpp."""

    names: tuple[str, ...]
    sets: Callable[[Any, Any, Any], None]
    """Called with the parameters, the value and the library."""
    kind: Callable[[str], Any] | None = None
    """How its value is read; None for a switch."""
    choices: tuple[str, ...] | None = None
    default: str | None = None
    """What it means without a value; where there is none, it needs one."""

    @property
    def place(self) -> str:
        return "llama " + self.names[0]


def _to(*path: str, of: Any = None) -> Callable[[Any, Any, Any], None]:
    """Sets what lies there, to the value or to `of`."""

    def sets(params: Any, value: Any, library: Any) -> None:
        for step in path[:-1]:
            params = getattr(params, step)
        setattr(params, path[-1], value if of is None else of)

    return sets


def _named(field: str, kind: str, prefix: str) -> Callable[[Any, Any, Any], None]:
    """Sets one of an enumeration's values, by the last part of its name."""

    def sets(params: Any, value: Any, library: Any) -> None:
        setattr(params, field, getattr(getattr(library, kind), prefix + str(value).upper()))

    return sets


def _ranks(params: Any, value: Any, library: Any) -> None:
    params.embedding = True
    params.pooling_type = library.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _load_mode(name: str) -> Callable[[Any, Any, Any], None]:
    return lambda params, value, library: setattr(
        params, "load_mode", getattr(library.llama_load_mode, f"LLAMA_LOAD_MODE_{name}")
    )


def _flash(params: Any, value: Any, library: Any) -> None:
    states = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
    params.flash_attn_type = getattr(library.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{states[value]}")


def _template(text: str) -> str:
    return Path(text).read_text(encoding="utf-8")


def _template_values(text: str) -> dict[str, str]:
    """llama.cpp keeps each as JSON."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    return {name: json.dumps(value) for name, value in values.items()}


_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_CACHE = {"kind": str, "choices": _CACHE_TYPES}


def _flag(*names: str, sets: Callable[[Any, Any, Any], None], **how: Any) -> ServerFlag:
    return ServerFlag(names=names, sets=sets, **how)


FLAGS: tuple[ServerFlag, ...] = (
    _flag("--jinja", sets=_to("use_jinja", of=True)),
    _flag("--no-jinja", sets=_to("use_jinja", of=False)),
    _flag("--chat-template", sets=_to("chat_template"), kind=str),
    _flag("--chat-template-file", sets=_to("chat_template"), kind=_template),
    _flag("--chat-template-kwargs", sets=_to("default_template_kwargs"), kind=_template_values),
    _flag(
        "--reasoning-format",
        sets=_named("reasoning_format", "common_reasoning_format", "COMMON_REASONING_FORMAT_"),
        kind=str,
        choices=("none", "auto", "deepseek"),
    ),
    _flag("--embeddings", "--embedding", sets=_to("embedding", of=True)),
    _flag(
        "--pooling",
        sets=_named("pooling_type", "llama_pooling_type", "LLAMA_POOLING_TYPE_"),
        kind=str,
        choices=("none", "mean", "cls", "last", "rank"),
    ),
    _flag("--reranking", "--rerank", sets=_ranks),
    _flag("--cache-type-k", "-ctk", sets=_named("cache_type_k", "ggml_type", "GGML_TYPE_"), **_CACHE),
    _flag("--cache-type-v", "-ctv", sets=_named("cache_type_v", "ggml_type", "GGML_TYPE_"), **_CACHE),
    _flag("--cache-ram", "-cram", sets=_to("cache_ram_mib"), kind=int),
    _flag("--cache-reuse", sets=_to("n_cache_reuse"), kind=int),
    _flag("--cache-prompt", sets=_to("cache_prompt", of=True)),
    _flag("--no-cache-prompt", sets=_to("cache_prompt", of=False)),
    _flag("--slot-prompt-similarity", "-sps", sets=_to("slot_prompt_similarity"), kind=float),
    _flag("--batch-size", "-b", sets=_to("n_batch"), kind=int),
    _flag("--ubatch-size", "-ub", sets=_to("n_ubatch"), kind=int),
    _flag("--threads-batch", "-tb", sets=_to("cpuparams_batch", "n_threads"), kind=int),
    _flag("--cont-batching", "-cb", sets=_to("cont_batching", of=True)),
    _flag("--no-cont-batching", "-nocb", sets=_to("cont_batching", of=False)),
    _flag("--flash-attn", "-fa", sets=_flash, kind=str, choices=("on", "off", "auto"), default="on"),
    _flag("--mlock", sets=_load_mode("MMAP_MLOCK")),
    _flag("--no-mmap", sets=_load_mode("NONE")),
    _flag(
        "--numa",
        sets=_named("numa", "ggml_numa_strategy", "GGML_NUMA_STRATEGY_"),
        kind=str,
        choices=("distribute", "isolate", "numactl"),
    ),
    _flag(
        "--rope-scaling",
        sets=_named("rope_scaling_type", "llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_"),
        kind=str,
        choices=("none", "linear", "yarn"),
    ),
    _flag("--rope-freq-base", sets=_to("rope_freq_base"), kind=float),
    _flag("--rope-freq-scale", sets=_to("rope_freq_scale"), kind=float),
    _flag("--yarn-orig-ctx", sets=_to("yarn_orig_ctx"), kind=int),
    _flag("--swa-full", sets=_to("swa_full", of=True)),
    _flag("--kv-unified", "-kvu", sets=_to("kv_unified", of=True)),
    _flag("--context-shift", sets=_to("ctx_shift", of=True)),
    _flag("--no-context-shift", sets=_to("ctx_shift", of=False)),
    _flag("--check-tensors", sets=_to("check_tensors", of=True)),
    _flag("--no-warmup", sets=_to("warmup", of=False)),
    _flag("--image-min-tokens", sets=_to("image_min_tokens"), kind=int),
    _flag("--n-predict", "--predict", "-n", sets=_to("n_predict"), kind=int),
    _flag("--keep", sets=_to("n_keep"), kind=int),
    _flag("--seed", "-s", sets=_to("sampling", "seed"), kind=int),
    _flag("--temp", sets=_to("sampling", "temp"), kind=float),
    _flag("--top-k", sets=_to("sampling", "top_k"), kind=int),
    _flag("--top-p", sets=_to("sampling", "top_p"), kind=float),
    _flag("--min-p", sets=_to("sampling", "min_p"), kind=float),
    _flag("--repeat-penalty", sets=_to("sampling", "penalty_repeat"), kind=float),
    _flag("--repeat-last-n", sets=_to("sampling", "penalty_last_n"), kind=int),
    _flag("--presence-penalty", sets=_to("sampling", "penalty_present"), kind=float),
    _flag("--frequency-penalty", sets=_to("sampling", "penalty_freq"), kind=float),
)


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("llama-server's own")
    for flag in FLAGS:
        if flag.kind is None:
            group.add_argument(*flag.names, dest=flag.place, action="store_true")
            continue
        group.add_argument(
            *flag.names,
            dest=flag.place,
            type=flag.kind,
            choices=flag.choices,
            nargs="?" if flag.default else None,
            const=flag.default,
        )


def set_server_flags(params: Any, settings: argparse.Namespace, library: Any) -> None:
    """What was asked for; everything else stays as it is."""
    given = vars(settings)
    for flag in FLAGS:
        value = given.get(flag.place)
        if value is not None and value is not False:
            flag.sets(params, value, library)
