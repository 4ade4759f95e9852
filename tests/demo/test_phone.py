"""The pretend phone answers as adb does, so that an agent can do an errand on it."""

from __future__ import annotations

import base64
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from autoglm_serve.demo import actions, adb, errands, phone
from autoglm_serve.demo.errands import Errand
from autoglm_serve.demo.words import Word
from autoglm_serve.demo.world import Phone

PNG = b"\x89PNG"


def device_of(errand: Errand) -> adb.Device:
    return adb.Device(phone=errand.start)


def call(device: adb.Device, line: str, now_s: float = 0.0) -> tuple[adb.Device, str]:
    device, answer = adb.answer(device, line.split(" "), lambda phone: PNG, now_s)
    assert answer.status == 0, answer.out
    return device, answer.out.decode(errors="replace")


@pytest.fixture
def device() -> adb.Device:
    return device_of(phone.errand_of(1, "zh"))


def test_it_is_found_and_measured(device: adb.Device) -> None:
    assert f"{adb.SERIAL}\tdevice" in call(device, "devices")[1]
    assert call(device, f"-s {adb.SERIAL} shell wm size")[1] == "Physical size: 1080x2400\n"
    assert adb.ADB_KEYBOARD in call(device, "shell ime list -s")[1]
    assert "com.tencent.mm" not in call(device, "shell dumpsys window")[1]


def test_a_screenshot_comes_at_once_or_by_a_file(device: adb.Device) -> None:
    assert adb.answer(device, ["exec-out", "screencap", "-p"], lambda _: PNG, 0.0)[1].out == PNG
    device, _ = call(device, "shell screencap -p /sdcard/tmp.png")
    assert adb.answer(device, ["pull", "/sdcard/tmp.png", "here.png"], lambda _: b"", 0.0)[1].out == PNG
    assert adb.answer(device, ["pull", "/sdcard/none.png", "x"], lambda _: b"", 0.0)[1].status == 1


def test_apps_are_started_by_package_and_seen_in_front(device: adb.Device) -> None:
    for line in (
        "shell monkey -p com.tencent.mm -c android.intent.category.LAUNCHER 1",
        "shell am start -n com.tencent.mm/.ui.LauncherUI",
    ):
        started, _ = call(device, line)
        assert "com.tencent.mm" in call(started, "shell dumpsys window | grep mCurrentFocus")[1]
        assert "mFocusedApp" not in call(started, "shell dumpsys window | grep mCurrentFocus")[1]
        home, _ = call(started, "shell input keyevent KEYCODE_HOME")
        assert adb.LAUNCHER in call(home, "shell dumpsys window")[1]
    _, gone = adb.answer(device, ["shell", "monkey", "-p", "no.such.app", "1"], lambda _: b"", 0.0)
    assert gone.status != 0
    assert b"No activities found" in gone.out


def test_text_comes_by_the_adb_keyboard_and_by_input() -> None:
    device, field = at_a_field()
    asked, _ = call(device, "shell am broadcast -a ADB_INPUT_B64 --es msg " + encoded("你好"))
    assert asked.phone.value(field) == ""  # another keyboard is on
    device, _ = call(device, f"shell ime set {adb.ADB_KEYBOARD}")
    device, _ = call(device, "shell am broadcast -a ADB_INPUT_B64 --es msg ")
    device, _ = call(device, "shell am broadcast -a ADB_CLEAR_TEXT")
    device, _ = call(device, "shell am broadcast -a ADB_INPUT_B64 --es msg " + encoded("你好"))
    assert device.phone.value(field) == "你好"
    device, _ = call(device, "shell input text a%sb")
    assert device.phone.value(field) == "你好a b"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def at_a_field() -> tuple[adb.Device, Word]:
    """A phone whose field has the focus."""
    for number in range(1000):
        errand = errands.imagine_errand(random.Random(f"field:{number}"))
        current = errand.start
        while not (step := errands.next_step(errand, current)).done:
            current = errands.carry_out(current, step)
            if current.focus is not None:
                return adb.Device(phone=current), current.focus
    raise AssertionError


def test_pages_load_and_the_owner_comes_with_time() -> None:
    slow, locked = (found(kind) for kind in ("waits", "locked"))
    assert slow.phone.waits
    assert not adb.settled(slow, 10.0).phone.waits
    assert locked.phone.locked
    assert adb.settled(locked, adb.OWNER_S / 2).phone.locked
    assert not adb.settled(locked, adb.OWNER_S).phone.locked


def found(kind: str) -> adb.Device:
    for number in range(1000):
        errand = errands.imagine_errand(random.Random(f"{kind}:{number}"))
        current = errand.start
        while not (step := errands.next_step(errand, current)).done:
            current = errands.carry_out(current, step)
            if getattr(current, kind) and not (kind == "locked" and current.waits):
                return adb.Device(phone=current)
    raise AssertionError


@pytest.mark.parametrize(
    "line", ["shell reboot", "fly", "shell input tap here there", "shell am start -n no/.A"]
)
def test_what_it_does_not_know_it_says(device: adb.Device, line: str) -> None:
    after, answer = adb.answer(device, line.split(), lambda _: b"", 0.0)
    assert answer.status != 0
    assert answer.out
    assert after.phone == device.phone


class Adb:
    """The program that a phone has put into a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, *arguments: str) -> bytes:
        command = ["adb", *arguments]
        environment = {**os.environ, "PATH": self._path}
        ran = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
        return ran.stdout


def act(run: Adb, action: actions.Action) -> None:
    """An action as a phone agent carries it out by adb."""

    def px(point: tuple[int, int]) -> list[str]:
        return [str(point[0] * phone.SIZE_PX[0] // 1000), str(point[1] * phone.SIZE_PX[1] // 1000)]

    match action.name:
        case "Tap":
            run("shell", "input", "tap", *px(action.point()))
        case "Swipe":
            run("shell", "input", "swipe", *px(action.point("start")), *px(action.point("end")), "600")
        case "Type":
            run("shell", "ime", "set", adb.ADB_KEYBOARD)
            run("shell", "am", "broadcast", "-a", "ADB_CLEAR_TEXT")
            run(
                "shell", "am", "broadcast", "-a", "ADB_INPUT_B64", "--es", "msg", encoded(action.text("text"))
            )
        case "Launch":
            app = next(app for app in adb.PACKAGES if action.text("app") in (app.zh, app.en))
            run("shell", "monkey", "-p", adb.PACKAGES[app], "-c", "android.intent.category.LAUNCHER", "1")
        case "Back":
            run("shell", "input", "keyevent", "4")
        case "Home":
            run("shell", "input", "keyevent", "KEYCODE_HOME")
        case _:
            pass


def shown_by(run: Adb, expected: Phone) -> bool:
    """Whether the phone shows what this one shows, in time: pages load, and its owner takes a moment."""
    wanted = Image.open(io.BytesIO(phone.png(expected))).tobytes()
    return any(
        Image.open(io.BytesIO(run("exec-out", "screencap", "-p"))).tobytes() == wanted for _ in range(60)
    )


def test_an_errand_is_done_through_the_adb_on_the_path(tmp_path: Path) -> None:
    errand = phone.errand_of(3, None)
    with subprocess.Popen(
        [sys.executable, "-m", "autoglm_serve.demo.phone", "--adb", str(tmp_path), "--seed", "3"],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert str(tmp_path) in process.stdout.readline()
            assert errand.said in process.stdout.readline()
            run, current = Adb(tmp_path), errand.start
            assert shown_by(run, current)
            while not (step := errands.next_step(errand, current)).done:
                act(run, actions.parse(step.action))
                current = errands.carry_out(current, step)
                assert current.waits or current.locked or shown_by(run, current)
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert not (tmp_path / "adb").exists()


def test_a_task_is_one_with_an_app_that_agents_launch_by_its_name_there() -> None:
    for seed in range(12):
        for language in ("zh", "en"):
            errand = phone.errand_of(seed, language)
            assert errand.language == errand.start.world.language == language
            assert errand.app.text(language) in adb.BY_NAME
