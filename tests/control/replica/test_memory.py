"""A replica's status holds what its engine said of its memory."""

from pathlib import Path

import pytest

from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.engines.vllm import Vllm
from tests.control.worlds import run, world
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member

LINES = (
    "Model loading took 19.26 GiB and 3.7 seconds",
    "GPU KV cache size: 2,764,587 tokens",
    "nothing about memory",
    "Graph capturing finished in 6 secs, took 1.06 GiB",
)


class Measuring(FaultyAdapter):
    """The faulty engine with vLLM's way of saying what it took."""

    def measured(self, line: str) -> MeasuredLedger | None:
        return Vllm().measured(line)

    def warning(self, line: str) -> str | None:
        return Vllm().warning(line)


def test_memory_is_put_together_line_by_line(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), adapter=Measuring()) as w:
            await w.clock.advance(0.1)
            w.process.say(*LINES[:2])
            await w.clock.advance(1)
            w.process.say(*LINES[2:])
            await w.clock.advance(1)
            assert w.status.memory is not None
            assert w.status.memory.kv_cache_tokens == 2_764_587
            assert w.status.memory.weights_bytes == int(19.26 * 2**30)
            assert w.status.memory.cuda_graphs_bytes == int(1.06 * 2**30)

    run(story)


def test_a_warning_is_passed_on_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member(), adapter=Measuring()) as w:
            await w.clock.advance(0.1)
            for _ in range(3):
                w.process.say("max_pixels is not a valid argument and will be ignored")
                await w.clock.advance(1)

    run(story)
    assert [record.getMessage() for record in caplog.records if "max_pixels" in record.getMessage()] == [
        "r0: the image processor ignores an argument: if it is max_pixels, images are larger than planned"
    ]


def test_an_engine_that_says_nothing_has_none(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(0.1)
            w.process.say(*LINES)
            await w.clock.advance(1)
            assert w.status.memory is None

    run(story)
