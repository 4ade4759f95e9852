"""The evaluation, against a server that answers from the script."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autoglm_serve.demo import evaluate, speech

ANSWERS: dict[str, str] = {}


class _Server(BaseHTTPRequestHandler):
    """Answers every chat from ANSWERS, by the text of its last part."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": "autoglm-phone-demo"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        self._send({"choices": [{"message": {"content": ANSWERS.get(text, "I do not know.")}}]})

    def _send(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_right_answers_count_and_wrong_ones_do_not(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ANSWERS.clear()
    ANSWERS.update({case.instruction: case.reply for _, case in evaluate.held_out_cases("action", 3, 2)})
    ANSWERS.update(dict(evaluate.held_out_talk(3, 1)))
    code = evaluate.main(
        ["--url", url, "--seed", "3", "--count", "2", "--tasks", "action,question", "--json",
         "--pictures", str(tmp_path)]
    )  # fmt: skip
    scores = json.loads(capsys.readouterr().out)
    assert code == 0
    assert scores["action"] == {"count": 2, "right": 2, "accuracy": 1.0}
    assert scores["question"]["right"] == 0
    assert len(list(tmp_path.glob("action-*-hit.png"))) == 2
    assert "expected" in next(tmp_path.glob("question-*-miss.txt")).read_text(encoding="utf-8")


def test_whole_tasks_are_played_counted_and_kept_as_pictures(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script knows no errand: every one ends with an answer that no client can run."""
    ANSWERS.clear()
    code = evaluate.main(
        ["--url", url, "--count", "2", "--tasks", "errands,strangers", "--system", "300", "--json",
         "--pictures", str(tmp_path)]
    )  # fmt: skip
    told = capsys.readouterr()
    scores = json.loads(told.out)
    assert code == 0
    assert scores["errands"]["count"] == scores["errands"]["unreadable"] == 2
    assert scores["errands"]["right"] == scores["errands"]["too early"] == 0
    assert scores["strangers"] == {"count": 2, "right": 0, "accuracy": 0.0}
    assert len(list(tmp_path.glob("errand-*-unreadable.png"))) == 2
    assert "errands: 2/2" in told.err


def test_the_address_is_read_from_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ANSWERS.clear()
    ANSWERS.update(dict(evaluate.held_out_talk(1, 2)))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    assert evaluate.main(["--count", "2", "--tasks", "identity", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identity"]["right"] == 2


def test_progress_says_what_time_is_left() -> None:
    now = iter([0.0, 0.0, 10.0, 10.0, 20.0, 20.0])
    out = io.StringIO()
    show = evaluate.show_progress(out, clock=lambda: next(now))
    for done in (1, 2, 3):
        show("errands", done, 3)
    assert out.getvalue() == "errands: 1/3\nerrands: 2/3, about 10 s left\nerrands: 3/3\n"


def test_the_speech_task_says_why_it_is_skipped(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    arguments = ["--url", url, "--count", "1", "--tasks", "speech", "--speech-model", "glm-asr-demo"]
    assert evaluate.main(arguments) == 0
    assert "install it (Debian: apt-get install espeak-ng)" in capsys.readouterr().out


def test_an_address_where_nobody_answers_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--url", "http://127.0.0.1:9", "--count", "1"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_an_unknown_task_is_refused_with_the_list() -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--tasks", "tapp"])


def test_models_are_found_by_name() -> None:
    assert evaluate.choose_models(["glm-asr-demo", "autoglm-phone-demo"], None, None) == (
        "autoglm-phone-demo",
        "glm-asr-demo",
    )
    assert evaluate.choose_models(["other"], None, None) == ("other", None)
    assert evaluate.choose_models(["other"], "mine", "ear") == ("mine", "ear")


@pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")
def test_a_held_out_command_is_a_wav_of_its_seed() -> None:
    first, second = (next(evaluate.held_out_speech(5, 1)) for _ in range(2))
    assert first == second
    assert first[1][:4] == b"RIFF"
    assert speech.is_held_out(first[0].words)


def test_without_pillow_it_says_what_to_install_and_does_the_rest(url: str) -> None:
    ANSWERS.clear()
    ANSWERS.update(dict(evaluate.held_out_talk(3, 2)))
    program = "import sys; sys.modules['PIL'] = None; from autoglm_serve.demo import evaluate as e"
    asked = f"['--url', {url!r}, '--seed', '3', '--count', '2', '--tasks', 'tap,identity', '--json']"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(e.main({asked}))"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    scores = json.loads(done.stdout)
    assert "pip install pillow" in scores["tap"]["skipped"]
    assert scores["identity"] == {"count": 2, "right": 2, "accuracy": 1.0}
