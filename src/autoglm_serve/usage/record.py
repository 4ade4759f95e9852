"""What one request used, and sums of that. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson


class UsageRecord(NamedTuple):
    """One request, as a line of a daybook has it."""

    at_s: int
    """Unix time at which it began."""
    key_id: str
    owner: str
    model: str
    good: bool
    """It was answered whole."""
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    """The engine did not say how many: they were counted from what was sent."""


@dataclass(frozen=True, slots=True, order=True)
class Heading:
    """What usage is summed by."""

    day: str
    """YYYY-MM-DD, UTC."""
    key_id: str
    owner: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A sum of requests."""

    requests: int = 0
    failed: int = 0
    """Of those, not answered whole."""
    estimated: int = 0
    """Of those, with tokens that no engine has counted."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: "Used") -> "Used":
        return Used(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            estimated=self.estimated + other.estimated,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


def line_of(record: UsageRecord) -> bytes:
    return orjson.dumps([*record]) + b"\n"


def records_in(text: bytes) -> tuple[list[UsageRecord], int]:
    """Those of the whole lines, and how many bytes they take. A line that says nothing is passed over."""
    whole = text[: text.rfind(b"\n") + 1]
    return [record for line in whole.splitlines() if (record := _record(line)) is not None], len(whole)


def summed(records: Iterable[UsageRecord]) -> dict[Heading, Used]:
    sums: dict[Heading, Used] = {}
    for each in records:
        heading = Heading(day_of(each.at_s), each.key_id, each.owner, each.model)
        used = Used(
            requests=1,
            failed=int(not each.good),
            estimated=int(each.estimated),
            prompt_tokens=each.prompt_tokens,
            completion_tokens=each.completion_tokens,
        )
        sums[heading] = used if heading not in sums else sums[heading].plus(used)
    return sums


def day_of(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")


def _record(line: bytes) -> UsageRecord | None:
    try:
        match orjson.loads(line):
            case [
                int(at_s),
                str(key),
                str(owner),
                str(model),
                bool(good),
                int(read),
                int(wrote),
                bool(estimated),
            ]:
                return UsageRecord(at_s, key, owner, model, good, read, wrote, estimated)
    except orjson.JSONDecodeError:
        pass
    return None
