"""Start planned engines on real GPUs, and put what they say of their memory and speed beside the prediction.

Every run is a plan with its limits pinned, turned into a command by the engine's adapter, started with dummy
weights, read through the adapter's log parser and put under the agent load. Runs are packed onto the
GPUs, several at a time. Results are written after each run, so that a broken-off session keeps what it has.

usage: measure.py --model FOLDER --runs RUNS.json --out FOLDER [--deadline SECONDS]
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoglm_serve.core.codec import to_json
from autoglm_serve.core.engine_traits import Constants
from autoglm_serve.core.hardware import GIB, Hardware
from autoglm_serve.core.ledger import TERMS, MeasuredLedger
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Member, Plan
from autoglm_serve.core.replica import ExitFacts
from autoglm_serve.core.workload import Workload
from autoglm_serve.engines import vllm_versions
from autoglm_serve.engines.base import Command, Listen
from autoglm_serve.engines.vllm import Vllm
from autoglm_serve.plan.calibration import SHIPPED
from autoglm_serve.plan.choose import decide
from autoglm_serve.plan.cost import image_tokens
from autoglm_serve.plan.request import Pins, PlanRequest
from autoglm_serve.probe import gpus, hardware_table, model_facts
from autoglm_serve.probe.packages import installed

NAME = "autoglm-phone-9b"
LOAD = Path(__file__).with_name("agent_load.py")
TAIL_LINES = 400
STEPS_ALONE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One engine to measure, and the loads to put on it."""

    name: str
    tp: int = 1
    pp: int = 1
    quantization: str | None = None
    max_model_len: int = 25_480
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 8192
    gpu_memory_utilization: float = 0.9
    max_pixels: int | None = None
    extra: tuple[str, ...] = ()
    loads: tuple[tuple[int, float], ...] = ()
    """(sessions, seconds of the figures); one session alone does five steps instead."""

    @property
    def gpus(self) -> int:
        return self.tp * self.pp


class Board:
    """Which GPUs are free. Runs take theirs in the order in which they were listed."""

    def __init__(self, count: int) -> None:
        self._free = set(range(count))
        self._turn = 0
        self._changed = threading.Condition()

    def take(self, number: int, count: int, until: float) -> tuple[int, ...] | None:
        """Wait for this run's turn and for `count` GPUs; None once it is too late."""
        with self._changed:
            while self._turn != number or len(self._free) < count:
                if not self._changed.wait(timeout=max(0.0, until - time.monotonic())):
                    self._turn += 1
                    self._changed.notify_all()
                    return None
            taken = tuple(sorted(self._free)[:count])
            self._free -= set(taken)
            self._turn += 1
            self._changed.notify_all()
            return taken

    def give(self, taken: tuple[int, ...]) -> None:
        with self._changed:
            self._free |= set(taken)
            self._changed.notify_all()


class Measuring:
    """All runs of one session, and their results."""

    def __init__(self, args: argparse.Namespace, runs: list[Run]) -> None:
        self.args, self.runs = args, runs
        self.out = Path(args.out)
        self.until = time.monotonic() + args.deadline
        self.hardware = hardware(args.hardware)
        self.facts = model_facts.from_folder(Path(args.model), "zai-org/AutoGLM-Phone-9B")
        self.traits = vllm_versions.traits(installed("vllm"))
        self.board = Board(len(self.hardware.gpus))
        self.results: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._one, args=(number, run)) for number, run in enumerate(self.runs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def hurry(self) -> None:
        """No time is left: engines end, results are written."""
        self.until = 0.0

    def _one(self, number: int, run: Run) -> None:
        taken = self.board.take(number, run.gpus, self.until - self.args.least)
        if taken is None:
            self._keep({"run": asdict(run), "skipped": "no time was left"})
            return
        try:
            self._keep(Engine(self, run, taken).measure())
        finally:
            self.board.give(taken)

    def _keep(self, result: dict[str, Any]) -> None:
        with self.lock:
            self.results.append(result)
            (self.out / "results.json").write_text(json.dumps(self.results, indent=1))


class Engine:
    """One run: the process, its log, its loads."""

    def __init__(self, session: Measuring, run: Run, taken: tuple[int, ...]) -> None:
        self.session, self.run, self.taken = session, run, taken
        self.adapter = Vllm()
        self.plan = planned(run, session, taken)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.measured = MeasuredLedger()
        self.log: list[str] = []
        self.ready = threading.Event()
        self.ended = threading.Event()

    def measure(self) -> dict[str, Any]:
        files = ModelFiles(
            reference="stand-in", format=ModelFormat.HUGGING_FACE, path=Path(self.session.args.model)
        )
        member = Member(names=(NAME,), files=files, plan=self.plan)
        listen = Listen(host="127.0.0.1", port=self.port)
        command = self.adapter.command(member, self.plan.placements[0], listen)
        begun = time.monotonic()
        process = self._start(command)
        reader = threading.Thread(target=self._follow, args=(process,))
        reader.start()
        while not self.ready.wait(0.2) and not self.ended.is_set() and time.monotonic() < self.session.until:
            pass
        start_s = time.monotonic() - begun
        loads = self._loads() if self.ready.is_set() else []
        code = process.poll()
        stop(process)
        reader.join()
        (self.session.out / f"{self.run.name}.log").write_text("\n".join(self.log) + "\n")
        return {
            "run": asdict(self.run),
            "gpus": self.taken,
            "version": self.session.traits.version,
            "start_s": round(start_s, 1),
            "ready": self.ready.is_set(),
            "diagnosis": None if self.ready.is_set() else self._diagnosis(code),
            "predicted": asdict(self.plan.ledger) if self.plan.ledger else None,
            "measured": asdict(self.measured),
            "loads": loads,
        }

    def _start(self, command: Command) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command.argv,
            env=os.environ | dict(command.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            if len(self.log) < 4000:
                self.log.append(text)
            said = self.adapter.measured(text)
            if said is not None:
                self.measured = self.measured.merged(said)
            if "Application startup complete" in text:
                self.ready.set()
        self.ended.set()

    def _diagnosis(self, code: int | None) -> str:
        tail = tuple(self.log[-TAIL_LINES:])
        found = self.adapter.diagnose(ExitFacts(code=code, signal=None, was_ready=False, log_tail=tail))
        return f"{found.cause}: {found.summary}"

    def _loads(self) -> list[dict[str, Any]]:
        warm_up(self.url)
        done = []
        for number, (sessions, seconds) in enumerate(self.run.loads):
            if time.monotonic() + seconds > self.session.until or self.ended.is_set():
                break
            trace = self.session.out / f"{self.run.name}-{sessions}.jsonl"
            expected = planned(self.run, self.session, self.taken, Workload(sessions=sessions)).predicted
            assert expected is not None
            before = counters(self.url)
            found = load(self.url, sessions, seconds, expected.steps_per_s, seed=number + 1, trace=trace)
            engine = difference(before, counters(self.url))
            done.append({**found, "engine": engine, "predicted": self._predicted(sessions, found)})
        return done

    def _predicted(self, sessions: int, found: dict[str, Any]) -> dict[str, Any] | None:
        """What this plan was expected to do under the load as it really was."""
        if not found.get("prompt_tokens"):
            return None
        image = image_tokens(self.session.facts, Workload(), self.run.max_pixels)
        workload = Workload(
            sessions=sessions,
            shared_tokens=found["cached_tokens"],
            fresh_tokens=max(0, found["prompt_tokens"] - found["cached_tokens"] - image),
        )
        plan = planned(self.run, self.session, self.taken, workload)
        return asdict(plan.predicted) if plan.predicted else None


def hardware(rehearsal: str | None) -> Hardware:
    """The GPUs here; or, to rehearse the session where there are none, those of the table."""
    if rehearsal:
        return hardware_table.hardware(rehearsal)
    return gpus.hardware(gpus.read(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def planned(run: Run, session: Measuring, taken: tuple[int, ...], workload: Workload | None = None) -> Plan:
    """The plan with everything pinned, on exactly these GPUs."""
    pins = Pins(
        tensor_parallel=run.tp,
        pipeline_parallel=run.pp,
        replicas=1,
        gpus=taken,
        quantization=run.quantization,
        max_model_len=run.max_model_len,
        max_num_seqs=run.max_num_seqs,
        max_num_batched_tokens=run.max_num_batched_tokens,
        gpu_memory_utilization=run.gpu_memory_utilization,
        max_pixels=run.max_pixels,
        engine_args=("--load-format", "dummy", "--enable-prompt-tokens-details", *run.extra),
    )
    constants = SHIPPED.get(session.hardware.gpus[0].spec.key, Constants())
    request = PlanRequest(pins=pins, workload=workload or Workload(sessions=16))
    decision = decide(session.facts, session.hardware, request, session.traits, constants)
    if decision.chosen is None:
        raise SystemExit(f"{run.name}: {decision.problem}")
    return decision.chosen


def load(
    url: str, sessions: int, seconds: float, steps_per_s: float, *, seed: int, trace: Path | None = None
) -> dict[str, Any]:
    """The agents' load: they begin over the time that each is expected to take for one step."""
    alone = sessions == 1
    spread = 0.0 if alone else min(sessions / steps_per_s, 1.5 * seconds)
    limit = 60.0 if alone else spread + seconds
    words = [sys.executable, str(LOAD), "--url", url, "--model", NAME, "--sessions", str(sessions)]
    words += ["--spread", f"{spread:.2f}", "--seconds", f"{limit:.2f}", "--seed", str(seed)]
    words += ["--steps", str(STEPS_ALONE)] if alone else []
    words += ["--trace", str(trace)] if trace else []
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=limit + 30, check=True)
        answer: dict[str, Any] = json.loads(found.stdout)
    except subprocess.CalledProcessError as error:
        return {"sessions": sessions, "error": str(error.stderr)[-300:]}
    except (subprocess.SubprocessError, ValueError) as error:
        return {"sessions": sessions, "error": str(error)[:300]}
    return answer


def warm_up(url: str) -> None:
    """Two short steps of two sessions, which no figure is of: kernels are compiled on their first use."""
    words = [sys.executable, str(LOAD), "--url", url, "--model", NAME, "--sessions", "2", "--steps", "1"]
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run([*words, "--output-tokens", "16"], capture_output=True, timeout=60, check=False)


COUNTED = (
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:time_to_first_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:iteration_tokens_total",
    "vllm:prefix_cache_hits",
    "vllm:prefix_cache_queries",
    "vllm:mm_cache_hits",
    "vllm:mm_cache_queries",
)
"""The engine's own sums and counts, by which the time of host, queue and passes is told apart."""


def counters(url: str) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name = line.split("{")[0]
        if name.startswith(COUNTED) and not name.endswith(("_bucket", "_created")):
            found[name.removeprefix("vllm:")] = float(line.rsplit(" ", 1)[1])
    return found


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: round(value - before.get(name, 0.0), 4) for name, value in after.items()}


def stop(process: subprocess.Popen[str]) -> None:
    """End the engine and everything it started; each has the session of its own."""
    for sent, patience_s in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, sent)
            process.wait(patience_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    if process.stdout is not None and process.poll() is None:
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def table(results: list[dict[str, Any]]) -> str:
    """Predicted beside measured, one line a run and term."""
    lines = [f"{'run':<26}{'term':<17}{'predicted':>10}{'measured':>10}{'error':>8}"]
    for result in results:
        name = result["run"]["name"]
        if not result.get("ready"):
            lines.append(f"{name:<26}{result.get('skipped') or result['diagnosis']}")
            continue
        for term in (*(f"{term}_bytes" for term in TERMS), "kv_cache_tokens"):
            expected, said = result["predicted"][term], result["measured"].get(term)
            if said:
                scale = 1 if term.endswith("tokens") else GIB
                off = f"{expected / said - 1:+.1%}"
                lines.append(f"{name:<26}{term:<17}{expected / scale:>10.2f}{said / scale:>10.2f}{off:>8}")
        for found in result["loads"]:
            expected = found.get("predicted")
            if not expected:
                lines.append(f"{name:<26}{found}")
                continue
            for key in ("steps_per_s", "ttft_s", "tpot_s"):
                off = f"{expected[key] / found[key] - 1:+.1%}"
                label = f"{key} n={found['sessions']}"
                lines.append(f"{name:<26}{label:<17}{expected[key]:>10.3f}{found[key]:>10.3f}{off:>8}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--hardware", help="rehearse on the table's GPUs, such as h200:4")
    parser.add_argument("--deadline", type=float, default=3600.0, help="seconds for the whole session")
    parser.add_argument("--least", type=float, default=60.0, help="a run is not begun with less left")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    raw = json.loads(Path(args.runs).read_text())
    runs = [Run(**{**one, "loads": tuple(map(tuple, one.get("loads", ())))}) for one in raw]
    session = Measuring(args, runs)
    (session.out / "nvml.json").write_bytes(to_json(gpus.read()))
    signal.signal(signal.SIGTERM, lambda *_: session.hurry())
    session.run()
    print(table(session.results))


if __name__ == "__main__":
    main()
