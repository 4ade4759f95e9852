"""The load of `autoglm plan` in flags: what is asked of it, so that a person's own or a published one can be
put into words."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import replace

from autoglm_serve.core.workload import Workload

LARGEST_SIDE_PX = 65_535
MOST_TOKENS = 1_000_000
LONGEST_THINK_S = 3600.0


def add_arguments(parser: ArgumentParser) -> None:
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--image",
        type=_image,
        metavar="WxH",
        help="The size of each request's fresh image, or none; 1080x2400:2 for two of them. [1080x2400]",
    )
    load.add_argument(
        "--prompt-tokens",
        type=_tokens,
        metavar="N",
        help="Text tokens of each prompt, all of them. [2200]",
    )
    load.add_argument(
        "--cached-tokens",
        type=_tokens_or_none,
        metavar="N",
        help="How many of them an earlier request left in the prefix cache. [1900; 0 with --prompt-tokens]",
    )
    load.add_argument(
        "--output-tokens", type=_tokens, metavar="N", help="Tokens of each answer, on average. [128]"
    )
    load.add_argument(
        "--think-time",
        type=_seconds,
        metavar="S",
        help="Seconds between an answer and the next request of a session: a phone acts and takes its "
        "screenshot. [0; 2 with --phones]",
    )


def workload(args: Namespace, sessions: int) -> Workload:
    """What the flags come to; the phone agents' load where they say nothing."""
    load = Workload(sessions=sessions)
    if args.image is not None:
        width_px, height_px, images = args.image
        load = replace(load, image_width_px=width_px, image_height_px=height_px, images=images)
    if args.prompt_tokens is not None:
        cached = min(args.cached_tokens or 0, args.prompt_tokens - 1)
        load = replace(load, shared_tokens=cached, fresh_tokens=args.prompt_tokens - cached)
    elif args.cached_tokens is not None:
        whole = load.shared_tokens + load.fresh_tokens
        cached = min(args.cached_tokens, whole - 1)
        load = replace(load, shared_tokens=cached, fresh_tokens=whole - cached)
    if args.output_tokens is not None:
        load = replace(load, output_tokens=args.output_tokens)
    return load if args.think_time is None else replace(load, think_s=args.think_time)


def _image(text: str) -> tuple[int, int, int]:
    if text.lower() in ("none", "no", "0"):
        return 1, 1, 0
    match = re.fullmatch(r"(\d{1,5})[x*](\d{1,5})(?::(\d{1,2}))?", text.lower())
    if not match:
        raise ArgumentTypeError(f"{text!r} is no size; write WIDTHxHEIGHT, as 1080x2400, or none")
    width, height, count = int(match[1]), int(match[2]), int(match[3] or 1)
    if not (0 < width <= LARGEST_SIDE_PX and 0 < height <= LARGEST_SIDE_PX and count):
        raise ArgumentTypeError(f"{text!r} is no image: its sides are 1 to {LARGEST_SIDE_PX} pixels")
    return width, height, count


def _tokens_or_none(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 7 or int(text) > MOST_TOKENS:
        raise ArgumentTypeError(f"{text!r} is no number of tokens up to {MOST_TOKENS:,}")
    return int(text)


def _tokens(text: str) -> int:
    number = _tokens_or_none(text)
    if not number:
        raise ArgumentTypeError("0 tokens are no text; the least is 1")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_THINK_S:
        raise ArgumentTypeError(f"{text!r} is no time from 0 to {LONGEST_THINK_S:.0f} seconds")
    return seconds
