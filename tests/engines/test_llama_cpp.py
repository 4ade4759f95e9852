"""The llama.cpp adapter: command lines, log lines and exits. Log lines are captured from real runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts
from autoglm_serve.engines.llama_cpp import (
    DEFAULT_MAX_MODEL_LEN,
    HostExit,
    LlamaCpp,
    context_tokens,
    vision_geometry,
)
from tests.fakes.addresses import at

ENGINE = LlamaCpp()
FILES = ModelFiles(reference="m", format=ModelFormat.GGUF, path=Path("/m.gguf"), mmproj=Path("/t.gguf"))
PLAN = Plan(engine="llama.cpp", placements=(Placement(),))
MEMBER = Member(names=("phone", "alias"), files=FILES, plan=PLAN)


def flags_of(member: Member) -> dict[str, str]:
    argv = ENGINE.command(member, Placement(), at(4711)).argv
    return dict(zip(argv[3::2], argv[4::2], strict=True))


def diagnosed(
    *lines: str, code: int | None = None, signal: int | None = None, ready: bool = False, oom: int = 0
) -> Diagnosis:
    facts = ExitFacts(code=code, signal=signal, was_ready=ready, log_tail=lines, oom_kills=oom)
    return ENGINE.diagnose(facts)


# --- command


def test_a_bare_plan_names_the_model_its_tower_the_port_and_the_served_name() -> None:
    expected = {
        "--host": "127.0.0.1",
        "--port": "4711",
        "--model": "/m.gguf",
        "--mmproj": "/t.gguf",
        "--alias": "phone",
    }
    assert flags_of(MEMBER) == expected | {"--slots": "4"}


def test_a_full_plan_reaches_the_command_line() -> None:
    plan = replace(MEMBER.plan, max_model_len=8192, max_num_seqs=2, threads=3, image_max_tokens=330)
    flags = flags_of(replace(MEMBER, plan=plan))
    assert flags["--max-model-len"] == "8192"
    assert (flags["--slots"], flags["--threads"], flags["--image-max-tokens"]) == ("2", "3", "330")


def test_the_persons_own_flags_come_last() -> None:
    plan = replace(MEMBER.plan, engine_args=("--grace-s", "1"))
    assert ENGINE.command(replace(MEMBER, plan=plan), Placement(), at(1)).argv[-2:] == ("--grace-s", "1")


def test_a_model_without_a_tower_has_none() -> None:
    assert "--mmproj" not in flags_of(replace(MEMBER, files=replace(FILES, mmproj=None)))


# --- context and pictures


@given(st.none() | st.integers(1, 10**6), st.none() | st.integers(1, 10**6))
def test_context_never_exceeds_what_was_asked_or_what_the_model_has(
    asked: int | None, own: int | None
) -> None:
    tokens = context_tokens(asked, own)
    assert tokens >= 1
    assert own is None or tokens <= own
    assert tokens <= (asked or DEFAULT_MAX_MODEL_LEN)


def test_a_model_with_a_long_context_does_not_get_all_of_it_unasked() -> None:
    assert context_tokens(None, 65_536) == DEFAULT_MAX_MODEL_LEN
    assert context_tokens(25_480, 65_536) == 25_480
    assert context_tokens(None, 4096) == 4096


def test_a_picture_of_a_phone_costs_what_llama_cpp_makes_of_it() -> None:
    assert vision_geometry(14, None).tokens(1080, 2400) == 3354
    assert vision_geometry(14, 2, 330).tokens(1080, 2400) <= 330


# --- log


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("0.00.003.376 I srv    load_model: loading model 'm/vision/model.gguf'", "loading the model"),
        ("0.00.090.532 I srv    load_model: loaded multimodal model, 'mmproj.gguf'", "starting the server"),
        ("0.00.094.331 I srv          init: listening on http://127.0.0.1:8123", "ready"),
    ],
)
def test_progress_is_read_from_its_log(line: str, stage: str) -> None:
    progress = ENGINE.progress(line)
    assert progress is not None
    assert progress.stage == stage


def test_other_lines_say_nothing_of_progress() -> None:
    assert ENGINE.progress("0.00.000.283 I srv          init: initializing ...") is None


# --- exits


TRUNCATED = (
    "0.00.004.716 E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the "
    "file bounds, model is corrupted or incomplete",
    "0.00.005.614 E srv          init: exiting due to model loading error",
    "llama_cpp_host: llama.cpp could not load t2.gguf; its reason is above",
)


@pytest.mark.parametrize(
    ("lines", "code", "cause", "words"),
    [
        (TRUNCATED, HostExit.LOAD_FAILED, ExitCause.MODEL_UNREADABLE, "corrupted or incomplete"),
        (
            ("llama_model_load: error loading model: unknown model architecture: 'glm9'",),
            HostExit.LOAD_FAILED,
            ExitCause.MODEL_UNREADABLE,
            "glm9",
        ),
        (
            ("error loading model: CLIP cannot be used as main model, use it with --mmproj instead",),
            HostExit.LOAD_FAILED,
            ExitCause.MODEL_UNREADABLE,
            "mmproj",
        ),
        (
            (
                "gguf_init_from_file: failed to open GGUF file '/nope'",
                "failed to load multimodal model, '/nope'",
            ),
            HostExit.LOAD_FAILED,
            ExitCause.MODEL_UNREADABLE,
            "vision tower /nope",
        ),
        (
            ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 99",),
            HostExit.LOAD_FAILED,
            ExitCause.OUT_OF_MEMORY,
            "memory",
        ),
        ((), HostExit.ENGINE_MISSING, ExitCause.ENGINE_MISSING, "xllamacpp"),
        ((), HostExit.MODEL_NOT_FOUND, ExitCause.MODEL_NOT_FOUND, "not there"),
        ((), HostExit.LOAD_FAILED, ExitCause.MODEL_UNREADABLE, "could not load"),
        ((), 2, ExitCause.BAD_FLAG, "flags"),
    ],
)
def test_a_start_that_cannot_succeed_is_not_tried_again(
    lines: tuple[str, ...], code: int, cause: ExitCause, words: str
) -> None:
    diagnosis = diagnosed(*lines, code=code)
    assert diagnosis.cause is cause
    assert words in diagnosis.summary
    assert diagnosis.remedy
    assert not diagnosis.retryable


@pytest.mark.parametrize(
    "lines", [(), ("srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8123",)]
)
def test_a_taken_port_is_tried_again_elsewhere(lines: tuple[str, ...]) -> None:
    diagnosis = diagnosed(*lines, code=HostExit.PORT_TAKEN)
    assert (diagnosis.cause, diagnosis.retryable) == (ExitCause.PORT_TAKEN, True)


@pytest.mark.parametrize(
    ("signal", "name"), [(9, "SIGKILL"), (6, "SIGABRT"), (11, "SIGSEGV"), (7, "signal 7")]
)
def test_a_signal_is_named_and_survived(signal: int, name: str) -> None:
    diagnosis = diagnosed(signal=signal)
    assert diagnosis.cause is ExitCause.KILLED
    assert name in diagnosis.summary
    assert diagnosis.retryable


def test_the_kernel_killing_it_for_memory_is_told_apart() -> None:
    assert diagnosed(signal=9, oom=1).cause is ExitCause.OUT_OF_MEMORY
    assert not diagnosed(signal=9, oom=1).retryable
    assert diagnosed(signal=9, oom=1, ready=True).retryable


def test_an_old_line_in_the_log_of_one_that_had_served_explains_nothing() -> None:
    diagnosis = diagnosed("error loading model: x", code=1, ready=True)
    assert (diagnosis.cause, diagnosis.retryable) == (ExitCause.UNKNOWN, True)


def test_one_that_ran_out_of_memory_while_it_served_says_so() -> None:
    diagnosis = diagnosed("cannot allocate memory for thread-local data: ABORT", code=127, ready=True)
    assert (diagnosis.cause, diagnosis.retryable) == (ExitCause.OUT_OF_MEMORY, True)


def test_an_orderly_exit_was_asked_for() -> None:
    assert diagnosed(code=0, ready=True).cause is ExitCause.ASKED


@given(st.integers(1, 255), st.lists(st.text(max_size=60), max_size=5))
def test_every_exit_has_a_diagnosis(code: int, lines: list[str]) -> None:
    assert diagnosed(*lines, code=code).summary
