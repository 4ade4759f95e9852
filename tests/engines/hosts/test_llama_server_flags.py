"""llama-server's flags: each does to the real library's parameters what its name says."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import xllamacpp  # type: ignore[import-untyped,import-not-found,unused-ignore]

from autoglm_serve.engines.hosts.llama_server_flags import FLAGS, add_server_flags, set_server_flags


def parameters(*argv: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_server_flags(parser)
    params = xllamacpp.CommonParams()
    set_server_flags(params, parser.parse_args(argv), xllamacpp)
    return params


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[0])
def test_every_flag_sets_something_that_the_library_has(flag: Any, tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.write_text("{{ messages }}")
    values = {"--chat-template-file": str(template), "--chat-template-kwargs": '{"x": true}'}
    for name in flag.names:
        value = values.get(name, flag.choices[-1] if flag.choices else "2")
        parameters(name, *([] if flag.kind is None else [value]))


def test_what_people_ask_for_most() -> None:
    ggml, pooling = xllamacpp.ggml_type, xllamacpp.llama_pooling_type
    params = parameters(
        *[
            "-ctk",
            "q8_0",
            "--cache-type-v",
            "q4_0",
            "-b",
            "512",
            "-fa",
            "--no-jinja",
            "--temp",
            "0.3",
            "-cram",
            "64",
        ]
    )
    assert (params.cache_type_k, params.cache_type_v) == (ggml.GGML_TYPE_Q8_0, ggml.GGML_TYPE_Q4_0)
    assert (params.n_batch, params.use_jinja, params.cache_ram_mib) == (512, False, 64)
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert params.sampling.temp == pytest.approx(0.3)
    embeds = parameters("--embeddings", "--pooling", "mean")
    assert (embeds.embedding, embeds.pooling_type) == (True, pooling.LLAMA_POOLING_TYPE_MEAN)
    kwargs = json.dumps({"enable_thinking": False})
    assert parameters("--chat-template-kwargs", kwargs).default_template_kwargs


def test_without_them_nothing_changes_and_what_is_none_is_refused() -> None:
    assert parameters().use_jinja is xllamacpp.CommonParams().use_jinja
    for argv in (["-ctk", "q9"], ["-ngl", "99"], ["--pooling", "some"]):
        with pytest.raises((argparse.ArgumentError, SystemExit)):
            parameters(*argv)
