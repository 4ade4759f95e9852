"""What a phone answers on adb's command line.

Owns the subset of adb and of Android's shell that agents use, and the names of packages. Pure: a device and a
command in, the device after it and the answer out; time is passed in. Knows nothing of processes or sockets,
and of pictures only that somebody else draws them.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as field_of
from itertools import pairwise
from typing import TypeAlias

from . import words
from .words import Word
from .world import Path, Phone

SERIAL = "emulator-5554"
ADB_KEYBOARD = "com.android.adbkeyboard/.AdbIME"
OWN_KEYBOARD = "com.android.inputmethod.latin/.LatinIME"
LAUNCHER = "com.android.launcher3"
LOAD_S = 1.0
"""How long a page loads that takes one look to load."""
OWNER_S = 3.0
"""How long the owner needs for the password."""

KNOWN = {
    "WeChat": "com.tencent.mm", "Alipay": "com.eg.android.AlipayGphone", "Taobao": "com.taobao.taobao",
    "JD": "com.jingdong.app.mall", "Douyin": "com.ss.android.ugc.aweme", "Meituan": "com.sankuai.meituan",
    "Amap": "com.autonavi.minimap", "Baidu": "com.baidu.searchbox", "Bilibili": "tv.danmaku.bili",
    "Weibo": "com.sina.weibo", "Zhihu": "com.zhihu.android", "Rednote": "com.xingin.xhs",
    "Pinduoduo": "com.xunmeng.pinduoduo", "DiDi": "com.sdu.didi.psnger",
    "NetEase": "com.netease.cloudmusic", "Trip": "ctrip.android.view", "Settings": "com.android.settings",
    "Camera": "com.android.camera2", "Gallery": "com.android.gallery3d", "Calendar": "com.android.calendar",
    "Clock": "com.android.deskclock", "Contacts": "com.android.contacts", "Phone": "com.android.dialer",
    "Messages": "com.android.mms", "Browser": "com.android.browser", "Mail": "com.android.email",
    "Calculator": "com.android.calculator2", "Files": "com.android.fileexplorer",
}  # fmt: skip
PACKAGES: Mapping[Word, str] = {
    app: KNOWN.get(app.en, f"demo.autoglm.{app.en.lower().replace(' ', '')}") for app in words.APPS
}
"""Real names where an app has one: agents know apps by them."""
BY_NAME = frozenset({
    "微信", "淘宝", "京东", "抖音", "美团", "高德地图", "微博", "知乎", "小红书", "拼多多", "滴滴出行",
    "网易云音乐", "携程", "WeChat", "Clock", "Contacts", "Settings", "Files",
})  # fmt: skip
"""Labels that Open-AutoGLM's list of apps has, too. It launches by that list alone, and does not tell its
model when a name is not there: a task with another app never ends.
"""
APP_OF = {package: app for app, package in PACKAGES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    phone: Phone
    since_s: float = 0.0
    """When the page in front came up."""
    keyboard: str = OWN_KEYBOARD
    files: Mapping[str, bytes] = field_of(default_factory=dict)
    field: tuple[Path, Word] | None = None
    """Where the latest text went: what is typed next is added to it."""

    @property
    def package(self) -> str:
        return PACKAGES[self.phone.path[0]] if self.phone.path else LAUNCHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    out: bytes = b""
    status: int = 0

    @classmethod
    def text(cls, text: str, status: int = 0) -> Answer:
        return cls(out=text.encode(), status=status)


Draw: TypeAlias = Callable[[Phone], bytes]
Outcome: TypeAlias = tuple[Device, Answer]


def settled(device: Device, now_s: float) -> Device:
    """What time alone has done: pages have loaded, the owner has come to the password."""
    while device.phone.waits and now_s - device.since_s >= LOAD_S:
        device = replace(device, phone=device.phone.wait(), since_s=device.since_s + LOAD_S)
    if device.phone.locked and now_s - device.since_s >= OWNER_S:
        device = replace(device, phone=device.phone.unlock())
    return device


def answer(device: Device, arguments: list[str], draw: Draw, now_s: float) -> Outcome:
    """One call of adb."""
    device = settled(device, now_s)
    arguments = _without_target(arguments)
    match arguments:
        case ["devices", *_]:
            return device, Answer.text(f"List of devices attached\n{SERIAL}\tdevice\n\n")
        case ["version" | "--version", *_]:
            return device, Answer.text("Android Debug Bridge version 1.0.41\nVersion 35.0.0-pretend-phone\n")
        case ["get-state"]:
            return device, Answer.text("device\n")
        case ["get-serialno"]:
            return device, Answer.text(f"{SERIAL}\n")
        case ["start-server" | "kill-server" | "wait-for-device" | "root" | "reconnect", *_]:
            return device, Answer()
        case ["connect", where]:
            return device, Answer.text(f"connected to {where}\n")
        case ["disconnect", *_]:
            return device, Answer.text("disconnected everything\n")
        case ["shell" | "exec-out", *command] if command:
            return _shell(device, " ".join(command), draw, now_s)
        case ["pull", remote, *_] if remote in device.files:
            return device, Answer(out=device.files[remote])
        case ["pull", remote, *_]:
            failed = f"adb: error: failed to stat remote object '{remote}': No such file or directory\n"
            return device, Answer.text(failed, 1)
        case _:
            said = " ".join(arguments) or "nothing"
            return device, Answer.text(f"adb: this pretend phone does not know: {said}\n", 1)


def _without_target(arguments: list[str]) -> list[str]:
    rest = list(arguments)
    while rest and rest[0] in ("-s", "-t", "-H", "-P", "-L"):
        rest = rest[2:]
    return rest[1:] if rest and rest[0] in ("-d", "-e", "-a") else rest


def _shell(device: Device, line: str, draw: Draw, now_s: float) -> Outcome:
    """A line of Android's shell: commands one after another, each perhaps through grep."""
    out, status = b"", 0
    for part in _parts(line):
        command, *filters = part
        device, found = _command(device, command, draw, now_s)
        text, status = found.out, found.status
        for words_of in filters:
            text = _filtered(text, words_of)
        out += text
    return device, Answer(out=out, status=status)


def _parts(line: str) -> list[list[list[str]]]:
    """Commands, each with what it is piped into, each in words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError:
        tokens = line.split()
    parts: list[list[list[str]]] = [[[]]]
    for token in tokens:
        if token in ("&&", ";", "||", "&"):
            parts.append([[]])
        elif token == "|":
            parts[-1].append([])
        else:
            parts[-1][-1].append(token)
    return [part for part in parts if part[0]]


def _filtered(text: bytes, command: list[str]) -> bytes:
    if command[:1] not in (["grep"], ["egrep"]):
        return text
    wanted = next((word for word in command[1:] if not word.startswith("-")), "")
    any_of = [choice.encode() for choice in wanted.replace("\\|", "|").split("|")]
    lines = [line for line in text.splitlines(keepends=True) if any(choice in line for choice in any_of)]
    return b"".join(lines)


def _command(device: Device, command: list[str], draw: Draw, now_s: float) -> Outcome:
    match command:
        case ["screencap", *options]:
            path = next((word for word in options if word.startswith("/")), None)
            picture = draw(device.phone)
            if path is None:
                return device, Answer(out=picture)
            return replace(device, files={**device.files, path: picture}), Answer()
        case ["cat", path] if path in device.files:
            return device, Answer(out=device.files[path])
        case ["rm", *paths]:
            kept = {name: data for name, data in device.files.items() if name not in paths}
            return replace(device, files=kept), Answer()
        case ["input", *what]:
            return _input(device, what, now_s)
        case ["am", "broadcast", *what]:
            return _broadcast(device, what)
        case ["am", "start", *what]:
            return _start(device, what, now_s)
        case ["am", "force-stop", package]:
            if package == device.package and device.phone.path:
                return _at(device, device.phone.home(), now_s), Answer()
            return device, Answer()
        case ["monkey", *what]:
            return _monkey(device, what, now_s)
        case ["ime", *what]:
            return _ime(device, what)
        case ["settings", "get", "secure", "default_input_method"]:
            return device, Answer.text(f"{device.keyboard}\n")
        case _:
            return device, _told(device, command)


def _told(device: Device, command: list[str]) -> Answer:
    """What is only asked."""
    width, height = device.phone.world.size_px
    focus = f"Window{{5f1d2e u0 {device.package}/{device.package}.MainActivity}}"
    match command:
        case ["dumpsys", "window", *_]:
            return Answer.text(
                f"  mCurrentFocus={focus}\n"
                f"  mFocusedApp=ActivityRecord{{77aa u0 {device.package}/.MainActivity t12}}\n"
            )
        case ["dumpsys", "activity", *_]:
            return Answer.text(
                f"  mResumedActivity: ActivityRecord{{77aa u0 {device.package}/.MainActivity t12}}\n"
            )
        case ["dumpsys", "power", *_]:
            return Answer.text("  mWakefulness=Awake\n  Display Power: state=ON\n")
        case ["dumpsys", "input_method", *_]:
            return Answer.text(f"  mInputShown={str(device.phone.focus is not None).lower()}\n")
        case ["wm", "size"]:
            return Answer.text(f"Physical size: {width}x{height}\n")
        case ["wm", "density"]:
            return Answer.text("Physical density: 420\n")
        case ["pm", "list", "packages", *_]:
            apps = device.phone.world.apps
            return Answer.text("".join(f"package:{PACKAGES[app]}\n" for app in apps))
        case ["getprop", *name]:
            return Answer.text(_PROPERTIES.get(name[0] if name else "", "") + "\n")
        case ["echo", *said]:
            return Answer.text(" ".join(said) + "\n")
        case ["settings" | "svc" | "cmd" | "sleep" | "ls" | "mkdir" | "true", *_]:
            return Answer()
        case _:
            return Answer.text(f"/system/bin/sh: {command[0]}: inaccessible or not found\n", 127)


_PROPERTIES = {
    "ro.product.model": "Pretend Phone", "ro.product.manufacturer": "autoglm-serve",
    "ro.build.version.release": "14", "ro.build.version.sdk": "34", "sys.boot_completed": "1",
}  # fmt: skip


def _at(device: Device, phone: Phone, now_s: float) -> Device:
    """The device with this phone; the clock of its page starts anew where another page came up."""
    since_s = device.since_s if phone.path == device.phone.path else now_s
    return replace(device, phone=phone, since_s=since_s)


def _input(device: Device, what: list[str], now_s: float) -> Outcome:
    what = [word for word in what if word not in ("touchscreen", "keyboard", "touchpad")]
    try:
        match what:
            case ["tap", x, y]:
                return _at(device, device.phone.tap(*_thousandths(device, x, y)), now_s), Answer()
            case ["swipe" | "draganddrop", x, y, to_x, to_y, *_]:
                start, end = _thousandths(device, x, y), _thousandths(device, to_x, to_y)
                return _at(device, _swiped(device.phone, start, end), now_s), Answer()
            case ["text", *said]:
                return _typed(device, " ".join(said).replace("%s", " ")), Answer()
            case ["keyevent", *keys]:
                phone = device.phone
                for key in keys:
                    phone = _pressed(phone, key)
                return _at(device, phone, now_s), Answer()
    except ValueError:
        pass
    return device, Answer.text(f"Error: Invalid arguments for command: {' '.join(what)}\n", 255)


def _thousandths(device: Device, x: str, y: str) -> tuple[int, int]:
    width, height = device.phone.world.size_px
    return round(1000 * float(x) / width), round(1000 * float(y) / height)


def _swiped(phone: Phone, start: tuple[int, int], end: tuple[int, int]) -> Phone:
    """A finger that stays where it is touches."""
    if max(abs(start[0] - end[0]), abs(start[1] - end[1])) < 10:
        return phone.tap(*start)
    return phone.swipe(start, end)


def _pressed(phone: Phone, key: str) -> Phone:
    match key.removeprefix("KEYCODE_"):
        case "BACK" | "4":
            return phone.back()
        case "HOME" | "3":
            return phone.home()
        case "ENTER" | "66" | "ESCAPE" | "111":
            return replace(phone, focus=None)
        case _:
            return phone


def _broadcast(device: Device, what: list[str]) -> Outcome:
    """How ADB Keyboard takes text."""
    named = dict(pairwise(what))
    action, done = named.get("-a", ""), Answer.text("Broadcasting: Intent\nBroadcast completed: result=0\n")
    if device.keyboard != ADB_KEYBOARD:
        return device, done
    extra = what.index("--es") if "--es" in what else -1
    said = what[extra + 2] if 0 <= extra < len(what) - 2 else ""
    match action:
        case "ADB_INPUT_TEXT":
            return _typed(device, said), done
        case "ADB_INPUT_B64":
            try:
                text = base64.b64decode(said).decode()
            except (binascii.Error, UnicodeDecodeError):
                return device, done
            return _typed(device, text), done
        case "ADB_CLEAR_TEXT":
            return replace(device, phone=_cleared(device.phone)), done
        case _:
            return device, done


def _typed(device: Device, text: str) -> Device:
    """Text for the field that has the focus, or more of it for the one that had it last."""
    phone = device.phone
    if not text:
        return device
    if phone.focus is not None:
        return replace(device, phone=phone.type(text), field=(phone.path, phone.focus))
    if device.field is None or device.field[0] != phone.path:
        return device
    whole = phone.typed.get(device.field, "") + text
    return replace(device, phone=replace(phone, typed={**phone.typed, device.field: whole}))


def _cleared(phone: Phone) -> Phone:
    if phone.focus is None:
        return phone
    return replace(phone, typed={**phone.typed, (phone.path, phone.focus): ""})


def _start(device: Device, what: list[str], now_s: float) -> Outcome:
    named = dict(pairwise(what))
    package = (named.get("-n") or named.get("-p") or "").partition("/")[0]
    if named.get("-c") == "android.intent.category.HOME":
        return _at(device, device.phone.home(), now_s), Answer.text("Starting: Intent\n")
    if named.get("-a") == "android.settings.SETTINGS":
        package = "com.android.settings"
    if package not in APP_OF:
        return device, Answer.text(f"Error type 3\nError: Activity class {{{package}}} does not exist.\n", 1)
    return _at(device, device.phone.launch(APP_OF[package]), now_s), Answer.text("Starting: Intent\n")


def _monkey(device: Device, what: list[str], now_s: float) -> Outcome:
    package = dict(pairwise(what)).get("-p", "")
    if package not in APP_OF:
        return device, Answer.text("** No activities found to run, monkey aborted.\n", 252)
    return _at(device, device.phone.launch(APP_OF[package]), now_s), Answer.text("Events injected: 1\n")


def _ime(device: Device, what: list[str]) -> Outcome:
    match what:
        case ["list", *_]:
            return device, Answer.text(f"{OWN_KEYBOARD}\n{ADB_KEYBOARD}\n")
        case ["set", keyboard]:
            told = Answer.text(f"Input method {keyboard} selected for user #0\n")
            return replace(device, keyboard=keyboard), told
        case ["enable", keyboard]:
            return device, Answer.text(f"Input method {keyboard}: already enabled for user #0\n")
        case _:
            return device, Answer()
