"""All keys, found by a secret. Pure.

A hundred thousand keys are held as the text that they were read from, with an index by hash beside it: a key
becomes a value when somebody uses it.
"""

import hmac
import io
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise

import orjson

from autoglm_serve.keys.key import Key, KeysError, digest, key_from_plain, key_of_secret, plain

MOST_KEYS = 100_000
_MOST_KNOWN = 4096
_NUMBER_BITS = 32
_NUMBER = (1 << _NUMBER_BITS) - 1


class KeyTable:
    """The keys of a service at one time; never changes."""

    def __init__(self, text: bytes, starts: "array[int]", index: Iterable[int]) -> None:
        """`starts` are those of the lines in `text`, and its end. `index` is ordered: the first eight bytes
        of each hash, and the number of its line behind."""
        self._text = text
        self._starts = starts
        self._hashes, self._numbers = array("Q"), array("L")
        for each in index:
            self._hashes.append(each >> _NUMBER_BITS)
            self._numbers.append(each & _NUMBER)
        self._known: dict[bytes, Key] = {}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[Key]:
        return (self._key(number) for number in range(len(self)))

    def find(self, secret: bytes, now_s: float) -> Key | None:
        """The key of this secret, whatever may be wrong with it by now."""
        return self.by_digest(digest(secret), now_s)

    def by_digest(self, sha256: bytes, now_s: float) -> Key | None:
        """The same by the secret's hash."""
        key = self._known.get(sha256) or self._look_up(sha256)
        if key is None:
            return None
        if hmac.compare_digest(key.sha256, sha256):
            return key
        return key if key.before is not None and now_s < key.before_until_s else None

    def _look_up(self, sha256: bytes) -> Key | None:
        first = int.from_bytes(sha256[:8])
        at = bisect_left(self._hashes, first)
        while at < len(self._hashes) and self._hashes[at] == first:
            key = self._key(self._numbers[at])
            if any(hmac.compare_digest(each, sha256) for each in (key.sha256, key.before or b"")):
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[sha256] = key
                return key
            at += 1
        return None

    def _key(self, number: int) -> Key:
        line = self._text[self._starts[number] : self._starts[number + 1]]
        return key_from_plain(orjson.loads(line))


NO_KEYS = KeyTable(b"", array("Q", [0]), ())


def table_of(keys: Iterable[Key]) -> KeyTable:
    """Raises KeysError where two are the same."""
    return read_table([(b"".join(orjson.dumps(plain(key)) + b"\n" for key in keys), "keys")])


def read_table(texts: Iterable[tuple[bytes, str]]) -> KeyTable:
    """The keys of these texts, each with the name that a mistake in it is told under.

    One key a line: an object, or a bare secret. Blank lines and those that begin with # say nothing.
    Raises KeysError, which names the line.
    """
    kept, starts = bytearray(), array("Q", [0])
    hashes: list[int] = []
    by_id: list[int] = []
    for text, name in texts:
        for number, line in enumerate(io.BytesIO(text), 1):
            said = line.strip()
            if not said or said.startswith(b"#"):
                continue
            try:
                key, says_secret = _read(said)
            except KeysError as problem:
                raise KeysError(f"{name}, line {number}: {problem}") from None
            index = len(starts) - 1
            hashes.append(_ordered(key.sha256[:8], index))
            if key.before is not None:
                hashes.append(_ordered(key.before[:8], index))
            by_id.append(_ordered(blake2b(key.id.encode(), digest_size=8).digest(), index))
            kept += orjson.dumps(plain(key)) if says_secret else said
            starts.append(len(kept))
    if len(starts) - 1 > MOST_KEYS:
        raise KeysError(f"there are {len(starts) - 1} keys, and at most {MOST_KEYS} are taken")
    hashes.sort()
    by_id.sort()
    table = KeyTable(bytes(kept), starts, hashes)
    for ordered in (hashes, by_id):
        _refuse_twins(table, ordered)
    return table


def _ordered(first: bytes, number: int) -> int:
    return int.from_bytes(first) << _NUMBER_BITS | number


def key_in(line: bytes) -> Key | None:
    """The key that a line says; None where it says none. Raises KeysError."""
    said = line.strip()
    return None if not said or said.startswith(b"#") else _read(said)[0]


def _read(line: bytes) -> tuple[Key, bool]:
    """The key of a line, and whether the line holds the secret itself."""
    if not line.startswith(b"{"):
        try:
            return key_of_secret(line.decode()), True
        except UnicodeDecodeError:
            raise KeysError("it is no text in UTF-8") from None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError as problem:
        raise KeysError(f"it is not valid JSON ({problem})") from None
    return key_from_plain(said), "secret" in said


def _refuse_twins(table: KeyTable, ordered: list[int]) -> None:
    """Two that begin alike in the order are compared whole."""
    for one, other in pairwise(ordered):
        if one >> _NUMBER_BITS != other >> _NUMBER_BITS or one & _NUMBER == other & _NUMBER:
            continue
        first, second = table._key(one & _NUMBER), table._key(other & _NUMBER)
        if first.id == second.id:
            raise KeysError(f"the key {first.id} is there twice")
        if {first.sha256, first.before} & {second.sha256, second.before} - {None}:
            raise KeysError(f"the keys {first.id} and {second.id} have the same secret")
