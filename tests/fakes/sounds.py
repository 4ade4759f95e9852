"""Sounds for tests, made from nothing: WAV files of tones, silence and chords."""

import io
import math
import random
import wave
from array import array

RATE_HZ = 16_000


def tone(seconds: float, *, hertz: float = 440.0, peak: int = 16_000) -> "array[int]":
    turn = 2 * math.pi * hertz / RATE_HZ
    return array("h", (round(peak * math.sin(turn * at)) for at in range(round(seconds * RATE_HZ))))


def silence(seconds: float) -> "array[int]":
    return array("h", bytes(2 * round(seconds * RATE_HZ)))


def music(seconds: float) -> "array[int]":
    """Chords over a hiss."""
    rng = random.Random(1)
    notes = [tone(seconds, hertz=hertz, peak=5_000) for hertz in (220.0, 277.2, 329.6)]
    return array("h", (sum(chord) + rng.randrange(-500, 500) for chord in zip(*notes, strict=True)))


def wav(sound: "array[int]", *, rate_hz: int = RATE_HZ, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(sound.tobytes())
    return file.getvalue()


OGG_OPUS = b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x01" + bytes(40)
"""The first page of an Opus file: enough to know it by."""
