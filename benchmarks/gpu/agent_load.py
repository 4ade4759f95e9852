"""The load of phone agents: sessions in a closed loop, each step one chat with a fresh screenshot.

Older screenshots leave the history, as in Open-AutoGLM; answers are cut at a fixed length so that runs
compare. Sessions are spread over the addresses. Prints one JSON line. Needs aiohttp and Pillow.

usage: agent_load.py --url http://HOST:PORT[,URL] --model NAME --sessions 16 --steps 4
"""

import argparse
import asyncio
import base64
import io
import json
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 1080, 2400
DISTINCT_SCREENS = 256
LETTERS = "abcdefghij ,."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One chat that was answered."""

    ttft_s: float
    total_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def tpot_s(self) -> float:
        return (self.total_s - self.ttft_s) / max(1, self.output_tokens - 1)


def screenshot(dice: random.Random) -> str:
    """A 1080x2400 JPEG of coloured boxes, as a data URL."""
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


async def step(
    http: aiohttp.ClientSession, url: str, model: str, messages: list[dict[str, Any]], output_tokens: int
) -> Step:
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": output_tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    begun = time.perf_counter()
    first: float | None = None
    last = begun
    usage: dict[str, Any] = {}
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {(await answer.text())[:300]}")
        async for line in answer.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(str(event["error"])[:300])
            if event.get("choices"):
                last = time.perf_counter()
                first = first or last
            usage = event.get("usage") or usage
    details = usage.get("prompt_tokens_details") or {}
    return Step(
        ttft_s=(first or last) - begun,
        total_s=last - begun,
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens") or 0,
        output_tokens=usage.get("completion_tokens", 0),
    )


async def session(
    http: aiohttp.ClientSession, number: int, args: argparse.Namespace, screens: list[str], system: str
) -> list[Step]:
    """One phone: `steps` chats, each with the text of those before it and one new screenshot."""
    dice = random.Random(args.seed * 1_000_003 + number)
    urls = args.url.split(",")
    history: list[dict[str, Any]] = [{"role": "system", "content": system}]
    done = []
    for turn in range(args.steps):
        text = f"session {number} step {turn}: " + words(dice, 80)
        picture = screens[(number * args.steps + turn) % len(screens)]
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]
        asked = [*history, {"role": "user", "content": content}]
        done.append(await step(http, urls[number % len(urls)], args.model, asked, args.output_tokens))
        history += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": f"<think>{words(dice, 110)}</think><answer>do(Tap)</answer>"},
        ]
    return done


def report(steps: list[Step], errors: list[str], wall_s: float, sessions: int) -> dict[str, Any]:
    middle = statistics.median
    return {
        "sessions": sessions,
        "steps": len(steps),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "wall_s": round(wall_s, 2),
        "steps_per_s": round(len(steps) / wall_s, 3),
        "ttft_s": round(middle(s.ttft_s for s in steps), 3) if steps else None,
        "ttft_p95_s": round(sorted(s.ttft_s for s in steps)[int(0.95 * len(steps))], 3) if steps else None,
        "tpot_s": round(middle(s.tpot_s for s in steps), 5) if steps else None,
        "prompt_tokens": round(statistics.mean(s.prompt_tokens for s in steps)) if steps else None,
        "cached_tokens": round(statistics.mean(s.cached_tokens for s in steps)) if steps else None,
    }


async def run(args: argparse.Namespace) -> dict[str, Any]:
    dice = random.Random(args.seed)
    screens = [screenshot(dice) for _ in range(min(DISTINCT_SCREENS, args.sessions * args.steps))]
    system = f"seed {args.seed % 7} " + words(random.Random(args.seed % 7), args.system_tokens)
    timeout = aiohttp.ClientTimeout(total=args.timeout)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        begun = time.perf_counter()
        outcomes = await asyncio.gather(
            *(session(http, number, args, screens, system) for number in range(args.sessions)),
            return_exceptions=True,
        )
        wall_s = time.perf_counter() - begun
    steps = [one for outcome in outcomes if isinstance(outcome, list) for one in outcome]
    errors = [repr(outcome)[:300] for outcome in outcomes if isinstance(outcome, BaseException)]
    return report(steps, errors, wall_s, args.sessions)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--system-tokens", type=int, default=1500)
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(arguments()))))
