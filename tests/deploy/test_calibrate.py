"""Calibration: a process that speaks and answers like vLLM is started, measured, ended and remembered."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.config.options import Options
from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.errors import ConfigError, EngineFailed
from autoglm_serve.core.hardware import GIB, GpuSource
from autoglm_serve.core.ledger import Badge, MeasuredLedger, MeasuredSpeed
from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitCause, ReplicaState, ReplicaStatus
from autoglm_serve.core.workload import Workload
from autoglm_serve.deploy import calibrate, planning
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.engines.vllm import Vllm
from autoglm_serve.launch.local import LocalLauncher
from autoglm_serve.plan.calibration import Measurement, refit
from autoglm_serve.plan.choose import Decision
from autoglm_serve.probe import hardware_table, measurements
from tests.plan.worlds import chosen, planned

SPEAKS = """
import sys, http.server, json, socketserver, time
print("Model loading took 19.24 GiB and 5.1 seconds", flush=True)
print("GPU KV cache size: 2,764,987 tokens", flush=True)
print("Actual usage is 19.24 GiB for weight, 0.85 GiB for peak activation, 0.22 GiB for non-torch memory, "
      "and 1.06 GiB for CUDAGraph memory.", flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.end_headers()
        for word in ("a", "b", "c"):
            self.wfile.write(b'data: {"choices": [{"delta": {"content": "x"}}]}\\n\\n'); self.wfile.flush()
        self.wfile.write(b"data: [DONE]\\n\\n")
    def log_message(self, *_): pass
class Server(socketserver.ThreadingUnixStreamServer):
    def get_request(self): return (super().get_request()[0], ("unix", 0))
server = Server(sys.argv[1], Answer)
print("INFO:     Application startup complete.", flush=True)
server.serve_forever()
"""

FAILS = "print('torch.OutOfMemoryError: CUDA out of memory.', flush=True); raise SystemExit(1)"


class Pretender(Vllm):
    """vLLM's log and answers from a few lines of Python."""

    def __init__(self, program: str) -> None:
        self._program = program

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        return Command(argv=(sys.executable, "-c", self._program, str(listen.path)))


def decision() -> Decision:
    made = planned("h200")
    return replace(made, hardware=replace(made.hardware, source=GpuSource.PROBE, driver="580.1"))


@pytest.mark.process
def test_a_start_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    member = planning.member(decision(), Options())
    ledger, speed = asyncio.run(
        calibrate.measure(
            member,
            Pretender(SPEAKS),
            LocalLauncher(tmp_path),
            Workload(image_width_px=56, image_height_px=56, output_tokens=3),
            ask=calibrate.ask_once,
        )
    )
    assert ledger.kv_cache_tokens == 2_764_987
    assert speed.ttft_s > 0
    assert speed.tpot_s >= 0


COMPILES_FIRST = """
import pathlib, sys
seen = pathlib.Path({marker!r})
if not seen.exists():
    seen.touch()
    print("Compiling a graph for compile range (1, 8192) takes 31.20 s", flush=True)
"""


@pytest.mark.process
def test_a_start_that_compiled_is_measured_once_more(tmp_path: Path) -> None:
    member = planning.member(decision(), Options())
    program = COMPILES_FIRST.replace("{marker!r}", repr(str(tmp_path / "seen"))) + SPEAKS
    stages: list[str] = []
    ledger, _ = asyncio.run(
        calibrate.measure(
            member,
            Pretender(program),
            LocalLauncher(tmp_path),
            Workload(image_width_px=56, image_height_px=56, output_tokens=3),
            ask=calibrate.ask_once,
            on_progress=lambda step: stages.append(step.stage),
        )
    )
    assert ledger.compiled is None
    assert stages.count("ready") == 2


@pytest.mark.process
def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    member = planning.member(decision(), Options())
    measured = calibrate.measure(
        member, Pretender(FAILS), LocalLauncher(tmp_path), Workload(), ask=calibrate.ask_once
    )
    with pytest.raises(EngineFailed, match="ran out of memory"):
        asyncio.run(measured)


def test_what_was_measured_is_used_by_the_next_plan(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    made = decision()
    said = MeasuredLedger(
        weights_bytes=20 * GIB,
        peak_activation_bytes=2 * GIB,
        non_torch_bytes=GIB // 2,
        cuda_graphs_bytes=3 * GIB,
        kv_cache_bytes=100 * GIB,
        kv_cache_tokens=2_700_000,
    )
    kept = planning.remember(made, said, MeasuredSpeed(ttft_s=0.9, tpot_s=0.02), environ)
    assert kept is not None
    constants = planning.constants(made.hardware, made.traits, made.facts, environ)
    assert constants.badge is Badge.CALIBRATED
    again = chosen(planned(made.hardware, constants=constants))
    assert again.ledger is not None
    assert again.predicted is not None
    assert again.ledger.peak_activation_bytes == pytest.approx(2 * GIB, rel=0.03)
    assert again.ledger.cuda_graphs_bytes == pytest.approx(3 * GIB, rel=0.03)
    assert again.ledger.non_torch_bytes == GIB // 2
    assert again.predicted.single_tpot_s == pytest.approx(0.02, rel=0.03)
    assert again.predicted.single_ttft_s == pytest.approx(0.9, rel=0.05)


def test_another_driver_or_model_is_another_subject(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    made = decision()
    ledger = MeasuredLedger(peak_activation_bytes=GIB, kv_cache_tokens=1)
    assert planning.remember(made, ledger, None, environ)
    other = replace(made.hardware, driver="999")
    plain = planning.constants(other, made.traits, made.facts, {"HOME": str(tmp_path / "empty")})
    assert planning.constants(other, made.traits, made.facts, environ) == plain


def test_a_plan_on_paper_and_half_a_log_are_not_remembered(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    whole = MeasuredLedger(peak_activation_bytes=GIB, kv_cache_tokens=1)
    assert planning.remember(planned("h200"), whole, None, environ) is None
    assert planning.remember(decision(), MeasuredLedger(weights_bytes=1), None, environ) is None


WHOLE = MeasuredLedger(peak_activation_bytes=2 * GIB, kv_cache_tokens=1)


def reporting(memory: MeasuredLedger | None, **facts: Any) -> ReplicaStatus:
    known: dict[str, Any] = {"state": ReplicaState.READY} | facts
    return ReplicaStatus(id="r0", slot=0, model="phone", engine="vllm", memory=memory, **known)


def test_what_a_service_s_replica_reports_is_used_by_the_next_plan(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    made = decision()
    member = planning.member(made, Options(served_model_name=("phone",)))
    ledgers = calibrate.Ledgers(environ)
    ledgers.see([member], [reporting(None), reporting(WHOLE)])
    constants = planning.constants(made.hardware, made.traits, made.facts, environ)
    again = chosen(planned(made.hardware, constants=constants))
    assert again.ledger is not None
    assert again.ledger.badge is Badge.CALIBRATED
    assert again.ledger.peak_activation_bytes == pytest.approx(2 * GIB, rel=0.03)


@pytest.mark.parametrize(
    "status",
    [
        reporting(WHOLE, state=ReplicaState.STARTING),
        reporting(WHOLE, last_exit=Diagnosis(cause=ExitCause.OUT_OF_MEMORY, summary="it ran out")),
        reporting(MeasuredLedger(weights_bytes=1)),
        replace(reporting(WHOLE), model="another"),
    ],
    ids=["not ready yet", "perhaps with less than planned", "half a log", "not a model of ours"],
)
def test_a_service_keeps_only_what_was_planned_and_reported_whole(
    tmp_path: Path, status: ReplicaStatus
) -> None:
    member = planning.member(decision(), Options(served_model_name=("phone",)))
    calibrate.Ledgers({"HOME": str(tmp_path)}).see([member], [status])
    assert not list(tmp_path.rglob("*.json"))


def test_a_service_keeps_what_it_reads_once(tmp_path: Path) -> None:
    member = planning.member(decision(), Options(served_model_name=("phone",)))
    ledgers = calibrate.Ledgers({"HOME": str(tmp_path)})
    ledgers.see([member], [reporting(WHOLE)])
    (kept,) = tmp_path.rglob("*.json")
    kept.unlink()
    ledgers.see([member], [reporting(WHOLE)])
    assert not kept.exists()


def test_a_folder_that_takes_nothing_is_said_after_a_measurement(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="could not be kept"):
        planning.remember(decision(), WHOLE, None, {"XDG_DATA_HOME": str(tmp_path / "file")})


def test_a_disk_that_takes_nothing_stops_no_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".local").write_text("a file where a folder should be")
    member = planning.member(decision(), Options(served_model_name=("phone",)))
    calibrate.Ledgers({"HOME": str(tmp_path)}).see([member], [reporting(WHOLE)])
    assert "could not be kept" in caplog.text


def test_a_member_planned_on_paper_expects_nothing(tmp_path: Path) -> None:
    member = planning.member(planned("h200"), Options(served_model_name=("phone",)))
    assert member.expected is None
    calibrate.Ledgers({"HOME": str(tmp_path)}).see([member], [reporting(WHOLE)])
    assert not list(tmp_path.rglob("*.json"))


def test_memory_alone_leaves_the_speed_that_was_measured_before(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    made = decision()
    planning.remember(made, WHOLE, MeasuredSpeed(ttft_s=0.9, tpot_s=0.02), environ)
    planning.remember(made, replace(WHOLE, peak_activation_bytes=3 * GIB), None, environ)
    (kept,) = measurements.load(measurements.folder(environ))
    assert kept.measured.peak_activation_bytes == 3 * GIB
    assert kept.measured_speed == MeasuredSpeed(ttft_s=0.9, tpot_s=0.02)


def test_a_broken_file_counts_as_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"format": 99}')
    (tmp_path / "c.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d.json").mkdir()
    os.mkfifo(tmp_path / "e.json")
    assert measurements.load(tmp_path) == ()


@pytest.mark.parametrize("text", ["null", "[]", "7", "{}", "[" * 100_000])
def test_what_is_no_measurement_counts_as_not_there(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert measurements.load(tmp_path) == ()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("measured", "peak_activation_bytes", "a lot"),
        ("measured", "non_torch_bytes", -(2**40)),
        ("measured", "cuda_graphs_bytes", [1]),
        ("predicted", "peak_activation_bytes", float("nan")),
        ("predicted_speed", "single_tpot_s", 0),
        ("measured_speed", "tpot_s", 0.0),
        ("measured_speed", "ttft_s", float("inf")),
    ],
)
def test_a_figure_that_means_nothing_is_not_planned_with(
    tmp_path: Path, part: str, name: str, value: object
) -> None:
    path = measurements.save(tmp_path, measurement())
    raw = json.loads(path.read_text())
    raw[part][name] = value
    path.write_text(json.dumps(raw))
    assert measurements.load(tmp_path) == ()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_file_cut_short_counts_as_not_there(tmp_path: Path, share: float) -> None:
    path = measurements.save(tmp_path, measurement())
    os.truncate(path, int(share * path.stat().st_size))
    assert measurements.load(tmp_path) == ()


def measurement() -> Measurement:
    made = decision()
    plan = chosen(made)
    assert plan.ledger is not None
    return Measurement(
        subject=planning.subject(made.hardware, made.traits, made.facts),
        gpus_per_replica=1,
        predicted=plan.ledger,
        measured=MeasuredLedger(weights_bytes=5),
        predicted_speed=plan.predicted,
        measured_speed=MeasuredSpeed(ttft_s=1.0, tpot_s=0.1),
    )


def test_measurements_survive_the_disk(tmp_path: Path) -> None:
    kept = measurement()
    measurements.save(tmp_path, kept)
    assert measurements.load(tmp_path) == (kept,)


def test_fitting_twice_is_fitting_once() -> None:
    plan = chosen(planned("h200"))
    assert plan.ledger is not None
    kept = Measurement(
        subject=planning.subject(
            hardware_table.hardware("h200"), planned("h200").traits, planned("h200").facts
        ),
        gpus_per_replica=1,
        predicted=plan.ledger,
        measured=MeasuredLedger(cuda_graphs_bytes=GIB, peak_activation_bytes=GIB, kv_cache_tokens=1),
    )
    assert refit(Constants(), [kept, kept]) == refit(Constants(), [kept])
