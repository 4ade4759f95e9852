"""Which engines are installed in this Python environment, and their versions. None is imported for it."""

from importlib.metadata import PackageNotFoundError, version

PACKAGES = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "xllamacpp"}
"""Engine name to the package it comes in."""


def installed(engine: str) -> str | None:
    """The installed version of an engine; None where it is not there."""
    try:
        return version(PACKAGES.get(engine, engine))
    except PackageNotFoundError:
        return None
