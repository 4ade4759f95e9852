"""The golden model served badly, one way each: what real servers have got wrong."""

import re
from collections.abc import Callable
from dataclasses import replace

from tests.fakes.golden_model import Message, Said, Serving, tokens_of

_POINT = re.compile(r"\[(\d+),(\d+)\]")


def _without_pictures(messages: list[Message]) -> list[Message]:
    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [part for part in message["content"] if "image_url" not in part]}
        for message in messages
    ]


def _with_lists_printed(messages: list[Message]) -> list[Message]:
    """The template prints a list of parts that has no picture."""
    return [
        {**message, "content": str(message["content"])}
        if isinstance(message["content"], list)
        and not any("image_url" in part for part in message["content"])
        else message
        for message in messages
    ]


def _cut_in_front(messages: list[Message]) -> list[Message]:
    """A context of 2,048 tokens, kept by forgetting what came first."""
    kept = list(messages)
    while len(kept) > 1 and tokens_of(kept) > 2048:
        first = kept[0]["content"]
        short = " ".join(str(first).split()[-600:])
        kept[0] = {**kept[0], "content": short}
        if tokens_of(kept) > 2048:
            kept.pop(0)
    return kept


def points(change: Callable[[int, int], tuple[int, int]]) -> Callable[[str], str]:
    def says(text: str) -> str:
        return _POINT.sub(lambda found: "[{},{}]".format(*change(int(found[1]), int(found[2]))), text)

    return says


def _twice(pieces: list[str]) -> list[str]:
    return [*pieces[:3], *pieces[2:]]


def _leaked(text: str) -> str:
    return text.removeprefix("<think>")


def _goes_on(text: str) -> str:
    return f"{text}<|user|>\nAnd what then?"


def _renamed(said: Said) -> Said:
    return replace(said, model="another-model")


def _counted_twice(said: Said) -> Said:
    return replace(said, prompt_tokens=2 * said.prompt_tokens, output_tokens=2 * said.output_tokens)


def _prose(text: str) -> str:
    return "I would be happy to help you with your phone! Could you tell me more?"


BREAKAGES: dict[str, tuple[Serving, str]] = {
    "picture dropped": (Serving(given=_without_pictures), "picture seen"),
    "coordinates in pixels": (Serving(says=points(lambda x, y: (x * 108 // 100, y * 192 // 100))), "taps"),
    "coordinates from 0 to 100": (Serving(says=points(lambda x, y: (x // 10, y // 10))), "taps"),
    "template that prints lists": (Serving(given=_with_lists_printed), "parts"),
    "truncated stream": (Serving(pieces=lambda pieces: pieces[:-2]), "stream"),
    "stream without an end": (Serving(ends=False), "stream"),
    "doubled token": (Serving(pieces=_twice), "stream"),
    "replies swapped under concurrency": (Serving(exchanges=True), "concurrency"),
    "usage wrong": (Serving(told=_counted_twice), "usage"),
    "usage of the prompt wrong": (
        Serving(told=lambda said: replace(said, prompt_tokens=2 * said.prompt_tokens)), "usage",
    ),
    "thinking leaked": (Serving(says=_leaked), "thinking"),
    "stop token missed": (Serving(says=_goes_on), "stop tokens"),
    "`stop` ignored": (Serving(stops=False), "stop tokens"),
    "other model by name": (Serving(told=_renamed), "name"),
    "other model by its words": (Serving(says=_prose), "taps"),
    "picture turned": (Serving(says=points(lambda x, y: (999 - y, x))), "taps"),
    "picture upside down": (Serving(says=points(lambda x, y: (999 - x, 999 - y))), "taps"),
    "context silently cut": (Serving(given=_cut_in_front), "long context"),
    "too long a prompt cut": (Serving(refuses=False), "refusals"),
}  # fmt: skip
"""What is wrong, and the check that has to say so."""
