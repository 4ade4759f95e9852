"""One API key: whose it is, what it may do, and how it is written down. Pure.

A secret is random and long, so its SHA-256 is as good as a slow hash, and takes half a microsecond. What is
written down is that hash: nobody reads a secret from a file of keys.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

SECRET_PREFIX = "sk-autoglm-"
LEAST_SECRET = 16
"""Characters of a secret that somebody else has made: a shorter one can be guessed from its hash."""
_LONGEST_NAME = 128


class KeysError(ValueError):
    """What is written of a key is none; in words for a person."""


class Scope(StrEnum):
    """What a key opens."""

    INFERENCE = "inference"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the service a key has. None sets no bound."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    """Requests at the same time."""
    budget_tokens: int | None = None
    """Tokens in all, from the first request on."""
    queue_share: int | None = None
    """Percent of the places in the queue of each gateway worker."""

    @property
    def any(self) -> bool:
        return self != NO_LIMITS


NO_LIMITS = Limits()
LIMITS = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. All times are Unix seconds."""

    id: str
    """Its name in lists and books; stays when the secret is replaced."""
    owner: str = ""
    sha256: bytes
    """Of the secret."""
    before: bytes | None = None
    """Of the secret before this one, while that may still be used."""
    before_until_s: int = 0
    created_s: int = 0
    expires_s: int | None = None
    revoked_s: int | None = None
    scopes: frozenset[Scope] = frozenset({Scope.INFERENCE})
    models: tuple[str, ...] = ()
    """Names of models that it may ask; empty is all."""
    paths: tuple[str, ...] = ()
    """Paths that it may ask, or their beginnings with a * behind; empty is all."""
    limits: Limits = NO_LIMITS

    def why_not(self, now_s: float) -> str:
        """Why it opens nothing at all, or nothing."""
        if self.revoked_s is not None:
            return "it was revoked"
        if self.expires_s is not None and now_s >= self.expires_s:
            return "it has expired"
        return ""

    def opens_path(self, path: str) -> bool:
        return not self.paths or any(
            path.startswith(each[:-1]) if each.endswith("*") else path == each for each in self.paths
        )

    def opens_model(self, names: tuple[str, ...]) -> bool:
        """Whether it may ask the model that is served under these names."""
        return not self.models or not set(self.models).isdisjoint(names)


def new_secret() -> str:
    """192 bits, in letters that need no quoting anywhere."""
    return SECRET_PREFIX + secrets.token_hex(24)


def new_id() -> str:
    return "k-" + secrets.token_hex(5)


def digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def key_of_secret(secret: str) -> Key:
    """A key that is known by its secret alone: it opens every inference path, without limits."""
    sha256 = _digest_of(secret)
    return Key(id=_id_of(sha256), sha256=sha256)


def key_from_plain(said: Mapping[str, Any]) -> Key:
    """The key that an object of a keys file says. Raises KeysError."""
    try:
        known = {name: _FIELDS[name](value) for name, value in said.items() if value is not None}
    except KeyError as unknown:
        raise KeysError(f"{unknown.args[0]!r} is nothing that is said of a key") from None
    secret = known.pop("secret", None)
    if (secret is None) == ("sha256" not in known):
        raise KeysError("a key has either 'sha256' or 'secret'")
    if secret is not None:
        known["sha256"] = secret
    if "id" not in known:
        known["id"] = _id_of(known["sha256"])
    return Key(**known)


def plain(key: Key) -> dict[str, Any]:
    """The inverse of `key_from_plain`: nothing that says the secret, and nothing that is so by default."""
    said: dict[str, Any] = {"id": key.id, "owner": key.owner, "sha256": key.sha256.hex()}
    if key.before is not None:
        said |= {"before": key.before.hex(), "before_until_s": key.before_until_s}
    said["created_s"] = key.created_s
    said |= {name: value for name in ("expires_s", "revoked_s") if (value := getattr(key, name)) is not None}
    if key.scopes != _INFERENCE:
        said["scopes"] = sorted(key.scopes)
    said |= {name: list(value) for name in ("models", "paths") if (value := getattr(key, name))}
    limits = {name: value for name in LIMITS if (value := getattr(key.limits, name)) is not None}
    return said | ({"limits": limits} if limits else {})


_INFERENCE = frozenset({Scope.INFERENCE})


def _id_of(sha256: bytes) -> str:
    return "k-" + sha256.hex()[:10]


def _digest_of(secret: object) -> bytes:
    if not isinstance(secret, str) or len(secret) < LEAST_SECRET or not secret.isascii():
        raise KeysError(f"a secret has {LEAST_SECRET} ASCII characters or more")
    if not secret.isprintable() or " " in secret:
        raise KeysError("a secret has no blanks and no control characters")
    return digest(secret.encode())


def _digest(said: object) -> bytes:
    try:
        sha256 = bytes.fromhex(said) if isinstance(said, str) else b""
    except ValueError:
        sha256 = b""
    if len(sha256) != 32:
        raise KeysError("'sha256' has 64 hexadecimal digits")
    return sha256


def _name(said: object) -> str:
    if (
        not isinstance(said, str)
        or not 0 < len(said) <= _LONGEST_NAME
        or not said.isprintable()
        or " " in said
    ):
        raise KeysError(f"{str(said)[:40]!r} is no word of at most {_LONGEST_NAME} characters")
    return said


def _text(said: object) -> str:
    if not isinstance(said, str) or len(said) > _LONGEST_NAME or not (said.isprintable() or not said):
        raise KeysError(f"'owner' is a text of at most {_LONGEST_NAME} characters")
    return said


def _texts(said: object) -> tuple[str, ...]:
    if not isinstance(said, list | tuple):
        raise KeysError("'models' and 'paths' are lists of names")
    return tuple(map(_name, said))


def _time(said: object) -> int:
    if type(said) is not int or said < 0:
        raise KeysError("times are whole Unix seconds")
    return said


def _scopes(said: object) -> frozenset[Scope]:
    if not isinstance(said, list | tuple) or not said or not set(said) <= set(Scope):
        raise KeysError("'scopes' is a list of " + ", ".join(Scope))
    return frozenset(map(Scope, said))


def _limits(said: object) -> Limits:
    if not isinstance(said, dict):
        raise KeysError("'limits' is an object")
    unknown = said.keys() - set(LIMITS)
    if unknown:
        raise KeysError(f"{min(unknown)!r} is no limit; there are {', '.join(LIMITS)}")
    for name, value in said.items():
        most = 100 if name == "queue_share" else _MOST
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            raise KeysError(f"the limit {name!r} is a whole number from 1 to {most}")
    return Limits(**said)


_MOST = 10**12
_FIELDS: dict[str, Callable[[object], Any]] = {
    "id": _name,
    "owner": _text,
    "sha256": _digest,
    "secret": _digest_of,
    "before": _digest,
    "before_until_s": _time,
    "created_s": _time,
    "expires_s": _time,
    "revoked_s": _time,
    "scopes": _scopes,
    "models": _texts,
    "paths": _texts,
    "limits": _limits,
}
