"""SGLang: from a plan to `sglang.launch_server`, from its log to progress, from its exits to causes.

The same shape as `vllm`; asked for with --engine sglang. Starts nothing and reads no file.
"""

import json
import re
import sys

from autoglm_serve.core.engine_traits import EngineTraits
from autoglm_serve.core.fleet import Continuation
from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.plan import Member, Placement, ReplicaSpec
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts, Progress
from autoglm_serve.engines.base import Command, Engine, Listen, Place
from autoglm_serve.engines.log_patterns import Clue, clue, last_words
from autoglm_serve.engines.vllm import environment

NEWEST = "0.5"


class Sglang(Engine):
    """The `Engine` of SGLang."""

    name = option = package = owned_by = "sglang"
    title = "SGLang"
    place = Place.GPUS
    work_metric = re.compile(rb"^sglang:\S*(?:tokens|decode)\S*_total.*$", re.MULTILINE)
    variables = ("SGLANG_", "SGL_")
    continuation = Continuation.FLAGS
    start_timeout_s = 900.0

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        plan = member.plan
        model = member.files.path or member.files.reference
        return Command(
            argv=(
                *(sys.executable, "-m", "sglang.launch_server", "--model-path", str(model)),
                *listen.flags,
                *("--served-model-name", member.name),
                *(("--revision", member.files.revision) if member.files.revision else ()),
                *flags(plan),
                *plan.engine_args,
            ),
            env={name: value for name, value in environment(plan, placement).items() if "VLLM" not in name},
        )

    def traits(self, version: str | None) -> EngineTraits:
        """SGLang sizes its KV pool from a share of the GPU before it runs anything, and profiles nothing."""
        return EngineTraits(
            engine="sglang",
            version=version or NEWEST,
            profiles_encoder=False,
            budgets_graphs=False,
            sampler_bytes_per_logit=6.0,
        )

    def progress(self, line: str) -> Progress | None:
        return next((step for text, step in _STAGES if text in line), None)

    def measured(self, line: str) -> MeasuredLedger | None:
        """What one log line says of the memory taken, if anything."""
        weights = _WEIGHTS.search(line)
        if weights:
            return MeasuredLedger(weights_bytes=int(float(weights[1]) * GIB))
        tokens = _TOKENS.search(line)
        return MeasuredLedger(kv_cache_tokens=int(tokens[1])) if tokens else None

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        return last_words(self.title, _CLUES, facts)


def flags(plan: ReplicaSpec) -> tuple[str, ...]:
    """The flags of a plan; the person's own come after them and so win."""
    settings: dict[str, object] = {
        "--tp-size": plan.tensor_parallel if plan.tensor_parallel > 1 else None,
        "--pp-size": plan.pipeline_parallel if plan.pipeline_parallel > 1 else None,
        "--dtype": None if plan.dtype == "auto" else plan.dtype,
        "--quantization": plan.quantization,
        "--context-length": plan.max_model_len,
        "--max-running-requests": plan.max_num_seqs,
        "--chunked-prefill-size": plan.max_num_batched_tokens,
        "--mem-fraction-static": _static_share(plan),
    }
    words = [part for flag, value in settings.items() if value is not None for part in (flag, str(value))]
    if plan.max_pixels is not None:
        process = {"image": {"max_pixels": plan.max_pixels}}
        words += ["--mm-process-config", json.dumps(process, separators=(",", ":"))]
    if plan.encoder_data_parallel:
        words += ["--mm-enable-dp-encoder"]
    if plan.tensor_parallel > 1 and not plan.peer_access:
        words += ["--disable-custom-all-reduce"]
    return tuple(words)


def _static_share(plan: ReplicaSpec) -> float | None:
    """SGLang's share covers weights and KV cache alone; the plan's covers activations too."""
    if plan.ledger is None:
        return plan.gpu_memory_utilization
    ledger = plan.ledger
    return int(100 * (ledger.weights_bytes + ledger.kv_cache_bytes) / ledger.total_bytes) / 100


_STAGES = (
    ("Load weight begin", Progress(stage="loading the weights", fraction=0.15)),
    ("Load weight end", Progress(stage="making the KV cache", fraction=0.5)),
    ("Capture cuda graph begin", Progress(stage="capturing CUDA graphs", fraction=0.7)),
    ("Capture cuda graph end", Progress(stage="warming up", fraction=0.9)),
    ("The server is fired up and ready to roll", Progress(stage="ready", fraction=1.0)),
)

# A log may hold what clients wrote: whatever matches has to be a number, and no line may take long to search.
_WEIGHTS = re.compile(r"Load weight end.{0,300}?mem usage=(\d{1,6}(?:\.\d{1,6})?) GB")
_TOKENS = re.compile(r"max_total_num_tokens=(\d{1,15})")

_CLUES: tuple[Clue, ...] = (
    clue(
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        ExitCause.OUT_OF_MEMORY,
        "Nothing was left on the GPU for the KV cache.",
        "Lower --max-num-seqs or --max-model-len, or take --quantization fp8.",
    ),
    clue(
        r"CUDA out of memory|OutOfMemoryError",
        ExitCause.OUT_OF_MEMORY,
        "The GPU ran out of memory.",
        "Lower --max-num-seqs, --max-num-batched-tokens or --max-pixels, or take --quantization fp8.",
    ),
    clue(
        r"address already in use",
        ExitCause.PORT_TAKEN,
        "Its port was taken by another program.",
        "It is started again on another port.",
        retryable=True,
    ),
    clue(
        r"No module named '?sglang'?",
        ExitCause.ENGINE_MISSING,
        "SGLang is not installed in this Python environment.",
        "pip install sglang, or choose --engine vllm.",
    ),
    clue(
        r"does not recognize this architecture|Unsupported architectures?",
        ExitCause.MODEL_UNREADABLE,
        "This SGLang, or its transformers, does not know the model's architecture.",
        "pip install --upgrade transformers sglang",
    ),
    clue(
        r"is not a local folder and is not a valid model identifier|Repository Not Found",
        ExitCause.MODEL_NOT_FOUND,
        "The model is not there.",
        "Check --model: a folder with config.json and safetensors, or a repository on the hub.",
    ),
    clue(
        r"launch_server\.py: error: (.+)",
        ExitCause.BAD_FLAG,
        "SGLang does not know one of its flags: {0}.",
        "Check what follows -- on the command line.",
    ),
    clue(
        r"driver version is insufficient|no kernel image is available|libcuda",
        ExitCause.DRIVER,
        "SGLang cannot use the GPU: driver, CUDA libraries and SGLang do not fit together.",
        "Check that nvidia-smi works; update the driver.",
    ),
    clue(
        r"NCCL (?:error|failure)|ncclUnhandled|ncclSystemError",
        ExitCause.COLLECTIVES,
        "The GPUs of one replica lost touch with each other (NCCL).",
        "Run one GPU a replica if the model fits; else set NCCL_DEBUG=INFO and look at the log.",
        retryable=True,
    ),
)
