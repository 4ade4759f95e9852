"""The other end of the process that decodes pictures: started when first needed, one picture at a time.

Owns the process. One that crashes, hangs or runs out of memory takes the picture with it that it had, and the
next one begins a new process; one that nobody needs is let go.
"""

import asyncio
import sys
from contextlib import suppress

from autoglm_serve.gateway.media.picture_process import DONE, LENGTH

TIMEOUT_S = 20.0
"""For one picture. 50 megapixels take about 5 s of a processor."""
IDLE_S = 60.0
_COMMAND = (sys.executable, "-m", "autoglm_serve.gateway.media.picture_process")


class Undecodable(ValueError):
    """The message says why, for whoever sent the picture."""


class PictureProcess:
    """Makes pictures readable for engines that do not read all."""

    def __init__(self, command: tuple[str, ...] = _COMMAND, timeout_s: float = TIMEOUT_S) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._asking = False
        """It owes an answer: nobody else may ask it."""

    async def readable(self, picture: bytes | memoryview) -> str:
        """The data URL of the same picture, upright, as PNG or JPEG. `picture` is base64, as it stands in a
        body. Raises Undecodable."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(self._timeout_s):
                    status, answer = await self._asked(picture)
            except TimeoutError:
                raise Undecodable("takes too long to decode") from None
            except (EOFError, ConnectionError):
                raise Undecodable("is more than its decoder takes") from None
            finally:
                if self._asking:
                    await self._end()
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._let_go)
        if status != DONE:
            raise Undecodable(f"cannot be decoded ({answer.decode('ascii', 'replace')})")
        return answer.decode("ascii")

    async def close(self) -> None:
        """End the process; another picture would begin another."""
        if self._idle is not None:
            self._idle.cancel()
        await self._end()

    def _let_go(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._asking = False
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _asked(self, picture: bytes | memoryview) -> tuple[bytes, bytes]:
        if self._process is None or self._process.returncode is not None or _is_let_go(self._process):
            await self._end()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        self._asking = True
        to.write(LENGTH.pack(len(picture)))
        to.write(picture)
        await to.drain()
        status = await back.readexactly(1)
        answer = await back.readexactly(LENGTH.unpack(await back.readexactly(LENGTH.size))[0])
        self._asking = False
        return status, answer


def _is_let_go(process: asyncio.subprocess.Process) -> bool:
    return process.stdin is None or process.stdin.is_closing()
