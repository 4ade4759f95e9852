"""Addresses for command lines that are only read."""

from autoglm_serve.engines.base import Listen
from autoglm_serve.launch.ports import LOOPBACK


def at(port: int) -> Listen:
    return Listen(host=LOOPBACK, port=port)
