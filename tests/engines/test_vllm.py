"""vLLM's adapter: command lines, log lines, exits. Lines of real starts are under captured/vllm."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_serve.core.hardware import GIB
from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts
from autoglm_serve.engines import vllm_versions
from autoglm_serve.engines.base import Listen
from autoglm_serve.engines.vllm import Vllm
from tests.fakes.addresses import at

CAPTURED = Path(__file__).parent / "captured"
ENGINE = Vllm()
PLAN = Plan(
    engine="vllm",
    placements=(Placement(gpus=(0,)), Placement(gpus=(1,))),
    max_model_len=25_480,
    max_num_seqs=64,
    max_num_batched_tokens=8192,
    gpu_memory_utilization=0.92,
    images_per_prompt=10,
    content_format="string",
)


def member(plan: Plan = PLAN) -> Member:
    files = ModelFiles(reference="zai-org/AutoGLM-Phone-9B", format=ModelFormat.HUGGING_FACE)
    return Member(names=("autoglm-phone-9b", "phone"), files=files, plan=plan)


def argv(plan: Plan = PLAN, index: int = 0) -> tuple[str, ...]:
    return ENGINE.command(member(plan), plan.placements[index], at(9001)).argv


def value(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


# --- command line ----------------------------------------------------------------------------------------


def test_a_replica_listens_on_this_machine_alone() -> None:
    words = argv()
    assert value(words, "--host") == "127.0.0.1"
    assert value(words, "--port") == "9001"
    assert value(words, "serve") == "zai-org/AutoGLM-Phone-9B"
    assert words[words.index("--served-model-name") + 1 :][:2] == ("autoglm-phone-9b", "phone")


def test_on_a_socket_it_has_no_port() -> None:
    command = ENGINE.command(member(PLAN), Placement(), Listen(path=Path("/run/r0.sock")))
    assert value(command.argv, "--uds") == "/run/r0.sock"
    assert "--port" not in command.argv


def test_it_is_told_to_fetch_nothing() -> None:
    assert value(argv(), "--allowed-media-domains") == "none.invalid"


def test_a_revision_is_handed_on_where_vllm_downloads() -> None:
    asked = member(PLAN)
    pinned = replace(asked, files=replace(asked.files, revision="0123abc"))
    words = ENGINE.command(pinned, Placement(), at(9001)).argv
    assert value(words, "--revision") == value(words, "--tokenizer-revision") == "0123abc"
    assert "--revision" not in argv()


def test_limits_become_flags() -> None:
    words = argv()
    assert value(words, "--max-model-len") == "25480"
    assert value(words, "--max-num-seqs") == "64"
    assert value(words, "--max-num-batched-tokens") == "8192"
    assert value(words, "--gpu-memory-utilization") == "0.92"


def test_video_is_never_profiled() -> None:
    """vLLM's default makes room for 30,000 video tokens at start."""
    assert json.loads(value(argv(), "--limit-mm-per-prompt")) == {"image": 10, "video": 0}


def test_the_content_format_is_pinned_for_templates_that_would_print_python_lists() -> None:
    assert value(argv(), "--chat-template-content-format") == "string"
    assert "--chat-template-content-format" not in argv(replace(PLAN, content_format=None))


def test_max_pixels_goes_to_the_processor() -> None:
    words = argv(replace(PLAN, max_pixels=5_000_000))
    assert json.loads(value(words, "--mm-processor-kwargs")) == {"max_pixels": 5_000_000}


def test_one_gpu_a_replica_has_no_parallel_flags() -> None:
    assert not [word for word in argv() if "parallel" in word or "allreduce" in word]


def test_tensor_parallel_switches_off_what_needs_nvlink_multicast() -> None:
    words = argv(replace(PLAN, tensor_parallel=2, placements=(Placement(gpus=(0, 1)),)))
    assert value(words, "--tensor-parallel-size") == "2"
    assert "-cc.pass_config.fuse_allreduce_rms=false" in words
    assert "--disable-custom-all-reduce" not in words


def test_without_peer_access_it_is_not_tried() -> None:
    plan = replace(PLAN, tensor_parallel=2, placements=(Placement(gpus=(0, 1)),), peer_access=False)
    command = ENGINE.command(member(plan), Placement(), at(1))
    assert "--disable-custom-all-reduce" in command.argv
    assert command.env["NCCL_P2P_DISABLE"] == "1"


def test_a_server_gets_the_threads_that_were_planned_for_its_pictures() -> None:
    """Of the person's own setting the planner has made its number; without one vLLM is left alone."""
    planned = ENGINE.command(member(replace(PLAN, threads=4)), Placement(), at(1))
    assert planned.env["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in ENGINE.command(member(PLAN), Placement(), at(1)).env


def test_whole_images_for_each_gpu() -> None:
    plan = replace(PLAN, tensor_parallel=2, placements=(Placement(gpus=(0, 1)),), encoder_data_parallel=True)
    assert value(argv(plan), "--mm-encoder-tp-mode") == "data"


def test_each_replica_has_its_own_gpus() -> None:
    environments = [ENGINE.command(member(), placement, at(1)).env for placement in PLAN.placements]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in environments] == ["0", "1"]
    probed = replace(
        PLAN,
        placements=(Placement(gpus=(0,), devices=("GPU-a",)), Placement(gpus=(1,), devices=("GPU-b",))),
    )
    assert ENGINE.command(member(probed), probed.placements[1], at(1)).env["CUDA_VISIBLE_DEVICES"] == "GPU-b"


def test_a_person_s_own_flags_come_last() -> None:
    assert argv(replace(PLAN, engine_args=("--seed", "7")))[-2:] == ("--seed", "7")


# --- versions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "encoder", "graphs"),
    [
        ("0.19.0", True, False),
        ("0.22.0", True, True),
        ("0.24.0", True, True),
        ("0.25.1", False, False),
        ("0.26.0", False, False),
        ("0.28.1", True, False),
        ("0.29.0", True, True),
        ("0.33.0", True, True),
        ("0.40.0", True, True),
        ("0.32.0+cpu", True, True),
        (None, True, True),
        ("nonsense", True, True),
    ],
)
def test_what_a_version_counts(version: str | None, encoder: bool, graphs: bool) -> None:
    traits = vllm_versions.traits(version)
    assert (traits.profiles_encoder, traits.budgets_graphs) == (encoder, graphs)


# --- log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("(EngineCore pid=9) INFO 11-22 [core.py:117] Initializing a V1 LLM engine (v0.26.0)", "starting"),
        ("Loading safetensors checkpoint shards:  40% Completed | 2/5", "loading"),
        ("INFO Model loading took 19.24 GiB and 12.1 seconds", "compiling"),
        ("Capturing CUDA graphs (decode, FULL):  10%", "capturing"),
        ("INFO:     Application startup complete.", "ready"),
    ],
)
def test_progress_is_read_from_the_log(line: str, stage: str) -> None:
    progress = ENGINE.progress(line)
    assert progress is not None
    assert progress.stage.startswith(stage)


def test_loading_counts_up() -> None:
    lines = [f"Loading safetensors checkpoint shards: {done:3}% Completed" for done in (0, 50, 100)]
    fractions = [ENGINE.progress(line).fraction or 0 for line in lines]  # type: ignore[union-attr]
    assert fractions == sorted(fractions)


SUMMARY_OLD = (
    "Free memory on device (139.28/139.81 GiB) on startup. Desired GPU memory utilization is (0.9, 125.83). "
    "Actual usage is 19.24 GiB for weight, 0.85 GiB for peak activation, 0.22 GiB for non-torch memory, and "
    "1.06 GiB for CUDAGraph memory. Replace gpu_memory_utilization config with ..."
)
SUMMARY_NEW = (
    "Actual usage is 19.46 GiB for consumed memory (weights + non-torch), 0.85 GiB for peak activation, and "
    "1.06 GiB for CUDAGraph memory."
)


def test_the_measured_ledger_is_put_together_from_the_log() -> None:
    ledger = MeasuredLedger()
    for line in (
        "Model loading took 19.24 GiB and 5.1 seconds",
        "Available KV cache memory: 105.51 GiB",
        "GPU KV cache size: 2,764,987 tokens",
        "Graph capturing finished in 6 secs, took 1.06 GiB",
        "an ordinary line",
        SUMMARY_OLD,
    ):
        ledger = ledger.merged(ENGINE.measured(line) or MeasuredLedger())
    assert ledger.complete
    assert ledger.kv_cache_tokens == 2_764_987
    assert ledger.weights_bytes == int(19.24 * GIB)
    assert ledger.peak_activation_bytes == int(0.85 * GIB)


def test_newer_versions_report_weights_and_libraries_together() -> None:
    said = ENGINE.measured(SUMMARY_NEW)
    assert said is not None
    assert said.consumed_bytes == int(19.46 * GIB)
    assert said.weights_bytes is None


def test_kv_tokens_on_another_device() -> None:
    line = "CPU KV cache size: 2,764,587 tokens, Maximum concurrency for 25,480 tokens per request: 108.50x"
    said = ENGINE.measured(line)
    assert said is not None
    assert said.kv_cache_tokens == 2_764_587


def test_an_ignored_argument_is_a_warning() -> None:
    assert ENGINE.warning("Kwargs passed to processor: max_pixels is not a valid argument and is ignored")
    assert ENGINE.warning("INFO all is well") is None


@pytest.mark.parametrize(
    ("name", "weights_gib", "kv_tokens"),
    [
        ("tp1", 19.26, 2_764_587),
        ("tp1_fp8", 10.88, 2_983_751),
        ("tp2", 9.72, 6_052_387),
        ("pp2", 10.48, 5_997_349),
        ("tp4", 5.0, 6_289_625),
    ],
)
def test_the_log_of_a_real_start_is_read_whole(name: str, weights_gib: float, kv_tokens: int) -> None:
    lines = (CAPTURED / f"vllm_0.26_{name}.log").read_text().splitlines()
    ledger = MeasuredLedger()
    stages = []
    for line in lines:
        ledger = ledger.merged(ENGINE.measured(line) or MeasuredLedger())
        stages += [step] if (step := ENGINE.progress(line)) else []
    assert ledger.complete
    assert ledger.weights_bytes == int(weights_gib * GIB)
    assert ledger.kv_cache_tokens == kv_tokens
    assert stages[-1].fraction == 1.0
    assert [step.fraction for step in stages] == sorted(step.fraction or 0 for step in stages)


def test_a_start_that_went_well_holds_no_clue() -> None:
    for path in CAPTURED.glob("vllm_0.26_*.log"):
        lines = path.read_text().splitlines()
        assert diagnose(*lines).cause is ExitCause.UNKNOWN, path.name


# --- exits -----------------------------------------------------------------------------------------------


def diagnose(
    *lines: str, code: int | None = 1, signal: int | None = None, was_ready: bool = False
) -> Diagnosis:
    return ENGINE.diagnose(ExitFacts(code=code, signal=signal, was_ready=was_ready, log_tail=lines))


EXITS = [line.split("\t", 1) for line in (CAPTURED / "vllm_exits.tsv").read_text().splitlines()]


@pytest.mark.parametrize(("cause", "line"), EXITS)
def test_an_exit_has_a_cause_and_a_remedy(cause: str, line: str) -> None:
    found = diagnose("INFO something", line, "RuntimeError: Engine core initialization failed.")
    assert found.cause is ExitCause[cause]
    assert found.summary
    assert found.remedy


def test_the_length_that_would_fit_is_passed_on() -> None:
    line = (
        "ValueError: To serve at least one request with the model's max seq len (25480), (0.97 GiB KV "
        "cache is needed). Based on the available memory, the estimated maximum model length is 9680."
    )
    assert "--max-model-len 9680" in diagnose(line).remedy


def test_running_out_while_serving_is_worth_a_restart() -> None:
    line = "torch.OutOfMemoryError: CUDA out of memory."
    assert diagnose(line, was_ready=True).retryable
    assert not diagnose(line).retryable


CORE_LOST = (
    "(APIServer pid=8510) WARNING 11-27 21:42:54 [core_client.py:702] [shutdown] MPClient: "
    "engine core exited unexpectedly; starting cleanup"
)
TOLD_TO_END = (
    "(APIServer pid=5824) INFO 11-27 21:41:37 [launcher.py:100] [shutdown] API server: shutdown triggered"
)
DEAD = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."


@pytest.mark.parametrize("code", [0, None])
def test_a_server_that_lost_its_engine_core_was_not_asked_to_stop(code: int | None) -> None:
    for line in (CORE_LOST, DEAD):
        found = diagnose(line, code=code, was_ready=True)
        assert found.cause is ExitCause.UNKNOWN
        assert "lost its engine core" in found.summary
        assert found.retryable
    assert diagnose(TOLD_TO_END, CORE_LOST, DEAD, code=code, was_ready=True).cause is ExitCause.ASKED


def test_what_the_lost_core_itself_said_is_told_first_and_dooms_no_replica() -> None:
    found = diagnose(
        "(EngineCore pid=9) torch.OutOfMemoryError: CUDA out of memory.", DEAD, code=0, was_ready=True
    )
    assert found.cause is ExitCause.OUT_OF_MEMORY
    assert found.retryable
    assert diagnose("RuntimeError: Failed to infer device type", DEAD, code=0, was_ready=True).retryable


def test_whoever_tells_it_to_end_lets_it_finish_what_it_has_begun() -> None:
    assert int(value(argv(), "--shutdown-timeout")) >= 30


def test_an_exit_that_nobody_saw_is_not_called_its_own() -> None:
    assert "by itself" not in diagnose("nothing telling", code=None, was_ready=True).summary
    assert "by itself" in diagnose("nothing telling").summary


def test_signals_and_silence() -> None:
    assert diagnose(code=None, signal=9).cause is ExitCause.KILLED
    assert diagnose(code=0).cause is ExitCause.ASKED
    assert diagnose("nothing telling").cause is ExitCause.UNKNOWN


# --- a start that compiled -------------------------------------------------------------------------------

COMPILED = "INFO [backends.py:394] Compiling a graph for compile range (1, 8192) takes 31.20 s"
STARVED = "ValueError: To serve at least one request with the model's max seq len (25480), 0.97 GiB is needed"


def exit_of(*lines: str, was_ready: bool = False) -> Diagnosis:
    facts = ExitFacts(code=1, signal=None, was_ready=was_ready, log_tail=lines)
    return ENGINE.diagnose(facts)


def test_a_start_that_compiled_and_found_no_room_is_made_once_more() -> None:
    found = exit_of(COMPILED, STARVED)
    assert found.retryable
    assert found.cause is ExitCause.OUT_OF_MEMORY
    assert "This start compiled" in found.summary
    assert "started once more" in found.remedy


def test_a_start_that_found_its_graphs_compiled_is_short_of_memory_for_good() -> None:
    cached = "INFO [backends.py:293] Directly load the compiled graph(s) from the cache, took 1.2 s"
    assert not exit_of(cached, STARVED).retryable


def test_running_out_while_compiling_is_no_shortage_of_the_cache() -> None:
    assert not exit_of(COMPILED, "torch.OutOfMemoryError: CUDA out of memory.").retryable


def test_compiling_is_told_with_the_memory() -> None:
    assert ENGINE.measured(COMPILED) == MeasuredLedger(compiled=True)


def test_a_kv_cache_that_is_known_is_handed_over() -> None:
    assert value(argv(replace(PLAN, kv_cache_memory_bytes=7 * GIB)), "--kv-cache-memory-bytes") == str(
        7 * GIB
    )
    assert "--kv-cache-memory-bytes" not in argv()
