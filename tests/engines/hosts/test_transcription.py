"""The transcription API: what a form asks for, and how each format answers."""

import json

import pytest

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.engines.hosts.transcription import (
    Format,
    Segment,
    TranscriptionRequest,
    answer,
    delta,
    done,
    guessed_language,
    read_ask,
)

SEGMENTS = [
    Segment(start_s=0.0, end_s=2.0, text="open settings", prompt_tokens=400, completion_tokens=3),
    Segment(start_s=2.0, end_s=3.0),
    Segment(start_s=3.0, end_s=4.5, text="then wechat", prompt_tokens=400, completion_tokens=4),
]


def asked(**fields: bytes) -> TranscriptionRequest:
    return read_ask({"file": b"RIFF", **fields})


def test_a_form_needs_nothing_but_its_file() -> None:
    assert asked() == TranscriptionRequest(file=b"RIFF")


def test_every_field_is_read() -> None:
    ask = asked(
        model=b"m",
        prompt=b"names",
        language=b"en",
        response_format=b"verbose_json",
        temperature=b"0.2",
        stream=b"true",
    )
    assert (ask.format, ask.temperature, ask.language, ask.stream) == (Format.VERBOSE_JSON, 0.2, "en", True)


@pytest.mark.parametrize("format", ["srt", "vtt", "diarized_json", "\u00e9"])
def test_a_format_with_word_times_is_refused_with_those_there_are(format: str) -> None:
    with pytest.raises(Refusal, match="json, text, verbose_json") as refusal:
        asked(response_format=format.encode())
    assert refusal.value.param == "response_format"


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", b"hot"), ("temperature", b"2"), ("temperature", b"nan"), ("stream", b"yes")],
)
def test_a_wrong_value_names_its_field(field: str, value: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        asked(**{field: value})
    assert (refusal.value.status, refusal.value.param) == (400, field)


def test_a_form_without_a_file_says_so() -> None:
    with pytest.raises(Refusal) as refusal:
        read_ask({"model": b"m"})
    assert refusal.value.param == "file"


def test_json_has_the_text_and_what_it_cost() -> None:
    content_type, body = answer(SEGMENTS, asked(), 4.5)
    assert content_type == "application/json"
    assert json.loads(body) == {
        "text": "open settings then wechat",
        "usage": {"type": "tokens", "input_tokens": 800, "output_tokens": 7, "total_tokens": 807},
    }


def test_text_is_bare() -> None:
    assert answer(SEGMENTS, asked(response_format=b"text"), 4.5)[1] == b"open settings then wechat\n"


def test_verbose_json_has_duration_language_and_segments() -> None:
    body = json.loads(answer(SEGMENTS, asked(response_format=b"verbose_json"), 4.5)[1])
    assert (body["duration"], body["language"], body["task"]) == (4.5, "english", "transcribe")
    assert [(each["id"], each["start"], each["text"]) for each in body["segments"]] == [
        (0, 0.0, "open settings"),
        (1, 3.0, "then wechat"),
    ]


def test_silence_is_an_empty_text() -> None:
    assert json.loads(answer([Segment(start_s=0, end_s=1)], asked(), 1.0)[1])["text"] == ""


def test_a_stream_has_deltas_and_a_last_event_with_all_of_it() -> None:
    assert json.loads(delta("open")[6:]) == {"type": "transcript.text.delta", "delta": "open"}
    last = json.loads(done(SEGMENTS)[6:])
    assert (last["type"], last["text"]) == ("transcript.text.done", "open settings then wechat")


def test_the_language_is_told_by_its_script() -> None:
    assert [guessed_language(text) for text in ("打开 WeChat", "open wechat")] == ["chinese", "english"]
