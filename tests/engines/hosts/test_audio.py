"""Uploads become 16 kHz sound of a bounded length, or a refusal that says what is taken."""

from array import array
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.engines.hosts import audio
from tests.fakes import sounds

SOUND = Path(__file__).parents[1] / "captured" / "sound"


def seconds(sound: "array[int]") -> float:
    return len(sound) / audio.RATE_HZ


def refused(data: bytes, shortest_s: float = 0.1, longest_s: float = 60.0) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        audio.decode(data, shortest_s=shortest_s, longest_s=longest_s)
    assert (refusal.value.status, refusal.value.param) == (400, "file")
    return refusal.value


# --- decoding


@pytest.mark.parametrize("name", ["tone.flac", "tone.ogg", "tone.mp3"])
def test_every_format_that_is_named_is_taken(name: str) -> None:
    sound = audio.decode((SOUND / name).read_bytes())
    assert seconds(sound) == pytest.approx(1.0, abs=0.2)
    assert not audio.is_silent(sound)
    assert name.partition(".")[2] in audio.TAKEN


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (22_050, 1), (44_100, 2), (48_000, 2)])
def test_every_rate_and_both_channels_become_one_at_16_khz(rate_hz: int, channels: int) -> None:
    frames = array("h", [1000] * rate_hz * channels)
    sound = audio.decode(sounds.wav(frames, rate_hz=rate_hz, channels=channels))
    assert seconds(sound) == pytest.approx(1.0, abs=0.01)
    assert sound[8_000] == pytest.approx(1000, abs=2)


def test_a_wav_file_that_was_cut_off_is_taken_as_far_as_it_goes() -> None:
    whole = sounds.wav(sounds.tone(2.0))
    assert seconds(audio.decode(whole[: len(whole) // 2])) == pytest.approx(1.0, abs=0.01)


def test_a_wav_file_whose_length_was_left_open_is_taken() -> None:
    """As programs write it that write to a pipe."""
    whole = bytearray(sounds.wav(sounds.tone(1.0)))
    whole[4:8] = whole[40:44] = b"\x00\xf0\xff\x7f"
    assert seconds(audio.decode(bytes(whole))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_audio"),
        (b"This is a text that calls itself speech.wav." * 100, "invalid_audio"),
        (sounds.wav(sounds.tone(1.0))[:30], "invalid_audio"),
        (sounds.wav(array("h")), "invalid_audio"),
        (b"\xff\xfb\x90\x00" + bytes(5000), "invalid_audio"),
        (sounds.OGG_OPUS, "unsupported_audio"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(100), "unsupported_audio"),
        (b"\x1aE\xdf\xa3" + bytes(100), "unsupported_audio"),
    ],
    ids="empty text cut-in-its-header no-samples broken-mp3 opus m4a webm".split(),  # noqa: SIM905
)
def test_what_is_not_taken_is_told_what_is(data: bytes, code: str) -> None:
    refusal = refused(data)
    assert refusal.code == code
    assert audio.TAKEN in refusal.message


def test_a_damaged_ogg_file_ends_its_own_decoder_and_nothing_else() -> None:
    """These bytes make the Vorbis decoder corrupt its memory."""
    assert refused((SOUND / "damaged.ogg").read_bytes()).code == "invalid_audio"


def test_one_sample_is_too_short() -> None:
    assert refused(sounds.wav(array("h", [1]))).code == "audio_too_short"


def test_a_file_is_decoded_no_further_than_the_longest_that_is_taken() -> None:
    assert refused(sounds.wav(sounds.silence(3.0)), longest_s=2.0).code == "audio_too_long"
    assert seconds(audio.decode(sounds.wav(sounds.silence(2.0)), longest_s=2.0)) == 2.0


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"RIFF", b"fLaC", b"ID3", b"\xff\xfb", b""]))
def test_garbage_is_refused_or_is_sound(garbage: bytes, magic: bytes) -> None:
    with suppress(Refusal):
        audio.decode(magic + garbage)


# --- windows


@settings(deadline=None, max_examples=50)
@given(st.floats(0.1, 12.0), st.floats(0.5, 5.0))
def test_windows_are_the_whole_sound_in_pieces_that_are_not_too_long(
    length_s: float, longest_s: float
) -> None:
    sound = array("h", bytes(range(256)) * 2000)[: int(length_s * audio.RATE_HZ)]
    pieces = list(audio.windows(sound, longest_s))
    assert all(0 < seconds(piece) <= longest_s for piece in pieces)
    assert sum(pieces, array("h")) == sound


def test_a_long_sound_is_cut_at_its_pause() -> None:
    sound = sounds.tone(3.0) + sounds.silence(0.5) + sounds.tone(3.0)
    first, second = audio.windows(sound, 5.0)
    assert 3.0 <= seconds(first) <= 3.5
    assert seconds(first) + seconds(second) == seconds(sound)


# --- what the model gets


def test_quiet_speech_is_raised_and_loud_speech_left_alone() -> None:
    loud, quiet = sounds.tone(0.5, peak=20_000), sounds.tone(0.5, peak=400)
    assert audio.decode(audio.wav(loud)) == loud
    assert max(audio.decode(audio.wav(quiet))) == pytest.approx(16_000, rel=0.05)


def test_short_sound_is_lengthened_by_silence() -> None:
    sound = audio.decode(audio.wav(sounds.tone(0.1), shortest_s=0.5))
    assert seconds(sound) == 0.5
    assert audio.is_silent(sound[audio.RATE_HZ // 5 :])


def test_silence_is_what_nobody_could_hear() -> None:
    assert audio.is_silent(sounds.silence(1.0))
    assert audio.is_silent(sounds.tone(1.0, peak=50))
    assert not audio.is_silent(sounds.tone(1.0, peak=1_000))
