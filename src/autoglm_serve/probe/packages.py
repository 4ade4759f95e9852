"""Which Python distributions are installed in this environment. None is imported for it."""

from importlib.metadata import PackageNotFoundError, version


def installed(package: str) -> str | None:
    """Its version; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
