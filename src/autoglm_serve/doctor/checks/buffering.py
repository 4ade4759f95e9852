"""Does a stream arrive in pieces?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, warning

_PIECES = 8
_AT_ONCE = 0.05
"""A share of the time that the answer took: pieces within it came together."""


def check(facts: Facts) -> Iterator[Symptom]:
    stream = facts.service.stream if facts.service is not None else None
    if stream is None or len(stream.pieces_s) < _PIECES:
        return
    if stream.pieces_s[-1] > 0.2 and stream.spread_s < _AT_ONCE * stream.pieces_s[-1]:
        yield warning(
            "A stream arrives in one piece.",
            evidence=f"{len(stream.pieces_s)} pieces within {stream.spread_s * 1000:.0f} ms, after "
            f"{stream.first_s:.1f} s of silence",
            why="A proxy in front keeps it until it is whole: people wait, and agents time out.",
            remedy="nginx: proxy_buffering off; others: turn response buffering and compression off for /v1",
        )
