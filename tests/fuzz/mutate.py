"""Bytes made of other bytes: the ways in which inputs go wrong. Pure, with the dice passed in."""

import random
from collections.abc import Sequence

WORDS = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"\\ud800",
        b"\\u0000",
    ),
    *(
        b"\r\n",
        b"\n\n",
        b"data: ",
        b"--b",
        b"--b--",
        b"\x00",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"RIFF",
        b"WEBPVP8X",
    ),
    *(b"base64,", b"data:image/png;", b"http://", b"file:", b"{1000}", b"(", b"9" * 20, b"\xf0\x9f\x98\x80"),
    *(b'"type":"image_url"', b'"url":', b'"content":', b'"messages":', b"\xed\xa0\x80", b"\xef\xbb\xbf"),
)
MOST_BYTES = 1 << 16


def mutated(seed: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """A few changes to a seed, some of them with a piece of another."""
    data = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 3, 5, 8))):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.choice((1, 2, 4, 16, 64)))
        match dice.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << dice.randrange(8)
            case 1:
                data[at:at] = dice.choice(WORDS)
            case 2:
                del data[at:end]
            case 3:
                data[at:end] = data[at:end] * dice.choice((2, 3, 50, 1000))
            case 4:
                data[at:end] = dice.randbytes(end - at)
            case 5:
                other = dice.choice(others)
                start = dice.randrange(len(other) + 1)
                data[at:end] = other[start : start + dice.choice((8, 64, 512))]
            case _:
                data[at:end] = dice.choice(WORDS)
        del data[MOST_BYTES:]
    return bytes(data)
