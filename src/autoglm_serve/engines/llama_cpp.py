"""llama.cpp, embedded: the engine for machines without an NVIDIA GPU, and for any GGUF.

Turns a plan into the command line of `llama_cpp_host`, reads llama.cpp's log, and interprets the exits of
both. Starts nothing and reads no file.
"""

import re
import sys
from enum import IntEnum

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.core.model import Feature, ModelFiles, VisionGeometry
from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts, Progress
from autoglm_serve.engines.base import Command, Engine, Listen
from autoglm_serve.engines.log_patterns import clue, killed, telling

DEFAULT_MAX_MODEL_LEN = 16_384
"""Tokens of one request where nobody asks for more: a step of a phone agent (3,400 image tokens, the
history, 3,000 for the answer) with room to spare. A model's own 65,536 would cost gigabytes of KV cache."""
DEFAULT_SLOTS = 4
"""Requests that one replica works on at once."""
PROMPT_CACHE_MIB = 256
"""RAM for prompts whose slot was taken by another; llama.cpp's own default is 8 GiB a process."""
IMAGE_TOKENS = (8, 4096)
"""Bounds of one picture where the plan names none; from llama.cpp's clip.cpp for the glm4v projector."""
GLM4V_MERGE = 2


class HostExit(IntEnum):
    """Exit status of `llama_cpp_host`, beyond 0 (asked to) and 2 (bad flag)."""

    ENGINE_MISSING = 10
    MODEL_NOT_FOUND = 11
    PORT_TAKEN = 12
    LOAD_FAILED = 13


def context_tokens(asked: int | None, own: int | None) -> int:
    """Tokens one request may use: as asked, else the model's own up to the default; never above its own."""
    wanted = asked or min(own or DEFAULT_MAX_MODEL_LEN, DEFAULT_MAX_MODEL_LEN)
    return min(wanted, own) if own else wanted


def vision_geometry(patch_px: int, merge: int | None, image_max_tokens: int | None = None) -> VisionGeometry:
    """How llama.cpp turns a picture into tokens, from the facts of an mmproj file."""
    merged = merge or GLM4V_MERGE
    cell_area = (patch_px * merged) ** 2
    fewest, most = IMAGE_TOKENS
    return VisionGeometry(
        patch_px=patch_px,
        merge=merged,
        min_pixels=fewest * cell_area,
        max_pixels=(image_max_tokens or most) * cell_area,
    )


_SMALLER = "Use a smaller quantisation, fewer replicas, or a lower --max-model-len."
_CLUES = (
    clue(
        r"couldn't bind|address already in use",
        ExitCause.PORT_TAKEN,
        "Its port was taken by another program.",
        "It is started again on another port.",
        retryable=True,
    ),
    clue(
        r"failed to allocate|unable to allocate|cannot allocate memory|std::bad_alloc|out of memory",
        ExitCause.OUT_OF_MEMORY,
        "There was not enough memory to load the model.",
        _SMALLER,
    ),
    clue(
        r"unknown model architecture: '?([\w.-]+)",
        ExitCause.MODEL_UNREADABLE,
        "This version of llama.cpp does not know the model's architecture ({0}).",
        "Update xllamacpp, or choose a model that llama.cpp runs.",
    ),
    clue(
        r"CLIP cannot be used as main model",
        ExitCause.MODEL_UNREADABLE,
        "The file is a vision tower (mmproj), not a model.",
        "Give the model's own GGUF with --model; the mmproj beside it is found by itself.",
    ),
    clue(
        r"failed to load multimodal model, '(.+)'",
        ExitCause.MODEL_UNREADABLE,
        "The vision tower {0} cannot be loaded.",
        "Give the mmproj file that belongs to this model, whole and unchanged.",
    ),
    clue(
        r"failed to open GGUF file '(.+?)'",
        ExitCause.MODEL_NOT_FOUND,
        "The model file {0} cannot be opened.",
        "Check the path and its permissions.",
    ),
    clue(
        r"error: unrecognized arguments: (.+)",
        ExitCause.BAD_FLAG,
        "It does not know {0}.",
        "Check the flags after the bare --, or engine_args in the settings.",
    ),
    clue(
        r"error loading model: (.+)",
        ExitCause.MODEL_UNREADABLE,
        "llama.cpp cannot load the model: {0}.",
        "Download the file again, or convert the model again with a current llama.cpp.",
    ),
)

_WHILE_SERVING = (
    clue(
        r"cannot allocate memory|std::bad_alloc",
        ExitCause.OUT_OF_MEMORY,
        "there was not enough memory for what it was asked.",
        _SMALLER,
        retryable=True,
    ),
)

_BY_STATUS: dict[int, Diagnosis] = {
    0: Diagnosis(cause=ExitCause.ASKED, summary="It was asked to stop."),
    2: Diagnosis(
        cause=ExitCause.BAD_FLAG,
        summary="It does not know one of its flags.",
        remedy="Check the flags after the bare --.",
        retryable=False,
    ),
    HostExit.ENGINE_MISSING: Diagnosis(
        cause=ExitCause.ENGINE_MISSING,
        summary="The llama.cpp engine (package xllamacpp) is not installed or does not load.",
        remedy="pip install xllamacpp; where the log misses libgomp.so.1: apt-get install libgomp1.",
        retryable=False,
    ),
    HostExit.MODEL_NOT_FOUND: Diagnosis(
        cause=ExitCause.MODEL_NOT_FOUND,
        summary="The model file is not there or cannot be read.",
        remedy="Check the path and its permissions.",
        retryable=False,
    ),
    HostExit.PORT_TAKEN: Diagnosis(
        cause=ExitCause.PORT_TAKEN,
        summary="Its port was taken by another program.",
        remedy="It is started again on another port.",
    ),
    HostExit.LOAD_FAILED: Diagnosis(
        cause=ExitCause.MODEL_UNREADABLE,
        summary="llama.cpp could not load the model.",
        remedy="The replica's log has the details.",
        retryable=False,
    ),
}

_STAGES = (
    ("loading model '", Progress(stage="loading the model")),
    ("loaded multimodal model", Progress(stage="starting the server", fraction=0.9)),
    ("listening on ", Progress(stage="ready", fraction=1.0)),
)


def flags(member: Member) -> tuple[str, ...]:
    """What a process that runs llama.cpp has to know of the model and the plan."""
    plan = member.plan
    optional = {
        "--mmproj": member.files.mmproj,
        "--max-model-len": plan.max_model_len,
        "--threads": plan.threads,
        "--image-max-tokens": plan.image_max_tokens,
    }
    return (
        *("--model", str(_model_path(member.files)), "--alias", member.name),
        *("--slots", str(plan.max_num_seqs or DEFAULT_SLOTS)),
        *(part for flag, value in optional.items() if value for part in (flag, str(value))),
    )


class LlamaCpp(Engine):
    """The `Engine` of embedded llama.cpp."""

    name = title = "llama.cpp"
    option: str | None = "llama_cpp"
    package = "xllamacpp"
    owned_by: str | None = "llamacpp"
    work_metric = re.compile(rb"^llamacpp:\S*(?:tokens|decode)\S*_total.*$", re.MULTILINE)
    variables = ("LLAMA_",)
    continuation = Continuation.PREFILL
    undone = Engine.undone | {
        *(Feature.JSON_RESPONSE, Feature.ECHO, Feature.PLAIN_LOGPROBS, Feature.BEST_OF, Feature.SUFFIX),
        Feature.WEBP,  # it decodes with stb_image
    }
    takes_unix = True
    start_timeout_s = 600.0  # a big GGUF on a slow disk says nothing while it loads

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        return Command(
            argv=(
                *(sys.executable, "-m", "autoglm_serve.engines.hosts.llama_cpp_host"),
                *listen.flags,
                *flags(member),
                *member.plan.engine_args,
            )
        )

    def progress(self, line: str) -> Progress | None:
        return next((progress for mark, progress in _STAGES if mark in line), None)

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        by_signal = killed(facts, _SMALLER)
        if by_signal is not None:
            return by_signal
        if facts.was_ready or facts.code in (None, 0):
            return _BY_STATUS[0] if facts.code == 0 else telling(_WHILE_SERVING, facts) or _UNKNOWN
        return telling(_CLUES, facts) or _BY_STATUS.get(facts.code, _UNKNOWN)


_UNKNOWN = Diagnosis(
    cause=ExitCause.UNKNOWN,
    summary="It ended by itself and its log names no cause that is known.",
    remedy="The replica's log has the details.",
)


def _model_path(files: ModelFiles) -> str:
    if files.path is None:
        raise ValueError(f"{files.reference} has no file for llama.cpp to load")
    return str(files.path)
