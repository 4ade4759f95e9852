"""Clients of every kind, and what became of their requests.

Each asks for a text that it knows, so that a lost or doubled character shows. Some leave, some read slowly,
some write slowly, some send the next request before the last is answered.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.client import Answer, Fields, ask, chat, read_answer, request

Expected = Callable[[Fields], str | None]
"""The whole text of the answer to a request; None where nobody knows."""

KINDS = ("stream", "stream", "stream", "whole", "leaver", "slow reader", "slow writer", "pipeliner")


@dataclass(slots=True, kw_only=True)
class Books:
    """What the clients counted."""

    sent: int = 0
    """Requests whose last byte was written."""
    outcomes: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    """Connections that ended without an answer's end: whether the request was counted nobody can know."""
    bad: list[str] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)

    def note(self, fields: Fields, answer: Answer, expected: str | None) -> None:
        self.sent += 1
        if answer.lost:
            self.cut += 1
            self.outcomes["cut"] += 1
            self._compare(fields, answer, expected, whole=False)
            return
        self.outcomes[answer.error or "ok"] += 1
        if not fields["stream"]:
            return
        for wrong in answer.wrong():
            self.bad.append(f"{wrong}: {bytes(answer.body[-300:])!r}")
        self._compare(fields, answer, expected, whole=not answer.error)

    def left(self) -> None:
        self.sent += 1
        self.outcomes["left"] += 1
        self.left_s.append(time.monotonic())

    def left_before(self, moments_s: Sequence[float]) -> int:
        """Clients that left just before one of these moments, at which what they had asked was forgotten."""
        return sum(any(0 <= moment - left < 0.5 for moment in moments_s) for left in self.left_s)

    def _compare(self, fields: Fields, answer: Answer, expected: str | None, *, whole: bool) -> None:
        if expected is None or answer.status != 200 or not fields["stream"]:
            return
        try:
            text = answer.text
        except ValueError:  # cut in the middle of an event, with the connection
            return
        if text != expected if whole else not expected.startswith(text):
            self.bad.append(f"text {text!r}, wanted {expected!r}")


@dataclass(slots=True, kw_only=True)
class Crowd:
    """So many clients at once, until they are told to stop."""

    port: int
    question: Callable[[random.Random, int], Fields]
    expected: Expected
    books: Books = field(default_factory=Books)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients: int, seed: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(random.Random(f"{seed}/{number}")))

    def stop(self) -> None:
        """Each client ends what it has in hand."""
        self._stop.set()

    async def _client(self, rng: random.Random) -> None:
        kinds = {
            "stream": self._whole,
            "whole": self._whole,
            "leaver": self._leave,
            "slow reader": self._slowly,
            "slow writer": self._slowly,
            "pipeliner": self._pipeline,
        }
        while not self._stop.is_set():
            kind = rng.choice(KINDS)
            fields = self.question(rng, next(self._numbers)) | {"stream": kind != "whole"}
            try:
                async with asyncio.timeout(60):
                    await kinds[kind](fields, rng, kind)
            except TimeoutError:
                self.books.bad.append(f"a {kind} had no answer within 60 s")

    async def _whole(self, fields: Fields, rng: random.Random, kind: str) -> None:
        self.books.note(fields, await ask(self.port, fields), self.expected(fields))

    async def _leave(self, fields: Fields, rng: random.Random, kind: str) -> None:
        reading = asyncio.Event()
        asking = asyncio.ensure_future(ask(self.port, fields, on_piece=lambda _: reading.set()))
        waiting = asyncio.ensure_future(reading.wait())
        await asyncio.wait((asking, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if asking.done():
            self.books.note(fields, asking.result(), self.expected(fields))
            return
        asking.cancel()
        await asyncio.wait((asking,))
        self.books.left()

    async def _slowly(self, fields: Fields, rng: random.Random, kind: str) -> None:
        answer = Answer(arrivals_s=[0.0])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
        except OSError:
            return
        try:
            data = request(fields)
            step = len(data) if kind == "slow reader" else max(1, len(data) // 20)
            for start in range(0, len(data), step):
                if writer.transport.is_closing():
                    break
                writer.write(data[start : start + step])
                await asyncio.sleep(0.01)
            await asyncio.sleep(rng.uniform(0, 0.5) if kind == "slow reader" else 0)
            await read_answer(reader, answer)
        except (OSError, EOFError, ValueError) as error:
            answer.lost = repr(error)
        finally:
            writer.transport.abort()
        self.books.note(fields, answer, self.expected(fields))

    async def _pipeline(self, fields: Fields, rng: random.Random, kind: str) -> None:
        several = [fields, *(self.question(rng, next(self._numbers)) | {"stream": True} for _ in range(2))]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return
        try:
            writer.write(b"".join(request(each) for each in several))
            for each in several:
                answer = Answer(arrivals_s=[0.0])
                try:
                    await read_answer(reader, answer)
                except (OSError, EOFError, ValueError) as error:
                    answer.lost = repr(error)
                self.books.note(each, answer, self.expected(each))
                if answer.lost:  # those behind it may never have been read
                    self.books.cut += len(several) - several.index(each) - 1
                    self.books.sent += len(several) - several.index(each) - 1
                    return
        finally:
            writer.transport.abort()


def counted_question(rng: random.Random, number: int) -> Fields:
    """For the fault-switch engine, which answers in so many known pieces."""
    return chat(f"question {number}", chunks=rng.randrange(1, 40), delay_s=rng.choice((0, 0.002, 0.01)))


def counted_answer(fields: Fields) -> str:
    return "".join(f"tok{index} " for index in range(fields["chunks"]))
