"""Would requests to this machine be sent through a proxy?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, warning

_VARIABLES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_LOCAL = ("127.0.0.1", "localhost", "*")


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None:
        return
    proxy = next((name for name in _VARIABLES if host.environ.get(name)), None)
    spared = host.environ.get("no_proxy", host.environ.get("NO_PROXY", ""))
    if proxy and not any(name in spared for name in _LOCAL):
        yield warning(
            f"{proxy} is set, and no_proxy does not spare this machine.",
            evidence=f"no_proxy={spared!r}",
            why="Clients send requests to 127.0.0.1 through the proxy: it refuses them, or answers 502.",
            remedy="export no_proxy=127.0.0.1,localhost",
        )
