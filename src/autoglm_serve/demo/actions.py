"""The actions of a phone agent: how a reply is read, and what an action does to a phone.

A reply is read exactly as Open-AutoGLM's client reads it: cut at `finish(message=` or at `do(action=`, and
what follows parsed as a call. What that client cannot run is an error here, too. Owns the form of actions;
knows nothing of errands or models.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from .world import Phone

Value = str | list[int]


class Unreadable(ValueError):
    """The client would not find an action that it can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    name: str
    """As in do(action="…"), or "finish"."""
    arguments: dict[str, Value] = field(default_factory=dict)

    @property
    def finishes(self) -> bool:
        return self.name == "finish"

    def point(self, argument: str = "element") -> tuple[int, int]:
        value = self.arguments.get(argument)
        if not (isinstance(value, list) and len(value) == 2 and all(isinstance(part, int) for part in value)):
            raise Unreadable(f"{self.name} needs {argument}=[x,y], not {value!r}")
        return value[0], value[1]

    def text(self, argument: str) -> str:
        value = self.arguments.get(argument)
        if not isinstance(value, str):
            raise Unreadable(f"{self.name} needs {argument}, not {value!r}")
        return value


def cut(reply: str) -> tuple[str, str]:
    """The thought and the action in a reply, where the client cuts it."""
    for mark in ("finish(message=", "do(action="):
        if mark in reply:
            thought, _, rest = reply.partition(mark)
            return thought.strip(), mark + rest
    if "<answer>" in reply:
        thought, _, rest = reply.partition("<answer>")
        return thought.replace("<think>", "").replace("</think>", "").strip(), rest.replace(
            "</answer>", ""
        ).strip()
    return "", reply


def read(reply: str) -> Action:
    """The action that the client would run. Raises Unreadable where it would find none."""
    return parse(cut(reply)[1])


def parse(action: str) -> Action:
    action = action.strip()
    if action.startswith(('do(action="Type"', 'do(action="Type_Name"')):
        if "text=" not in action:
            raise Unreadable("Type needs a text")
        return Action(name="Type", arguments={"text": action.partition("text=")[2][1:-2]})
    if action.startswith("finish(message="):
        return Action(name="finish", arguments={"message": action.removeprefix("finish(message=")[1:-2]})
    if not action.startswith("do("):
        raise Unreadable("neither do(…) nor finish(…)")
    try:
        call = ast.parse(action, mode="eval").body
        assert isinstance(call, ast.Call)
        arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, AssertionError) as broken:
        raise Unreadable(f"not a call: {broken}") from broken
    name = arguments.pop("action", None)
    if not isinstance(name, str):
        raise Unreadable("do(…) needs an action")
    return Action(name=name, arguments=arguments)


def apply(phone: Phone, action: Action) -> Phone:
    """What the phone is after an action. Raises Unreadable for one that no handler knows."""
    match action.name:
        case "Tap" | "Double Tap" | "Long Press":
            return phone.tap(*action.point())
        case "Swipe":
            return phone.swipe(action.point("start"), action.point("end"))
        case "Type":
            return phone.type(action.text("text"))
        case "Launch":
            app = phone.world.app_called(action.text("app"))
            return phone if app is None else phone.launch(app)
        case "Back":
            return phone.back()
        case "Home":
            return phone.home()
        case "Wait":
            return phone.wait()
        case "Take_over" | "Interact":
            return phone.unlock() if phone.locked else phone
        case "Note" | "Call_API" | "finish":
            return phone
        case _:
            raise Unreadable(f"no such action: {action.name}")
