"""vLLM: a plan becomes `vllm serve`, its log progress and a measured ledger, its exits causes.

Each replica is a server of its own on a unix socket; vLLM's internal data parallelism is not used, so that
one replica's death is one replica's. Starts nothing and reads no file. Checked against the flags and
messages of vLLM 0.19 to 0.33; what differs between them is in `vllm_versions`.
"""

import json
import re
import sys
from dataclasses import replace

from autoglm_serve.core.engine_traits import EngineTraits
from autoglm_serve.core.fleet import Continuation
from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.model import ModelFiles
from autoglm_serve.core.plan import Member, Placement, ReplicaSpec
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts, Progress
from autoglm_serve.engines import vllm_versions
from autoglm_serve.engines.base import Command, Engine, Listen, Place
from autoglm_serve.engines.log_patterns import ASKED, Clue, clue, last_words, telling


class Vllm(Engine):
    """The `Engine` of vLLM."""

    name = option = package = owned_by = "vllm"
    title = "vLLM"
    place = Place.GPUS
    work_metric = re.compile(rb"^vllm:\S*tokens\S*_total.*$", re.MULTILINE)
    variables = ("VLLM_",)
    continuation = Continuation.FLAGS
    takes_unix = True
    start_timeout_s = 900.0  # compiling and capturing say nothing for minutes on a cold cache

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        plan = member.plan
        model = member.files.path or member.files.reference
        return Command(
            argv=(
                *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)),
                *listen.flags,
                *("--served-model-name", *member.names),
                *_revision_flags(member.files),
                *flags(plan),
                *plan.engine_args,
            ),
            env=environment(plan, placement),
        )

    def traits(self, version: str | None) -> EngineTraits:
        return vllm_versions.traits(version)

    def too_old(self, version: str) -> str:
        oldest, newest = vllm_versions.OLDEST, vllm_versions.NEWEST
        if vllm_versions.parse(version) >= oldest:
            return ""
        return f"vllm>={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"

    def holes(self, version: str) -> tuple[str, ...]:
        return vllm_versions.holes(version)

    def progress(self, line: str) -> Progress | None:
        shards = _SHARDS.search(line)
        if shards:
            done = int(shards[1]) / 100
            return Progress(stage="loading the weights", fraction=0.15 + 0.35 * done)
        return next((step for text, step in _STAGES if text in line), None)

    def measured(self, line: str) -> MeasuredLedger | None:
        """What one log line says of the memory taken, if anything."""
        return next((found for read in _READERS if (found := read(line)) is not None), None)

    def warning(self, line: str) -> str | None:
        """A line of the log that a person should see although the engine runs, in our words."""
        return next((words for pattern, words in _WARNINGS if pattern in line), None)

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        """A status of 0 proves nothing: vLLM ends with it when its engine core dies under it, too."""
        if facts.code in (0, None) and facts.was_ready:
            if any(_TOLD_TO_END in line for line in facts.log_tail):
                return ASKED
            found = telling((*_CLUES, _CORE_LOST), facts)
            if found is not None:
                return replace(found, retryable=True)
        found = last_words(self.title, _CLUES, facts)
        return _once_more(found) if _died_compiling(found, facts) else found


# --- plan to command line --------------------------------------------------------------------------------


def flags(plan: ReplicaSpec) -> tuple[str, ...]:
    """The flags of a plan; the person's own come after them and so win."""
    settings: dict[str, object] = {
        "--tensor-parallel-size": plan.tensor_parallel if plan.tensor_parallel > 1 else None,
        "--pipeline-parallel-size": plan.pipeline_parallel if plan.pipeline_parallel > 1 else None,
        "--dtype": None if plan.dtype == "auto" else plan.dtype,
        "--quantization": plan.quantization,
        "--max-model-len": plan.max_model_len,
        "--max-num-seqs": plan.max_num_seqs,
        "--max-num-batched-tokens": plan.max_num_batched_tokens,
        "--gpu-memory-utilization": plan.gpu_memory_utilization,
        "--kv-cache-memory-bytes": plan.kv_cache_memory_bytes,
        "--chat-template-content-format": plan.content_format,
    }
    words = [part for flag, value in settings.items() if value is not None for part in (flag, str(value))]
    own = (*_image_flags(plan), *_parallel_flags(plan), *_END, *_FETCHES_NOTHING)
    return (*words, *own, "--disable-uvicorn-access-log")


_FETCHES_NOTHING = ("--allowed-media-domains", "none.invalid")
"""The gateway fetches what clients name; this is said to vLLM, too."""


def _revision_flags(files: ModelFiles) -> tuple[str, ...]:
    if files.revision is None or files.path is not None:
        return ()
    return ("--revision", files.revision, "--tokenizer-revision", files.revision)


# Told to end by whoever it is, it finishes what it has begun and takes nothing new. Without this 0.26 drops
# its engine and leaves the requests in that without a word while their connections live: agents waited for up
# to 22 s.
_END = ("--shutdown-timeout", "30")  # known since 0.18


def _image_flags(plan: ReplicaSpec) -> tuple[str, ...]:
    if plan.images_per_prompt is None:
        return ()
    # Left to its default, vLLM makes room for a whole video when it starts: gigabytes, and minutes.
    limit = ("--limit-mm-per-prompt", _compact({"image": plan.images_per_prompt, "video": 0}))
    if plan.max_pixels is None:
        return limit
    return (*limit, "--mm-processor-kwargs", _compact({"max_pixels": plan.max_pixels}))


def _parallel_flags(plan: ReplicaSpec) -> tuple[str, ...]:
    if plan.tensor_parallel == 1:
        return ()
    parts = [
        # The fused kernel needs NVLink multicast, and kills the start with an illegal memory access where a
        # host has it switched off. It is worth a few per cent of one request; a start is worth more.
        "-cc.pass_config.fuse_allreduce_rms=false",
    ]
    if plan.images_per_prompt is not None:
        parts += ["--mm-processor-cache-type", "shm"]  # pixels reach the workers through shared memory
    if plan.encoder_data_parallel:
        parts += ["--mm-encoder-tp-mode", "data"]
    if not plan.peer_access:
        parts += ["--disable-custom-all-reduce"]
    return tuple(parts)


def environment(plan: ReplicaSpec, placement: Placement) -> dict[str, str]:
    """What a replica gets beyond our own environment: its GPUs, and no telemetry."""
    env = {"VLLM_NO_USAGE_STATS": "1"}
    if placement.gpus:
        devices = placement.devices or map(str, placement.gpus)
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(devices)}
    if plan.tensor_parallel * plan.pipeline_parallel > 1 and not plan.peer_access:
        env["NCCL_P2P_DISABLE"] = "1"
    if plan.threads:
        env["OMP_NUM_THREADS"] = str(plan.threads)
    return env


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# --- log to progress and ledger --------------------------------------------------------------------------

_SHARDS = re.compile(r"Loading safetensors checkpoint shards:\s{1,9}(\d{1,3})%")

_STAGES = (
    ("Initializing a V1 LLM engine", Progress(stage="starting the engine", fraction=0.05)),
    ("Starting to load model", Progress(stage="loading the weights", fraction=0.15)),
    ("Model loading took", Progress(stage="compiling", fraction=0.5)),
    ("Available KV cache memory", Progress(stage="making the KV cache", fraction=0.75)),
    ("Capturing CUDA graphs", Progress(stage="capturing CUDA graphs", fraction=0.8)),
    # FlashInfer compiles its kernels here on a machine's first start: 95 s without a line.
    ("Graph capturing finished", Progress(stage="warming up", fraction=0.85)),
    ("init engine (profile", Progress(stage="starting the server", fraction=0.95)),
    ("Application startup complete", Progress(stage="ready", fraction=1.0)),
)

# A log may hold what clients wrote: whatever matches has to be a number, and no line may take long to search.
_NUMBER = r"(\d{1,6}(?:\.\d{1,6})?)"
_WEIGHTS = re.compile(rf"Model loading took {_NUMBER} GiB")
_KV_BYTES = re.compile(rf"Available KV cache memory: {_NUMBER} GiB")
_KV_TOKENS = re.compile(r" KV cache size: (\d[\d,]{0,15}) tokens")  # GPU; CPU, in a build for it
_GRAPHS = re.compile(rf"Graph capturing finished in [\d.]+ secs, took {_NUMBER} GiB")
_SUMMARY_OLD = re.compile(
    rf"Actual usage is {_NUMBER} GiB for weight, {_NUMBER} GiB for peak activation, "
    rf"{_NUMBER} GiB for non-torch memory, and {_NUMBER} GiB for CUDAGraph memory"
)
_SUMMARY_NEW = re.compile(  # since 0.27
    rf"Actual usage is {_NUMBER} GiB for consumed memory \(weights \+ non-torch\), "
    rf"{_NUMBER} GiB for peak activation, and {_NUMBER} GiB for CUDAGraph memory"
)


_COMPILES = "Compiling a graph for"
"""Not there where a start finds its graphs compiled. Source: compilation/backends.py of 0.10 to 0.33."""


def _gib(text: str) -> int:
    return int(float(text) * GIB)


def _read_weights(line: str) -> MeasuredLedger | None:
    match = _WEIGHTS.search(line)
    return MeasuredLedger(weights_bytes=_gib(match[1])) if match else None


def _read_kv_bytes(line: str) -> MeasuredLedger | None:
    match = _KV_BYTES.search(line)
    return MeasuredLedger(kv_cache_bytes=_gib(match[1])) if match else None


def _read_kv_tokens(line: str) -> MeasuredLedger | None:
    match = _KV_TOKENS.search(line)
    return MeasuredLedger(kv_cache_tokens=int(match[1].replace(",", ""))) if match else None


def _read_graphs(line: str) -> MeasuredLedger | None:
    match = _GRAPHS.search(line)
    return MeasuredLedger(cuda_graphs_bytes=_gib(match[1])) if match else None


def _read_summary(line: str) -> MeasuredLedger | None:
    old = _SUMMARY_OLD.search(line)
    if old:
        weights, peak, other, graphs = map(_gib, old.groups())
        return MeasuredLedger(
            weights_bytes=weights, peak_activation_bytes=peak, non_torch_bytes=other, cuda_graphs_bytes=graphs
        )
    new = _SUMMARY_NEW.search(line)
    if new:
        consumed, peak, graphs = map(_gib, new.groups())
        return MeasuredLedger(consumed_bytes=consumed, peak_activation_bytes=peak, cuda_graphs_bytes=graphs)
    return None


def _read_compiling(line: str) -> MeasuredLedger | None:
    return MeasuredLedger(compiled=True) if _COMPILES in line else None


_READERS = (_read_summary, _read_weights, _read_kv_bytes, _read_kv_tokens, _read_graphs, _read_compiling)

_WARNINGS = (
    (
        "No available shared memory broadcast block found",
        "vLLM's workers have not answered for a minute: the first start with several GPUs may compile long",
    ),
    (
        "not a valid argument",
        "the image processor ignores an argument: if it is max_pixels, images are larger than planned",
    ),
    (
        "Custom allreduce is disabled",
        "vLLM's fast all-reduce is off here: the GPUs of a replica have no direct link",
    ),
)


# --- exits -----------------------------------------------------------------------------------------------

_STARVED = (
    "To serve at least one request with the model's max seq len",
    "No available memory for the cache blocks",
    "Cannot auto-fit max_model_len",
)


def _died_compiling(found: Diagnosis, facts: ExitFacts) -> bool:
    """The KV cache was too small in a start that compiled: the next one finds the graphs, and more room."""
    if found.cause is not ExitCause.OUT_OF_MEMORY or facts.was_ready or found.retryable:
        return False
    said = facts.log_tail
    return any(_COMPILES in line for line in said) and any(
        words in line for line in said for words in _STARVED
    )


def _once_more(found: Diagnosis) -> Diagnosis:
    return replace(
        found,
        retryable=True,
        summary=f"{found.summary} This start compiled, and vLLM counts the compiler's scratch as if serving "
        "took it.",
        remedy="It is started once more: with the graphs compiled there is more room.",
    )


_LESS = "Lower --max-num-seqs, --max-model-len or --max-pixels, or take --quantization fp8."


_TOLD_TO_END = "[shutdown] API server: shutdown triggered"
_CORE_LOST = clue(
    r"engine core exited unexpectedly|EngineDeadError",
    ExitCause.UNKNOWN,
    "vLLM lost its engine core, the process that has the GPU.",
    "If nobody ended that, the lines of EngineCore in the replica's log, or the kernel's, say why.",
    retryable=True,
)

_CLUES: tuple[Clue, ...] = (
    clue(
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        ExitCause.OUT_OF_MEMORY,
        "Only {0} of {1} GiB are free on the GPU, less than the share that was planned.",
        "Another program holds the rest: end it, or plan again, which uses what is free now.",
    ),
    clue(
        r"CUDA out of memory occurred when warming up sampler with (\d+)",
        ExitCause.OUT_OF_MEMORY,
        "The GPU ran out of memory while the sampler was tried with {0} sequences.",
        "Lower --max-num-seqs: it is the largest lever here.",
    ),
    clue(
        r"the model's max seq len \((\d+)\).*?estimated maximum model length is (\d+)",
        ExitCause.OUT_OF_MEMORY,
        "The KV cache is too small for one request of {0} tokens.",
        "Take --max-model-len {1} or less, or --quantization fp8.",
    ),
    clue(
        r"To serve at least one request with the model's max seq len|"
        r"No available memory for the cache blocks|Cannot auto-fit max_model_len",
        ExitCause.OUT_OF_MEMORY,
        "Nothing was left on the GPU for the KV cache.",
        _LESS,
    ),
    clue(
        r"Error in memory profiling",
        ExitCause.OUT_OF_MEMORY,
        "Another program changed the GPU's memory while vLLM measured it.",
        "It is started again; if it happens every time, give this service GPUs of its own.",
        retryable=True,
    ),
    clue(
        r"(?:torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory)",
        ExitCause.OUT_OF_MEMORY,
        "The GPU ran out of memory.",
        _LESS,
    ),
    clue(
        r"Address already in use|address already in use",
        ExitCause.PORT_TAKEN,
        "Its port was taken by another program.",
        "It is started again on another port.",
        retryable=True,
    ),
    clue(
        r"No module named '?vllm'?",
        ExitCause.ENGINE_MISSING,
        "vLLM is not installed in this Python environment.",
        "pip install vllm, or choose --engine llama_cpp.",
    ),
    clue(
        r"does not recognize this architecture|Transformers does not recognize|"
        r"(?:upgrade|requires|update).{0,40}transformers",
        ExitCause.MODEL_UNREADABLE,
        "The installed transformers is too old for this model.",
        "pip install --upgrade transformers",
    ),
    clue(
        r"Model architectures (\[.*?\]) (?:are not supported|failed to be inspected)",
        ExitCause.MODEL_UNREADABLE,
        "This version of vLLM does not run the architecture {0}.",
        "Update vLLM, or choose another engine.",
    ),
    clue(
        r"Can't load tokenizer|Couldn't instantiate the backend tokenizer|tokenizer.*not found",
        ExitCause.MODEL_NOT_FOUND,
        "The model's tokenizer is not there.",
        "Download the whole model: tokenizer.json and tokenizer_config.json belong to it.",
    ),
    clue(
        r"Repository Not Found|is not a local folder and is not a valid model identifier|"
        r"Invalid repository ID|Cannot find any model weights|couldn't connect to '?https://huggingface\.co",
        ExitCause.MODEL_NOT_FOUND,
        "The model is not there, or its weights are missing.",
        "Check --model: a folder with config.json and safetensors, or a repository on the hub.",
    ),
    clue(
        r"(?:must be divisible by|not divisible by) .*?tensor parallel size|"
        r"attention heads \(\d+\) must be divisible",
        ExitCause.BAD_FLAG,
        "The model cannot be split over this many GPUs.",
        "Leave --tp out, or take one that `autoglm plan` lists as possible.",
    ),
    clue(
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \(\D*(\d+)",
        ExitCause.BAD_FLAG,
        "The model's context ends at {1} tokens; {0} were asked for.",
        "Take --max-model-len {1} or less.",
    ),
    clue(
        r"vllm serve: error: (.+)|error: unrecognized arguments: (.+)",
        ExitCause.BAD_FLAG,
        "vLLM does not know one of its flags: {0}.",
        "Check what follows -- on the command line against `vllm serve --help`.",
    ),
    clue(
        r"driver (?:on your system )?is too old|driver version is insufficient|no kernel image is available",
        ExitCause.DRIVER,
        "The NVIDIA driver is too old for this vLLM, or the GPU is older than it supports.",
        "Update the driver, or install a vLLM built for your CUDA version.",
    ),
    clue(
        r"libcudart|libcuda\.so|undefined symbol|No CUDA GPUs are available|Failed to infer device type",
        ExitCause.DRIVER,
        "vLLM cannot use the GPU: driver, CUDA libraries and vLLM do not fit together.",
        "Check that nvidia-smi works and that vLLM's wheel matches its CUDA version.",
    ),
    clue(
        r"(?:all_?reduce|trtllm|flashinfer|multimem|multicast).*(?:illegal memory access|cuda error)|"
        r"illegal memory access.*(?:all_?reduce|fused)",
        ExitCause.COLLECTIVES,
        "A fused all-reduce failed: NVLink multicast is switched off on this host.",
        "Add -cc.pass_config.fuse_allreduce_rms=false after --, or run one GPU a replica.",
    ),
    clue(
        r"peer access is not supported|P2P test failed|peer mapping",
        ExitCause.COLLECTIVES,
        "The GPUs cannot reach each other directly.",
        "Run one GPU a replica, or set NCCL_P2P_DISABLE=1 and --disable-custom-all-reduce.",
    ),
    clue(
        r"NCCL (?:error|WARN|failure)|ncclUnhandled|ncclSystemError|ncclInternalError",
        ExitCause.COLLECTIVES,
        "The GPUs of one replica lost touch with each other (NCCL).",
        "Run one GPU a replica if the model fits; else set NCCL_DEBUG=INFO and look at the log.",
        retryable=True,
    ),
    clue(
        r"illegal memory access",
        ExitCause.UNKNOWN,
        "A GPU kernel failed (illegal memory access).",
        "With several GPUs a replica, add -cc.pass_config.fuse_allreduce_rms=false after --.",
        retryable=True,
    ),
)
