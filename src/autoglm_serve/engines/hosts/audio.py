"""Audio as people upload it, made into what a speech model takes: 16 kHz, one channel, bounded windows.

Owns the formats, the bounds and the cuts. Knows nothing of HTTP or of any engine. Everything that reaches an
engine has passed here, because llama.cpp ends its own process over a clip of one sample.
"""

import io
import resource
import subprocess
import sys
import wave
from array import array
from collections.abc import Iterator
from contextlib import suppress

import miniaudio  # type: ignore[import-untyped,import-not-found,unused-ignore]

from autoglm_serve.core.refusal import Refusal

RATE_HZ = 16_000
LONGEST_S = 900.0
"""Of one upload, decoded: 29 MB. A few kilobytes of FLAC can hold hours of silence."""
TAKEN = "wav, mp3, flac and ogg (Vorbis)"
_SILENT = 100  # peak, about -50 dB: nothing that a person would call speech
_QUIET, _USUAL = 6_500, 16_000  # peaks: below the first, a clip is raised to the second
_LOOK_S = 0.1  # a cut falls into the quietest stretch of this length
_APART_S = 15.0
_APART_BYTES = 1 << 30

_MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3")
_NOT_TAKEN: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b"caff", "CAF"),
    (0, b"FORM", "AIFF"),
)


def decode(data: bytes, *, shortest_s: float = 0.0, longest_s: float = LONGEST_S) -> "array[int]":
    """The sound as 16-bit samples at 16 kHz, one channel. What a cut-off file still holds is taken.

    Raises Refusal for what is no audio of a format that is taken, or is too short or too long.
    """
    _require_taken(data)
    decoder = _decoded_apart if data.startswith(b"OggS") else _decoded
    sound = decoder(data, int(longest_s * RATE_HZ) + 1)
    if not sound:
        raise _refusal("invalid_audio", f"is damaged, or cut off before its first sound. {_taken()}")
    if len(sound) > longest_s * RATE_HZ:
        raise _refusal("audio_too_long", f"is longer than {longest_s:g} s, the most that is taken")
    if len(sound) < shortest_s * RATE_HZ:
        raise _refusal(
            "audio_too_short",
            f"holds {len(sound) / RATE_HZ:.3f} s of sound; at least {shortest_s:g} s are needed",
        )
    return sound


def windows(sound: "array[int]", longest_s: float) -> Iterator["array[int]"]:
    """The sound in pieces of at most `longest_s`, cut where it is quietest."""
    longest, start = int(longest_s * RATE_HZ), 0
    while len(sound) - start > longest:
        cut = _quietest(sound, start + longest // 2, start + longest)
        yield sound[start:cut]
        start = cut
    yield sound[start:]


def is_silent(sound: "array[int]") -> bool:
    return _peak(sound) < _SILENT


def wav(sound: "array[int]", shortest_s: float = 0.0) -> bytes:
    """A WAV file; quiet sound is raised to the volume of speech, short sound lengthened by silence."""
    peak = _peak(sound)
    if 0 < peak < _QUIET:
        gain = _USUAL / peak
        sound = array("h", (round(sample * gain) for sample in sound))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(sound.tobytes())
        out.writeframes(bytes(2 * max(0, int(shortest_s * RATE_HZ) - len(sound))))
    return file.getvalue()


def _decoded(data: bytes, most_samples: int) -> "array[int]":
    """As many samples as can be had; none where it is no audio."""
    sound: array[int] = array("h")
    with suppress(miniaudio.MiniaudioError):
        stream = miniaudio.stream_memory(data, miniaudio.SampleFormat.SIGNED16, 1, RATE_HZ, RATE_HZ)
        for chunk in stream:
            sound.extend(chunk)
            if len(sound) >= most_samples:
                stream.close()
    return sound


def _decoded_apart(data: bytes, most_samples: int) -> "array[int]":
    """The same in a process of its own: damaged Ogg files make the Vorbis decoder corrupt its memory."""
    sound: array[int] = array("h")
    with suppress(subprocess.SubprocessError):
        argv = (sys.executable, "-m", __name__, str(most_samples))
        ran = subprocess.run(argv, input=data, capture_output=True, timeout=_APART_S, check=True)
        sound.frombytes(ran.stdout)
    return sound


def _require_taken(data: bytes) -> None:
    """miniaudio would look for an MP3 frame in anything; the first bytes say what was meant."""
    if not data:
        raise _refusal("invalid_audio", f"is empty. {_taken()}")
    if data.startswith(b"OggS") and b"OpusHead" in data[:128]:
        raise _refusal("unsupported_audio", f"is Ogg Opus. {_taken()}")
    for at, magic, name in _NOT_TAKEN:
        if data.startswith(magic, at):
            raise _refusal("unsupported_audio", f"is {name}. {_taken()}")
    bare_mpeg_frame = data[0] == 0xFF and data[1:2] >= b"\xe0"
    if not (data.startswith(_MAGIC) or bare_mpeg_frame):
        raise _refusal("invalid_audio", f"is no audio file. {_taken()}")


def _taken() -> str:
    return f"Formats that are taken: {TAKEN}"


def _refusal(code: str, what: str) -> Refusal:
    return Refusal(400, code, f"The audio {what}.", param="file")


def _quietest(sound: "array[int]", start: int, end: int) -> int:
    """The middle of the quietest stretch; the latest, where several are equally quiet."""
    look = int(_LOOK_S * RATE_HZ)
    starts = range(end - look, start, -look)
    return min(starts, key=lambda at: _peak(sound[at : at + look]), default=end - look) + look // 2


def _peak(sound: "array[int]") -> int:
    return max(max(sound, default=0), -min(sound, default=0))


if __name__ == "__main__":  # `_decoded_apart`
    resource.setrlimit(resource.RLIMIT_AS, (_APART_BYTES, _APART_BYTES))
    sys.stdout.buffer.write(_decoded(sys.stdin.buffer.read(), int(sys.argv[1])).tobytes())
