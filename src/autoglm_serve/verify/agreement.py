"""Whether two answers make a phone do the same. Pure."""

from dataclasses import dataclass
from math import hypot

from autoglm_serve.demo import actions
from autoglm_serve.demo.actions import Action, Unreadable

_POINTS = ("element", "start", "end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What became of one question asked twice."""

    same: bool
    how: str
    """In which way they differ, or agree: one of a few words, to be counted."""
    distance: float | None = None
    """Between two taps, in thousandths of the screen; of a swipe, the larger of its ends."""


def agreement(first: str, second: str, *, tolerance: float) -> Agreement:
    """Actions as a phone agent's client reads them; answers without one as text. `tolerance` is the distance,
    in thousandths, up to which two taps are one.
    """
    if first == second:
        return Agreement(same=True, how="same words", distance=0.0 if _read(first) else None)
    one, two = _read(first), _read(second)
    if one is None and two is None:
        return Agreement(same=False, how="other text, no action")
    if one is None or two is None:
        return Agreement(same=False, how="an action against none")
    if one.name != two.name:
        return Agreement(same=False, how="another action")
    distance = _distance(one, two)
    if distance is None:
        return Agreement(same=False, how="another place")
    if distance > tolerance:
        return Agreement(same=False, how="another place", distance=distance)
    if _rest(one) != _rest(two):
        return Agreement(same=False, how="other text in the action", distance=distance)
    return Agreement(same=True, how="same action, other words", distance=distance)


def _read(reply: str) -> Action | None:
    try:
        return actions.read(reply.removesuffix("</answer>"))  # some servers write the end token out
    except Unreadable:
        return None


def _distance(one: Action, two: Action) -> float | None:
    """None where one has a point that the other lacks, or that nobody can read."""
    furthest = 0.0
    for name in _POINTS:
        if (name in one.arguments) != (name in two.arguments):
            return None
        if name in one.arguments:
            try:
                (ax, ay), (bx, by) = one.point(name), two.point(name)
            except Unreadable:
                return None
            furthest = max(furthest, hypot(ax - bx, ay - by))
    return furthest


def _rest(action: Action) -> dict[str, object]:
    return {name: value for name, value in action.arguments.items() if name not in _POINTS}
