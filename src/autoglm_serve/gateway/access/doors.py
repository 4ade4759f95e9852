"""Under which names the service may be asked, and by the pages of which origins.

A page of the web reaches what listens on loopback by a name of its own that leads there (DNS rebinding): its
requests carry that name, and by it they are known. A page that asks openly carries its origin.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.wire.http import Request

ANY = "*"
LOCAL_NAMES = ("localhost",)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.%]{2,64}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
_MOST_REMEMBERED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorPolicy:
    """Who is let in by what they call us and where they come from."""

    hosts: tuple[str, ...] = (ANY,)
    """Names in lower case, without a port; * is any. Nobody can lead a browser here by an address of numbers,
    nor by a name without a dot: who resolves those is the own network (containers, a hosts file)."""
    origins: tuple[str, ...] = (ANY,)
    """Of pages, as browsers write them; * is any. Our own pages have the host that was asked as theirs."""


class Doors:
    """Looks at the head of every request; what has passed once is known."""

    def __init__(self, policy: DoorPolicy) -> None:
        self._policy = policy
        self._any_origin = ANY in policy.origins
        self._known: set[bytes] = set()

    def check(self, request: Request) -> None:
        """Raises Refusal."""
        host = request.headers.get(b"host")
        if host not in self._known:
            self._look_at(host, request)
        if not self._any_origin and b"origin" in request.headers:
            self._look_at_origin(request.headers[b"origin"].decode("latin-1"), host or b"")

    def _look_at(self, host: bytes | None, request: Request) -> None:
        if host is None and request.http10:  # it had none then
            return
        found = _HOST.fullmatch(host or b"")
        if host is None or found is None:
            message = "This is not a valid HTTP/1.1 request: its Host header names no host."
            raise Refusal(400, "bad_http", message)
        name = found[1].decode("ascii").lower().rstrip(".")
        if not is_let_in(name, self._policy.hosts):
            raise _not_here(name)
        if len(self._known) < _MOST_REMEMBERED:
            self._known.add(host)

    def _look_at_origin(self, origin: str, host: bytes) -> None:
        own = origin.partition("://")[2].lower() == host.decode("latin-1").lower() != ""
        if own or origin in self._policy.origins:
            return
        message = (
            f"Pages of {origin!r} may not ask this service. Whoever runs it lets them with --allow-origin."
        )
        raise Refusal(403, "origin_not_allowed", message, type=RefusalType.PERMISSION)


def is_let_in(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether the service may be asked under this name (lower case, no port). Pure."""
    return (
        ANY in allowed
        or name in allowed
        or "." not in name
        or name.endswith(".localhost")
        or _is_address(name)
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _not_here(name: str) -> Refusal:
    message = (
        f"This service is not asked as {name!r}: it listens for its own machine, and a page of the web could "
        "reach it under such a name. Whoever runs it lets a name pass, a proxy's for example, with "
        f"--allow-host {name}."
    )
    return Refusal(403, "host_not_allowed", message, type=RefusalType.PERMISSION)
