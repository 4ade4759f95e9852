"""The load of phone agents: sessions in a closed loop, each step one chat with a screenshot never seen yet.

Older screenshots leave the history, as in Open-AutoGLM. Answers vary evenly between half and one and a half
times `--output-tokens`, the same in every run. Sessions begin evenly spread over `--spread` seconds, never
pause, and are cut off when the time is up, so that no quiet beginning or end is in the figures: they are of
the steps that ended between `--spread` and `--seconds`. Prints one JSON line. Needs aiohttp and Pillow.

usage: agent_load.py --url http://HOST:PORT[,URL] --model NAME --sessions 16 --spread 4 --seconds 24
"""

import argparse
import asyncio
import base64
import io
import json
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import aiohttp

WIDTH, HEIGHT = 1080, 2400
LETTERS = "abcdefghij ,."
PAINTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One chat that was answered. Times are seconds since the load began."""

    session: int
    begun_s: float
    first_s: float
    ended_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.begun_s

    @property
    def tpot_s(self) -> float:
        return (self.ended_s - self.first_s) / max(1, self.output_tokens - 1)


def screenshot(seed: str) -> str:
    """A 1080x2400 JPEG of coloured boxes, as a data URL; another one for every seed."""
    dice = random.Random(seed)
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(dice.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = dice.randrange(WIDTH), dice.randrange(HEIGHT)
        corner = (x + dice.randrange(20, 400), y + dice.randrange(20, 160))
        draw.rectangle([(x, y), corner], fill=tuple(dice.randrange(256) for _ in range(3)))
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()


def words(dice: random.Random, length: int) -> str:
    return "".join(dice.choice(LETTERS) for _ in range(length))


class Load:
    """Every session of one run, and the steps they have ended."""

    def __init__(
        self, args: argparse.Namespace, http: "aiohttp.ClientSession", painters: ProcessPoolExecutor
    ):
        self.args, self.http, self.painters = args, http, painters
        self.urls = args.url.split(",")
        self.system = f"seed {args.seed % 7} " + words(random.Random(args.seed % 7), args.system_tokens)
        self.done: list[Step] = []
        self.errors: list[str] = []
        self.begun = 0.0

    def now_s(self) -> float:
        return time.perf_counter() - self.begun

    async def run(self) -> None:
        """Until the time is up: whatever is under way then is cut off."""
        first = await asyncio.gather(*(self._paint(number, 0) for number in range(self.args.sessions)))
        self.begun = time.perf_counter()
        sessions = [asyncio.create_task(self._session(number, shot)) for number, shot in enumerate(first)]
        await asyncio.wait(sessions, timeout=self.args.seconds)
        for task in sessions:
            task.cancel()
        for outcome in await asyncio.gather(*sessions, return_exceptions=True):
            if isinstance(outcome, Exception):
                self.errors.append(repr(outcome)[:300])

    async def _paint(self, number: int, turn: int) -> str:
        seed = f"{self.args.seed} {number} {turn}"
        return await asyncio.get_running_loop().run_in_executor(self.painters, screenshot, seed)

    async def _session(self, number: int, picture: str) -> None:
        """One phone: chat after chat, each with the text of those before it and one new screenshot."""
        args = self.args
        dice = random.Random(args.seed * 1_000_003 + number)
        url = self.urls[number % len(self.urls)]
        history: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        await asyncio.sleep(args.spread * number / args.sessions)
        for turn in range(args.steps or 10**9):
            upcoming = asyncio.create_task(self._paint(number, turn + 1))  # never waited for under load
            text = f"session {number} step {turn}: " + words(dice, 80)
            content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
            length = round(args.output_tokens * dice.uniform(0.5, 1.5))
            self.done.append(
                await self._step(number, url, [*history, {"role": "user", "content": content}], length)
            )
            history += [
                {"role": "user", "content": text},
                {
                    "role": "assistant",
                    "content": f"<think>{words(dice, 110)}</think><answer>do(Tap)</answer>",
                },
            ]
            picture = await upcoming

    async def _step(self, number: int, url: str, messages: list[dict[str, Any]], output_tokens: int) -> Step:
        body = {
            "model": self.args.model,
            "messages": messages,
            "max_tokens": output_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
        }
        begun = self.now_s()
        first: float | None = None
        last = begun
        usage: dict[str, Any] = {}
        async with self.http.post(f"{url}/v1/chat/completions", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {(await answer.text())[:300]}")
            async for line in answer.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(str(event["error"])[:300])
                if event.get("choices"):
                    last = self.now_s()
                    first = first or last
                usage = event.get("usage") or usage
        details = usage.get("prompt_tokens_details") or {}
        return Step(
            session=number,
            begun_s=begun,
            first_s=first or last,
            ended_s=last,
            prompt_tokens=usage.get("prompt_tokens", 0),
            cached_tokens=details.get("cached_tokens") or 0,
            output_tokens=usage.get("completion_tokens", 0),
        )


def report(load: Load) -> dict[str, Any]:
    """Steps per second, and medians over the steps that ended in the window."""
    args = load.args
    until = (
        min(args.seconds, max((step.ended_s for step in load.done), default=0.0))
        if args.steps
        else args.seconds
    )
    counted = [step for step in load.done if args.spread <= step.ended_s <= until]
    found: dict[str, Any] = {
        "sessions": args.sessions,
        "steps": len(counted),
        "errors": len(load.errors),
        "first_error": load.errors[0] if load.errors else None,
        "spread_s": args.spread,
        "window_s": round(until - args.spread, 2),
    }
    if not counted:
        return found
    ttft = sorted(step.ttft_s for step in counted)
    return found | {
        "steps_per_s": round(len(counted) / (until - args.spread), 3),
        "ttft_s": round(statistics.median(ttft), 3),
        "ttft_mean_s": round(statistics.mean(ttft), 3),
        "ttft_p95_s": round(ttft[int(0.95 * len(ttft))], 3),
        "tpot_s": round(statistics.median(step.tpot_s for step in counted), 5),
        "step_s": round(statistics.mean(step.ended_s - step.begun_s for step in counted), 3),
        "prompt_tokens": round(statistics.mean(step.prompt_tokens for step in counted)),
        "cached_tokens": round(statistics.mean(step.cached_tokens for step in counted)),
        "output_tokens": round(statistics.mean(step.output_tokens for step in counted), 1),
    }


async def run(args: argparse.Namespace) -> Load:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=args.timeout)
    with ProcessPoolExecutor(PAINTERS) as painters:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
            load = Load(args, http, painters)
            await load.run()
        return load


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--spread", type=float, default=0.0, help="seconds over which the sessions begin")
    parser.add_argument("--seconds", type=float, default=30.0, help="when everything is cut off")
    parser.add_argument("--steps", type=int, default=0, help="steps of each session; 0: until the time is up")
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--system-tokens", type=int, default=1500)
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", help="a file for every step, one JSON line each")
    return parser.parse_args()


if __name__ == "__main__":
    asked = arguments()
    load = asyncio.run(run(asked))
    if asked.trace:
        Path(asked.trace).write_text("".join(json.dumps(asdict(step)) + "\n" for step in load.done))
    print(json.dumps(report(load)))
