"""Why a download failed, read from whatever a hub's library raised: what a person is told, and what to do.

The libraries change their exceptions with each major version and wrap those of their HTTP libraries, so a
failure is told by the system's error number or by words, anywhere in the chain of causes. Pure.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MIRROR = "set HF_ENDPOINT to a mirror that you can reach, or take --hub modelscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFailure:
    """What stands in the way."""

    why: str
    next_step: str = ""
    """Empty where nothing is known beyond that it failed."""
    here: bool = False
    """It is this machine's fault or the person's right to mend: asking the cache instead would hide it."""


_BY_NUMBER = {
    errno.ENOSPC: ("the disk is full", "Make room there, or move the cache: HF_HOME=/other/folder."),
    errno.EDQUOT: ("your quota of that disk is used up", "Make room there, or move the cache with HF_HOME."),
    errno.EROFS: (
        "the folder is on a disk that cannot be written to",
        "Move the cache to one that can: HF_HOME=/other/folder.",
    ),
    errno.ENOTDIR: ("one of its folders is a file", "Remove that file, or move the cache with HF_HOME."),
    errno.EACCES: (
        "you may not write there",
        "Correct the folder's rights, or move the cache with HF_HOME.",
    ),
}
_BY_WORDS = (
    (r"no space left|os error 28", _BY_NUMBER[errno.ENOSPC], True),
    (r"read-only file system|os error 30", _BY_NUMBER[errno.EROFS], True),
    (r"permission denied|os error 13", _BY_NUMBER[errno.EACCES], True),
    (
        r"\b401\b|unauthorized|\b403\b|forbidden|invalid (user )?token|invalid username",
        (
            "it does not let you in",
            "Log in with `hf auth login`, or set HF_TOKEN to a token with access.",
        ),
        True,
    ),
    (
        r"\b429\b|too many requests|rate limit",
        ("it says that it was asked too often", "Wait some minutes, or log in with `hf auth login`."),
        False,
    ),
    (
        r"certificate|ssl: |sslerror",
        (
            "its certificate is not trusted here",
            "Behind a proxy that opens TLS, name its certificate: SSL_CERT_FILE, REQUESTS_CA_BUNDLE.",
        ),
        False,
    ),
    (r"proxy", ("the proxy does not pass it on", "Check HTTPS_PROXY and NO_PROXY."), False),
    (
        r"name or service not known|name resolution|nodename nor servname|getaddrinfo",
        ("no name server here knows its name", f"Check the network; or {_MIRROR}."),
        False,
    ),
    (
        r"timed? ?out|unreachable|refused|reset by peer",
        ("it does not answer", f"Check the network; or {_MIRROR}."),
        False,
    ),
)


def explain(problem: BaseException) -> DownloadFailure:
    """The most telling of an exception and all that it came from."""
    chain = tuple(_chain(problem))
    for each in chain:
        if isinstance(each, OSError) and each.errno in _BY_NUMBER:
            why, next_step = _BY_NUMBER[each.errno]
            return DownloadFailure(why=_at(why, each.filename), next_step=next_step, here=True)
    words = "\n".join(f"{type(each).__name__}: {each}" for each in chain)
    for pattern, (why, next_step), here in _BY_WORDS:
        if re.search(pattern, words, re.IGNORECASE):
            return DownloadFailure(why=f"{why} ({said(problem)})", next_step=next_step, here=here)
    return DownloadFailure(why=said(problem))


def said(problem: BaseException) -> str:
    """The first line of an error, short."""
    first = str(problem).strip().splitlines()[:1]
    return (first[0] if first else type(problem).__name__)[:160]


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        yield problem
        problem = problem.__cause__ or problem.__context__


def _at(why: str, path: object) -> str:
    return f"{why}: {path}" if path else why
