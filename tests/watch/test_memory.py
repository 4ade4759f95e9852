"""A replica's status holds what its engine said of its memory."""

from pathlib import Path

from autoglm_serve.core.ledger import MeasuredLedger
from autoglm_serve.engines.vllm import Vllm
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member
from tests.watch.worlds import run, world

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


def test_an_engine_that_says_nothing_has_none(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, faulty_member()) as w:
            await w.clock.advance(0.1)
            w.process.say(*LINES)
            await w.clock.advance(1)
            assert w.status.memory is None

    run(story)
