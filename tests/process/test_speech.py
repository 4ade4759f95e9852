"""Speech in the whole service: woken by the first audio, unharmed by any, let go when idle."""

import base64
import io
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core import multipart
from tests.fakes import sounds
from tests.process.service_process import ServiceProcess, running_service

pytestmark = pytest.mark.process

SOUND = Path(__file__).resolve().parents[1] / "engines" / "captured" / "sound"
CLIP = sounds.wav(sounds.tone(1.0))


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("--replicas", "1") as process:
        yield process


def upload(
    service: ServiceProcess, sound: bytes, path: str = "/v1/audio/transcriptions", **fields: str
) -> tuple[int, bytes]:
    parts = {"file": sound, **{name: value.encode() for name, value in fields.items()}}
    content_type, body = multipart.form(parts, "b0und4ry")
    headers = {"content-type": content_type.decode()}
    status, _, answer = service.ask("POST", path, body, headers)
    return status, answer


def speech(service: ServiceProcess) -> dict[str, Any]:
    return next(replica for replica in service.replicas() if replica["model"] == "glm-asr-demo")


def spoken(sound: bytes) -> list[dict[str, Any]]:
    data = base64.b64encode(sound).decode()
    return [
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "text", "text": "What was said?"},
    ]


def test_a_spoken_command_is_written_down(service: ServiceProcess) -> None:
    """Voices and phrases that the model was not trained on."""
    said = {"press-shoes.wav": "press shoes", "type-phone-case-zh.wav": "输入手机壳"}
    for name, words in said.items():
        status, body = upload(service, (SOUND / name).read_bytes())
        assert (status, json.loads(body)["text"].strip()) == (200, words)


def test_it_sleeps_until_somebody_speaks_and_goes_back_to_sleep() -> None:
    with running_service("--replicas", "1", "--speech-idle-s", "0.5") as service:
        assert speech(service)["state"] == "stopped"
        models = json.loads(service.ask("GET", "/v1/models")[2])["data"]
        assert ("glm-asr-demo", ["transcription"]) in [(each["id"], each["capabilities"]) for each in models]
        assert any("glm-asr-demo: hears" in str(entry.get("message")) for entry in service.log)
        for _ in range(2):
            status, body = upload(service, CLIP)
            assert status == 200, body
            service.wait_for_replicas(lambda replicas: replicas[-1]["state"] == "stopped")
        assert speech(service)["last_exit"] is None
        assert speech(service)["restarts"] == 0
        assert service.chat("hello")[0] == 200


def test_no_upload_however_bad_costs_the_replica_its_life(service: ServiceProcess) -> None:
    assert upload(service, CLIP)[0] == 200
    pid = speech(service)["pid"]
    answers = {
        "silence": sounds.wav(sounds.silence(2.0)),
        "music": sounds.wav(sounds.music(3.0)),
        "cut off": CLIP[: len(CLIP) // 2],
        "ten minutes": sounds.wav(sounds.silence(590.0) + sounds.tone(10.0)),
        **{path.name: path.read_bytes() for path in SOUND.glob("tone.*")},
    }
    for name, sound in answers.items():
        status, body = upload(service, sound)
        assert status == 200, (name, body)
    refused = {
        "one sample": sounds.wav(array("h", [1])),
        "no samples": sounds.wav(array("h")),
        "empty": b"",
        "text": b"I am a text file called speech.wav.\n" * 50,
        "cut in its head": CLIP[:30],
        "opus": sounds.OGG_OPUS,
        "damaged": (SOUND / "damaged.ogg").read_bytes(),
    }
    for name, sound in refused.items():
        for stream in ("false", "true"):
            status, body = upload(service, sound, stream=stream)
            assert status == 400, (name, body)
            assert json.loads(body)["error"]["param"] == "file"
        status, _, body = service.chat(spoken(sound))
        assert (status, json.loads(body)["error"]["param"]) == (400, "messages[0].content[0]"), name
    for form in (b"", b"--x\r\n", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n", bytes(1000)):
        headers = {"content-type": "multipart/form-data; boundary=x"}
        assert service.ask("POST", "/v1/audio/transcriptions", form, headers)[0] == 400
    assert (speech(service)["pid"], speech(service)["restarts"]) == (pid, 0)


def test_silence_is_an_empty_text(service: ServiceProcess) -> None:
    status, body = upload(service, sounds.wav(sounds.silence(1.0)))
    assert (status, json.loads(body)["text"]) == (200, "")


def test_every_format_of_the_answer(service: ServiceProcess) -> None:
    text = json.loads(upload(service, CLIP)[1])["text"]
    assert upload(service, CLIP, response_format="text")[1].decode() == text + "\n"
    verbose = json.loads(upload(service, CLIP, response_format="verbose_json")[1])
    assert (verbose["text"], verbose["duration"]) == (text, 1.0)
    status, body = upload(service, CLIP, response_format="srt")
    assert (status, json.loads(body)["error"]["param"]) == (400, "response_format")


def test_a_translation_is_refused_with_what_there_is_instead(service: ServiceProcess) -> None:
    status, body = upload(service, CLIP, "/v1/audio/translations")
    assert status == 400
    assert "/v1/audio/transcriptions" in json.loads(body)["error"]["message"]


def test_openai_s_own_client_transcribes_and_streams(service: ServiceProcess) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=service.url + "/v1", api_key="EMPTY")
    create = client.audio.transcriptions.create
    clip = io.BytesIO(CLIP)
    clip.name = "clip.wav"
    whole = create(model="glm-asr-demo", file=clip)
    clip.seek(0)
    events = list(create(model="glm-asr-demo", file=clip, stream=True))
    assert events[-1].text == whole.text
    assert "".join(event.delta for event in events[:-1]) == whole.text


def test_a_chat_takes_speech(service: ServiceProcess) -> None:
    status, _, body = service.chat(spoken(CLIP))
    assert status == 200, body
    status, _, body = service.chat(spoken(CLIP), stream=True)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


def test_with_speech_off_there_is_none_and_a_chat_says_how_to_get_it() -> None:
    with running_service("--replicas", "1", "--no-speech") as service:
        assert len(service.replicas()) == 1
        assert upload(service, CLIP)[0] == 404
        status, _, body = service.chat(spoken(CLIP))
        assert (status, json.loads(body)["error"]["code"]) == (400, "no_hearing")
