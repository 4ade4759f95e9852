"""Variables that Kubernetes and Docker make for every service of a namespace, told by their form.

A Service named `autoglm` or `vllm` puts AUTOGLM_PORT=tcp://10.0.0.1:8000 and more of its kind into every
container beside it, where a program of that name takes them for settings of its own. Forms: kubernetes.io,
"Service", environment variables; docs.docker.com, "Legacy container links".
"""

import re
from collections.abc import Mapping

_PORT = re.compile(r".+_PORT")
_NAME = re.compile(r".+_NAME")
_ALWAYS = re.compile(
    r".+_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|.+_PORT_\d{1,5}_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))*"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")
_CONTAINERS = re.compile(r"(/[\w.-]+){2}")


def is_link(name: str, value: str) -> bool:
    """Whether this variable tells where some other service listens, and so is nobody's setting."""
    if _ALWAYS.fullmatch(name):
        return True
    told = _ADDRESS if _PORT.fullmatch(name) else _CONTAINERS if _NAME.fullmatch(name) else None
    return told is not None and bool(told.fullmatch(value))


def without_links(environ: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """The environment for programs that read what begins so as their settings: no link among these."""
    return {
        name: value
        for name, value in environ.items()
        if not (name.startswith(prefixes) and is_link(name, value))
    }
