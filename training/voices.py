"""Voices for training: espeak-ng's library inside this process, and voice variants that nobody has heard.

Owns how a clip is spoken. A variant is a small text file that espeak-ng reads anew whenever a voice is
chosen, so each clip can be spoken by a person of its own: formants, breath, stress and pitch are drawn, and
a model that hears thousands of them cannot learn a few by heart. Knows nothing of phrases or audio formats.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoglm_serve.demo import speech

MADE = "made"
"""The one variant file that is written again for every invented voice."""
SYNCHRONOUS = 2
UTF8 = 1
RATE, PITCH, WORD_GAP = 1, 3, 7
"""espeak-ng's numbers. Its pitch range (4) is left alone: with a wide one the library crashes."""
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Voice(ctypes.Structure):
    """espeak-ng's selector. Some voices (en-gb) are known by their language alone."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """Who speaks, and how."""

    voice: str
    variant: str | None
    """The text of an invented variant file, if the voice is an invented one."""
    speed_wpm: int
    pitch: int
    word_gap: int


def manner(rng: random.Random, language: speech.Language, *, invented: float = 0.7) -> Manner:
    """A way to speak for training: wider than the evaluation's, and never with a held-out variant."""
    made = rng.random() < invented
    return Manner(
        voice=rng.choice(speech.VOICES[language]) + (f"+{MADE}" if made else rng.choice(speech.VARIANTS)),
        variant=invent(rng) if made else None,
        speed_wpm=rng.randrange(108, 216),
        pitch=rng.randrange(12, 90),
        word_gap=rng.choice((0, 0, 0, 1, 2, 4)),
    )


def invent(rng: random.Random) -> str:
    """A variant file: a throat of any size, some formants weak or missing, some habits."""
    return "\n".join(("language variant", f"name {MADE}", *_lines(rng), ""))


def _lines(rng: random.Random) -> Iterator[str]:
    size = 100 * math.exp(rng.uniform(-0.3, 0.33))
    """All formants together: a longer or shorter throat."""
    lowest = round(60 * math.exp(rng.uniform(0, 1.4)))
    yield f"pitch {lowest} {round(lowest * rng.uniform(1.1, 1.75))}"
    for number in range(9):
        own = math.exp(rng.gauss(0, 0.05 if number < 3 else 0.12))
        height = rng.uniform(60, 150) if number < 3 else rng.uniform(20, 150)
        if rng.random() < (0, 0, 0, 0.1, 0.25)[min(number, 4)]:
            height = 5
        yield f"formant {number} {round(size * own)} {round(height)} {rng.randrange(60, 160)}"
    yield f"flutter {rng.randrange(0, 8)}"
    yield f"roughness {rng.choice((0, 0, 1, 2, 4))}"
    yield f"consonants {rng.randrange(50, 140)} {rng.randrange(50, 140)}"
    if rng.random() < 0.5:
        yield f"voicing {rng.randrange(40, 200)}"
    if rng.random() < 0.12:
        yield "breath " + _numbers(rng, 0, 30)
    if rng.random() < 0.12:
        yield f"echo {rng.randrange(10, 200)} {rng.randrange(5, 40)}"
    if rng.random() < 0.4:
        yield "stressAdd " + _numbers(rng, -30, rng.choice((30, 100, 250)))
    if rng.random() < 0.4:
        yield "stressAmp " + _numbers(rng, 12, 36)
    if rng.random() < 0.25:
        yield f"intonation {rng.randrange(1, 5)}"
    if rng.random() < 0.3:
        edges = sorted(rng.sample(range(100, 5000, 50), 3))
        yield "tone " + " ".join(f"{edge} {rng.randrange(40, 256)}" for edge in edges)


def _numbers(rng: random.Random, low: int, high: int) -> str:
    return " ".join(str(rng.randrange(low, high + 1)) for _ in range(8))


class Voicebox:
    """espeak-ng with a voice folder of its own, in `folder`: its library where it can be loaded (2 ms a
    clip), else its program (17 ms).
    """

    def __init__(self, folder: Path) -> None:
        found = data_folder()
        data = folder / "espeak-ng-data"
        (data / "voices" / "!v").mkdir(parents=True)
        for item in found.iterdir():
            if item.name != "voices":
                (data / item.name).symlink_to(item)
        for item in (found / "voices" / "!v").iterdir():
            (data / "voices" / "!v" / item.name).symlink_to(item)
        self._folder = folder
        self._made = data / "voices" / "!v" / MADE
        self._made.write_text(f"language variant\nname {MADE}\n")
        self._heard = bytearray()
        self._library = _library()
        if self._library is not None:
            self._library.espeak_Initialize(SYNCHRONOUS, 0, str(folder).encode(), 0)
            self._callback = Callback(self._keep)
            self._library.espeak_SetSynthCallback(self._callback)

    @property
    def fast(self) -> bool:
        return self._library is not None

    def say(self, text: str, how: Manner) -> bytes:
        """16-bit samples at `speech.RATE_HZ`."""
        if how.variant is not None:
            self._made.write_text(how.variant)
        return self._by_program(text, how) if self._library is None else self._by_library(text, how)

    def _by_library(self, text: str, how: Manner) -> bytes:
        library = self._library
        assert library is not None
        self._heard.clear()
        name = how.voice.encode()
        if library.espeak_SetVoiceByName(name):
            wanted = Voice(languages=name)
            if library.espeak_SetVoiceByProperties(ctypes.byref(wanted)):
                raise LookupError(f"espeak-ng has no voice {how.voice}; its voices are in {data_folder()}")
        for number, value in ((RATE, how.speed_wpm), (PITCH, how.pitch), (WORD_GAP, how.word_gap)):
            library.espeak_SetParameter(number, value, 0)
        said = text.encode()
        library.espeak_Synth(said, len(said) + 1, 0, 0, 0, UTF8, None, None)
        return bytes(self._heard)

    def _keep(self, samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            self._heard += ctypes.string_at(samples, 2 * count)
        return 0

    def _by_program(self, text: str, how: Manner) -> bytes:
        options = f"-s {how.speed_wpm} -p {how.pitch} -g {how.word_gap}".split()
        command = ["espeak-ng", f"--path={self._folder}", "-v", how.voice, *options, "--stdout", text]
        done = subprocess.run(command, check=True, capture_output=True, timeout=30)
        return speech.samples(done.stdout).tobytes()


def data_folder() -> Path:
    """Where espeak-ng keeps its voices, as it says itself."""
    said = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True, timeout=30)
    found = re.search(r"Data at: (.+)", said.stdout)
    if found is None:
        raise SystemExit(f"espeak-ng does not say where its data is; it said: {said.stdout}")
    return Path(found[1].strip())


def _library() -> ctypes.CDLL | None:
    """The shared library: the system's, or the one beside the program that is on the PATH."""
    program = shutil.which("espeak-ng")
    beside = [Path(program).resolve().parent.parent / "lib" / "libespeak-ng.so.1"] if program else []
    named = ctypes.util.find_library("espeak-ng")
    for candidate in (*(str(path) for path in beside if path.exists()), named, "libespeak-ng.so.1"):
        try:
            if candidate:
                return ctypes.CDLL(candidate)
        except OSError:
            continue
    return None
