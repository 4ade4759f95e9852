"""How many connections may there be?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, warning

_ENOUGH = 4096
_A_STREAM = 2
"""The client's connection and the engine's."""


def check(facts: Facts) -> Iterator[Symptom]:
    host = facts.host
    if host is not None and host.descriptors < _ENOUGH:
        yield warning(
            f"A process may open {host.descriptors} files here.",
            evidence="the hard limit (ulimit -Hn)",
            why=f"Each stream takes {_A_STREAM}: beyond {host.descriptors // _A_STREAM} or so a worker "
            "refuses connections.",
            remedy="ulimit -n 65536 as root; systemd: LimitNOFILE=65536; docker run --ulimit nofile=65536",
        )
