"""Spoken commands: the phrases, the voices, and espeak-ng that speaks them.

Owns which voices and phrases are held out: training never hears them, the evaluation hears nothing else.
Knows nothing of models or grading.
"""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess
import wave
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from . import words
from .words import Language

RATE_HZ = 22050
"""What espeak-ng writes."""

VOICES: dict[Language, tuple[str, ...]] = {
    "zh": ("cmn",),
    "en": ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-029"),
}
VARIANTS = (
    "", "+m1", "+m2", "+m3", "+m5", "+m7", "+f1", "+f2", "+f3", "+f5", "+Andrea", "+Annie", "+Alex",
    "+max", "+adam", "+Alicia", "+Andy", "+antonio", "+aunty", "+belinda", "+benjamin", "+boris",
    "+caleb", "+david", "+Diogo", "+ed", "+edward", "+edward2", "+Gene", "+Gene2", "+Henrique", "+Hugo",
    "+iven", "+iven2", "+iven3", "+iven4", "+Jacky", "+john", "+kaukovalta", "+marcelo", "+Marco",
    "+Mario", "+miguel", "+Mike", "+pablo", "+paul", "+pedro", "+quincy", "+rob", "+robert", "+steph",
    "+steph2", "+steph3", "+Storm", "+zac",
)  # fmt: skip
HELD_OUT_VARIANTS = ("+m4", "+m6", "+f4", "+Denis", "+Lee", "+linda")
HELD_OUT_VOICES: dict[Language, tuple[str, ...]] = {
    "zh": ("cmn",),
    "en": ("en-us", "en-gb-x-rp", "en-gb-x-gbcwmd"),
}
"""Voices of the held-out set. A speaker is a voice with a variant; no held-out variant is ever trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    language: Language
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    voice: str
    speed_wpm: int
    pitch: int
    noise: float
    """Standard deviation of the noise, as a share of the loudest sample."""
    gain: float


TEMPLATES: dict[Language, tuple[str, ...]] = {
    "zh": (
        "点击{}", "点一下{}", "请点击{}", "选择{}", "帮我点{}", "打开{}", "启动{}", "请打开{}", "关闭{}",
        "关掉{}", "搜索{}", "输入{}", "{}打开了吗", "屏幕上有{}吗", "有没有{}", "{}按钮是什么颜色",
        "删除{}", "我要买{}",
    ),
    "en": (
        "tap {}", "click {}", "press {}", "select {}", "please tap {}", "open {}", "launch {}", "start {}",
        "turn on {}", "turn off {}", "search for {}", "type {}", "is {} on", "is there {} on the screen",
        "can you see {}", "what color is {}", "close {}", "i want to buy {}",
    ),
}  # fmt: skip
PLAIN: dict[Language, tuple[str, ...]] = {
    "zh": (
        "你是谁", "你能做什么", "你好", "谢谢", "返回", "返回上一页", "回到桌面", "向上滑动", "向下滑动",
        "向左滑动", "向右滑动", "现在几点", "屏幕上有几个按钮", "标题是什么", "任务完成了", "点击红色按钮",
        "点击蓝色按钮",
    ),
    "en": (
        "who are you", "what can you do", "hello", "thank you", "go back", "go home", "swipe up",
        "swipe down", "swipe left", "swipe right", "what time is it", "how many buttons are there",
        "what is the title", "all done", "tap the red button", "tap the blue button",
    ),
}  # fmt: skip


def phrase(rng: random.Random, *, held_out: bool) -> Phrase:
    """A command. One template-and-word pair in eight is held out, by a hash of its text."""
    while True:
        language: Language = rng.choice(("zh", "en"))
        if not held_out and rng.random() < 0.08:
            return Phrase(language=language, words=rng.choice(PLAIN[language]))
        word = rng.choice((*words.ALL, *words.TYPED)).text(language).lower()
        text = rng.choice(TEMPLATES[language]).format(word)
        if is_held_out(text) == held_out:
            return Phrase(language=language, words=text)


def is_held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 0


def speaker(rng: random.Random, language: Language, *, held_out: bool) -> Speaker:
    voices, variants = (HELD_OUT_VOICES, HELD_OUT_VARIANTS) if held_out else (VOICES, VARIANTS)
    return Speaker(
        voice=rng.choice(voices[language]) + rng.choice(variants),
        speed_wpm=rng.randrange(120, 200),
        pitch=rng.randrange(25, 76),
        noise=rng.choice((0.0, 0.0, 0.005, 0.02, 0.05)),
        gain=rng.uniform(0.25, 1.0),
    )


def available() -> bool:
    return shutil.which("espeak-ng") is not None


Synthesise = Callable[[Phrase, Speaker], bytes]


def espeak(phrase: Phrase, who: Speaker) -> bytes:
    """Speak with the espeak-ng program: a clean WAV file, without gain or noise."""
    command = [
        "espeak-ng",
        "-v",
        who.voice,
        "-s",
        str(who.speed_wpm),
        "-p",
        str(who.pitch),
        "--stdout",
        phrase.words,
    ]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


def speak(phrase: Phrase, who: Speaker, rng: random.Random, *, synthesise: Synthesise = espeak) -> bytes:
    """A WAV file of one command as it arrives at a phone: some silence, some noise, some volume."""
    clean = samples(synthesise(phrase, who))
    before, after = (rng.randrange(RATE_HZ // 20, RATE_HZ // 2) for _ in range(2))
    loudest = max(map(abs, clean), default=1) or 1
    scale = 32000 * who.gain / loudest
    noise = 32000 * who.gain * who.noise
    heard = array("h", (0 for _ in range(before)))
    heard.extend(round(sample * scale) for sample in clean)
    heard.extend(0 for _ in range(after))
    if noise:
        heard = array("h", (max(-32768, min(32767, round(s + rng.gauss(0, noise)))) for s in heard))
    return wav(heard, RATE_HZ)


def samples(wav_file: bytes) -> array[int]:
    """The 16-bit samples of a WAV file. espeak-ng writes to a pipe and leaves the length in the header
    open.
    """
    found = array("h")
    data = wav_file[44:]
    found.frombytes(data[: len(data) // 2 * 2])
    return found


def wav(heard: array[int], rate_hz: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(heard.tobytes())
    return file.getvalue()
