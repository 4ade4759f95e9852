"""Measure a running deployment on screens and phrases that nobody trained on.

    python -m autoglm_serve.demo.evaluate --url http://127.0.0.1:8000 --seed 7 --count 100
    python -m autoglm_serve.demo.evaluate --tasks errands --system 5000 --count 50

Draws everything from the seed, asks over the OpenAI API, and prints accuracy by task: as a table, as JSON
with --json, and as pictures of hits and misses with --pictures FOLDER. `errands` plays whole tasks of two to
eight steps on a pretend phone, `strangers` shows screens of worlds that nobody trained on. Works against any
OpenAI-compatible address. Needs nothing but this package, Pillow, and for the speech task the espeak-ng
program.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from . import agent, demo_model, demo_speech, errands, judge, prompts, speech, talk
from .errands import Errand
from .screens import SIZES_PX, Screen, imagine
from .tasks import Case, Task, ask
from .words import Language
from .world import Phone, view

SCREEN_TASKS: tuple[Task, ...] = ("tap", "action", "question")
TASKS = (*SCREEN_TASKS, "identity", "speech", "strangers", "errands")
TOKENS_PER_CHARACTER: dict[Language, float] = {"zh": 0.95, "en": 0.51}
"""Of the demo's tokenizer, in the system prompts of `prompts`."""


class NoAnswer(Exception):
    """The address does not answer, or not as an OpenAI-compatible server does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One task's tally. In the speech task a unit is a word (English) or a character (Chinese)."""

    count: int
    right: int
    slowest_s: float
    mean_s: float
    skipped: str | None = None
    details: tuple[tuple[str, float], ...] = ()
    """What else was counted: name and number."""

    @property
    def accuracy(self) -> float:
        return self.right / self.count if self.count else 0.0


@dataclass(slots=True, kw_only=True)
class _Tally:
    count: int = 0
    right: int = 0
    seconds: list[float] | None = None

    def add(self, count: int, right: int, seconds: float) -> None:
        self.count += count
        self.right += right
        self.seconds = [*(self.seconds or ()), seconds]

    def score(self, skipped: str | None = None, details: tuple[tuple[str, float], ...] = ()) -> Score:
        seconds = self.seconds or [0.0]
        return Score(
            count=self.count,
            right=self.right,
            slowest_s=max(seconds),
            mean_s=sum(seconds) / len(seconds),
            skipped=skipped,
            details=details,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An OpenAI-compatible server."""

    url: str
    key: str = "EMPTY"
    timeout_s: float = 120.0

    def models(self) -> list[str]:
        answer = self._send(urllib.request.Request(self._path("/v1/models"), headers=self._headers()))
        return [model["id"] for model in answer.get("data", [])]

    def chat(self, model: str, content: object, *, system: str = "", max_tokens: int = 200) -> str:
        begin: list[agent.Message] = [{"role": "system", "content": system}] if system else []
        return self.converse(model, [*begin, {"role": "user", "content": content}], max_tokens=max_tokens)

    def converse(
        self,
        model: str,
        messages: list[agent.Message],
        *,
        max_tokens: int = 200,
        sampling: Mapping[str, float] | None = None,
    ) -> str:
        body = {
            "model": model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": max_tokens,
            **(sampling or {}),
        }
        headers = {**self._headers(), "Content-Type": "application/json"}
        request = urllib.request.Request(
            self._path("/v1/chat/completions"), json.dumps(body).encode(), headers
        )
        answer = self._send(request)
        message = answer["choices"][0]["message"]
        thought = message.get("reasoning_content")
        text = message.get("content") or ""
        return f"<think>{thought}</think>{text}" if thought else text

    def transcribe(self, model: str, wav: bytes) -> str:
        body, boundary = _form(model, wav)
        headers = {**self._headers(), "Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(self._path("/v1/audio/transcriptions"), body, headers)
        return str(self._send(request)["text"]).strip()

    def _path(self, path: str) -> str:
        return self.url.rstrip("/").removesuffix("/v1") + path

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def _send(self, request: urllib.request.Request) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                return cast("dict[str, Any]", json.load(answer))
        except urllib.error.HTTPError as refused:
            said = refused.read(2000).decode("utf-8", "replace")
            raise NoAnswer(f"{request.full_url} answered {refused.code}: {said}") from refused
        except (OSError, ValueError) as broken:
            raise NoAnswer(
                f"{request.full_url} does not answer as an OpenAI-compatible server: {broken}. "
                "Start one (autoglm serve) or give its address with --url."
            ) from broken


def _form(model: str, wav: bytes) -> tuple[bytes, str]:
    boundary = "autoglm-demo-evaluation"
    field = f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'
    file = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="command.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return field.encode() + file.encode() + wav + f"\r\n--{boundary}--\r\n".encode(), boundary


def held_out_cases(task: Task, seed: int, count: int) -> Iterator[tuple[Screen, Case]]:
    """Screens and cases of a seed. Training draws from a name space of its own and meets none of these."""
    for number in range(count):
        rng = random.Random(f"evaluate:{seed}:{task}:{number}")
        screen = imagine(rng)
        yield screen, ask(task, screen, rng)


def held_out_system(seed: int, task: str, number: int, tokens: int) -> str:
    """A system prompt of about so many of the demo's tokens, worded as no other. Languages take turns."""
    if not tokens:
        return ""
    language: Language = "zh" if number % 2 else "en"
    characters = round(tokens / TOKENS_PER_CHARACTER[language])
    rng = random.Random(f"evaluate:{seed}:{task}:system:{number}")
    return prompts.system_prompt(rng, characters=characters, language=language, held_out=True)


def held_out_errands(seed: int, count: int) -> Iterator[Errand]:
    for number in range(count):
        yield errands.imagine_errand(random.Random(f"evaluate:{seed}:errands:{number}"), least=2, most=8)


def held_out_strangers(seed: int, count: int) -> Iterator[tuple[bytes, Case]]:
    """Screens in styles that nobody trained on, with a task that needs a screen."""
    from .strangers import stranger

    for number in range(count):
        rng = random.Random(f"evaluate:{seed}:strangers:{number}")
        picture = stranger(rng, size_px=rng.choice(SIZES_PX), held_out=True)
        while True:
            case = ask(rng.choice(("tap", "tap", "question", "action")), imagine(rng), rng)
            if case.needs_screen or case.target is not None:
                break
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        yield file.getvalue(), case


def held_out_talk(seed: int, count: int) -> Iterator[tuple[str, str]]:
    for number in range(count):
        yield talk.chat(random.Random(f"evaluate:{seed}:identity:{number}"))


def held_out_speech(seed: int, count: int) -> Iterator[tuple[speech.Phrase, bytes]]:
    for number in range(count):
        rng = random.Random(f"evaluate:{seed}:speech:{number}")
        phrase = speech.phrase(rng, held_out=True)
        who = speech.speaker(rng, phrase.language, held_out=True)
        yield phrase, speech.speak(phrase, who, rng)


def png(screen: Screen) -> bytes:
    from .paint import paint

    file = io.BytesIO()
    paint(screen).save(file, "PNG", compress_level=1)
    return file.getvalue()


def screen_content(picture: bytes, instruction: str) -> list[dict[str, object]]:
    """The message a phone agent sends: the screenshot first, then the instruction."""
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": instruction}]


Progress = Callable[[str, int, int], None]


def evaluate(
    address: Address,
    *,
    model: str,
    speech_model: str | None,
    seed: int,
    count: int,
    tasks: tuple[str, ...] = TASKS,
    system_tokens: int = 0,
    pictures: Path | None = None,
    progress: Progress = lambda task, done, of: None,
) -> dict[str, Score]:
    """Ask everything and grade it. Whatever has a picture gets a system prompt of about `system_tokens`."""
    scores: dict[str, Score] = {}
    for task in SCREEN_TASKS:
        if task in tasks:
            scores[task] = _screens(address, model, task, seed, count, system_tokens, pictures, progress)
    if "strangers" in tasks:
        scores["strangers"] = _strangers(address, model, seed, count, system_tokens, progress)
    if "errands" in tasks:
        scores["errands"] = _errands(address, model, seed, count, system_tokens, pictures, progress)
    if "identity" in tasks:
        scores["identity"] = _identity(address, model, seed, count, progress)
    if "speech" in tasks:
        scores["speech"] = _speech(address, speech_model, seed, count, progress)
    return scores


def _screens(
    address: Address,
    model: str,
    task: Task,
    seed: int,
    count: int,
    system_tokens: int,
    pictures: Path | None,
    progress: Progress,
) -> Score:
    tally = _Tally()
    if not _can_draw():
        return tally.score(NO_PILLOW)
    for number, (screen, case) in enumerate(held_out_cases(task, seed, count)):
        picture = png(screen)
        started = time.monotonic()
        system = held_out_system(seed, task, number, system_tokens)
        reply = address.chat(model, screen_content(picture, case.instruction), system=system)
        right = judge.is_right(case, reply)
        tally.add(1, int(right), time.monotonic() - started)
        if pictures is not None:
            _keep_picture(pictures, f"{task}-{number:04d}-{'hit' if right else 'miss'}", picture, case, reply)
        progress(task, number + 1, count)
    return tally.score()


def _strangers(
    address: Address, model: str, seed: int, count: int, system_tokens: int, progress: Progress
) -> Score:
    """Right is to say that nothing is there to act on."""
    tally = _Tally()
    if not _can_draw():
        return tally.score(NO_PILLOW)
    for number, (picture, case) in enumerate(held_out_strangers(seed, count)):
        started = time.monotonic()
        system = held_out_system(seed, "strangers", number, system_tokens)
        reply = address.chat(model, screen_content(picture, case.instruction), system=system)
        tally.add(1, int(judge.is_lost(reply)), time.monotonic() - started)
        progress("strangers", number + 1, count)
    return tally.score()


def _errands(
    address: Address,
    model: str,
    seed: int,
    count: int,
    system_tokens: int,
    pictures: Path | None,
    progress: Progress,
) -> Score:
    """Whole tasks; the seconds are those of a step."""
    tally = _Tally()
    if not _can_draw():
        return tally.score(NO_PILLOW)
    runs: list[agent.ErrandRun] = []
    for number, errand in enumerate(held_out_errands(seed, count)):
        system = held_out_system(seed, "errands", number, system_tokens)
        spent: list[float] = []

        def step(messages: list[agent.Message], spent: list[float] = spent) -> str:
            started = time.monotonic()
            reply = address.converse(model, messages, sampling=agent.SAMPLING)
            spent.append(time.monotonic() - started)
            return reply

        found = agent.run(errand, step, _png_of, system=system, picture_first=number % 5 != 4)
        runs.append(found)
        tally.add(1, int(found.ending == "done"), sum(spent) / len(spent))
        if pictures is not None:
            _keep_way(pictures, f"errand-{number:04d}-{found.ending.replace(' ', '-')}", errand, found)
        progress("errands", number + 1, count)
    return tally.score(details=_details(runs))


def _details(runs: list[agent.ErrandRun]) -> tuple[tuple[str, float], ...]:
    steps = sum(len(run.steps) for run in runs)
    endings = [(ending, sum(run.ending == ending for run in runs))
               for ending in ("too early", "unfinished", "unreadable")]  # fmt: skip
    return (
        *endings, ("steps", steps), ("steps beyond the shortest way", sum(run.beyond for run in runs)),
        ("wrong taps", sum(run.wrong_taps for run in runs)),
    )  # fmt: skip


def _png_of(phone: Phone) -> bytes:
    return png(view(phone))


def _keep_way(folder: Path, name: str, errand: Errand, found: agent.ErrandRun) -> None:
    """Every screen of a run side by side, and beside it what was right and what was answered."""
    from PIL import Image

    from .paint import paint

    folder.mkdir(parents=True, exist_ok=True)
    shown = [paint(view(step.phone), width_px=270) for step in found.steps]
    sheet = Image.new("RGB", (280 * len(shown), max(image.height for image in shown)), (255, 255, 255))
    for index, image in enumerate(shown):
        sheet.paste(image, (280 * index, 0))
    sheet.save(folder / f"{name}.png")
    lines = [
        f"asked:    {errand.said}",
        f"ended:    {found.ending} ({len(found.steps)} steps, {found.shortest} needed)",
    ]
    for step in found.steps:
        lines += ["", f"expected: {step.right.reply}", f"answered: {step.reply}"]
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


NO_PILLOW = "drawing needs Pillow; install it (pip install pillow)"


def _can_draw() -> bool:
    try:
        import PIL  # noqa: F401
    except ImportError:
        return False
    return True


def _identity(address: Address, model: str, seed: int, count: int, progress: Progress) -> Score:
    tally = _Tally()
    for number, (asked, answer) in enumerate(held_out_talk(seed, count)):
        started = time.monotonic()
        reply = address.chat(model, asked)
        tally.add(1, int(reply.strip() == answer), time.monotonic() - started)
        progress("identity", number + 1, count)
    return tally.score()


def _speech(address: Address, model: str | None, seed: int, count: int, progress: Progress) -> Score:
    tally = _Tally()
    if model is None:
        return tally.score("no speech model at this address; name it with --speech-model")
    if not speech.available():
        return tally.score("espeak-ng is not on the PATH; install it (Debian: apt-get install espeak-ng)")
    for number, (phrase, wav) in enumerate(held_out_speech(seed, count)):
        started = time.monotonic()
        written = address.transcribe(model, wav)
        seconds = time.monotonic() - started
        said = judge.units(phrase.words, phrase.language)
        wrong = judge.errors(said, judge.units(written, phrase.language))
        tally.add(len(said), len(said) - wrong, seconds)
        progress("speech", number + 1, count)
    return tally.score()


def _keep_picture(folder: Path, name: str, picture: bytes, case: Case, reply: str) -> None:
    """The screen with the wanted element framed and the tap marked; beside it what was asked and answered."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(picture))
    width, height = image.size
    canvas = ImageDraw.Draw(image)
    if case.target is not None:
        left, top, right, bottom = case.target
        box = (left * width / 1000, top * height / 1000, right * width / 1000, bottom * height / 1000)
        canvas.rectangle(box, outline=(0, 200, 0), width=max(3, width // 180))
    point = judge.point_of(reply)
    if point is not None:
        x, y, r = point[0] * width / 1000, point[1] * height / 1000, width / 40
        canvas.ellipse((x - r, y - r, x + r, y + r), outline=(255, 0, 0), width=max(4, width // 120))
    image.thumbnail((540, 1200))
    image.save(folder / f"{name}.png")
    text = f"asked:    {case.instruction}\nexpected: {case.reply}\nanswered: {reply}\n"
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def choose_models(found: list[str], model: str | None, speech_model: str | None) -> tuple[str, str | None]:
    """Which of a server's models see and hear: those named, else the demo's, else the first."""
    hearing = speech_model or (demo_speech().name if demo_speech().name in found else None)
    if model is None:
        others = [name for name in found if name != hearing] or found
        if not others:
            raise NoAnswer("the address lists no model that could be asked; name one with --model")
        model = demo_model().name if demo_model().name in others else others[0]
    return model, hearing


def table(scores: dict[str, Score]) -> str:
    lines = [f"{'task':<10} {'count':>6} {'right':>6} {'accuracy':>9} {'mean':>8} {'slowest':>8}"]
    for task, score in scores.items():
        if score.skipped:
            lines.append(f"{task:<10} skipped: {score.skipped}")
            continue
        lines.append(
            f"{task:<10} {score.count:>6} {score.right:>6} {score.accuracy:>9.1%} "
            f"{score.mean_s:>6.2f} s {score.slowest_s:>6.2f} s"
        )
        if score.details:
            lines.append("  " + ", ".join(f"{name}: {number:g}" for name, number in score.details))
    if "speech" in scores and not scores["speech"].skipped:
        lines.append("speech counts words in English and characters in Chinese; error rate = 1 - accuracy")
    return "\n".join(lines)


def as_json(scores: dict[str, Score]) -> str:
    plain = {
        task: {"skipped": score.skipped}
        if score.skipped
        else {"count": score.count, "right": score.right, "accuracy": round(score.accuracy, 4)}
        | dict(score.details)
        for task, score in scores.items()
    }
    return json.dumps(plain, indent=2)


def show_progress(out: TextIO, clock: Callable[[], float] = time.monotonic) -> Progress:
    """On a terminal a line that changes; elsewhere ten lines a task. Both say what time is left."""
    begun: dict[str, float] = {}

    def show(task: str, done: int, of: int) -> None:
        start = begun.setdefault(task, clock())
        left_s = (clock() - start) / max(1, done - 1) * (of - done)
        line = f"{task}: {done}/{of}" + (f", about {left_s:.0f} s left" if 1 < done < of else "")
        if out.isatty():
            out.write(f"\r{line:<60}{chr(10) if done == of else ''}")
        elif done == of or done % max(1, of // 10) == 0:
            out.write(f"{line}\n")
        out.flush()

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m autoglm_serve.demo.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("OPENAI_BASE_URL") or "http://127.0.0.1:8000",
        help="the server's address; OPENAI_BASE_URL where it is set (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="which screens and phrases (%(default)s)")
    parser.add_argument("--count", type=int, default=100, help="how many of each task (%(default)s)")
    parser.add_argument("--model", help="model that sees; found from /v1/models otherwise")
    parser.add_argument("--speech-model", help="model that hears; found from /v1/models otherwise")
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of %(default)s")
    parser.add_argument(
        "--system", type=int, default=0, metavar="TOKENS",
        help="put a system prompt of about so many tokens before every screen, worded as no other",
    )  # fmt: skip
    parser.add_argument("--api-key", default=os.environ.get("OPENAI_API_KEY", "EMPTY"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="keep pictures of hits and misses here"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    tasks = tuple(options.tasks.split(","))
    if unknown := [task for task in tasks if task not in TASKS]:
        parser.error(f"no such task: {', '.join(unknown)}. There are {', '.join(TASKS)}.")
    address = Address(url=options.url, key=options.api_key)
    try:
        model, hearing = choose_models(address.models(), options.model, options.speech_model)
        scores = evaluate(
            address,
            model=model,
            speech_model=hearing,
            seed=options.seed,
            count=options.count,
            tasks=tasks,
            system_tokens=options.system,
            pictures=options.pictures,
            progress=show_progress(sys.stderr),
        )
    except NoAnswer as gone:
        sys.stderr.write(f"{gone}\n")
        return 1
    sys.stdout.write((as_json(scores) if options.json else table(scores)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
