"""Requests that kill: one that two replicas died of is not sent to a third.

A lost replica is held against the requests that were in flight on it and had brought nothing: what kills an
engine does so before its first token. Streams that were under way are victims. So are those that only waited
beside the one that killed, and therefore a verdict needs more than to have been there: the request was alone
at the last death, or its share in all of them, one part of those who waited there, comes to as much.

How the replica ended counts. By itself, which is an exit, a fault or the kernel's out-of-memory killer, it
is a death. Ended by somebody, or nobody knows how, it is half a one: two strangers' kills make no poison of
what waited there, and yet a request that makes a watchdog kill again and again is stopped. With nobody to
say it is taken for a whole one, unless the address still takes connections: then nothing has died.

A verdict is on a body. Who sent it is on probation: what that client sends next is tried alone from the
start, and one death of it is enough, so that a byte changed is no way around.

Whether a replica really is gone is known from the fleet view: a request that only lost its connections is not
kept out. An answer clears a request; all evidence is forgotten after a while.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.gateway.recovery.fingerprint import Fingerprint

KILLS = 2.0
"""Deaths that are enough."""
BY_OTHERS = 0.5
"""What a replica counts that somebody ended."""
QUARANTINE_S = 600.0
ONE_DEATH_S = 2.0
"""Losses at one address within so long are of one death."""
_REMEMBERED = 256
_SCENES = 4 * _REMEMBERED
_WHOLE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """One replica's, as far as it is known."""

    base_url: str
    number: int
    """Of its deaths at that address."""


@dataclass(slots=True, kw_only=True)
class _Scene:
    """Who was there."""

    at_s: float
    accused: set[bytes]
    """Those that waited there, by their hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What is held against one request."""

    length: int
    deaths: tuple[_Death, ...]
    """The last one at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convict:
    until_s: float
    length: int
    lost: frozenset[str]
    """Addresses of the replicas that were lost."""


class Quarantine:
    """The suspects of one worker, by the hash of what was asked."""

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._scenes: OrderedDict[_Death, _Scene] = OrderedDict()
        self._last: OrderedDict[str, _Death] = OrderedDict()
        """The last death at each address."""
        self._convicts: OrderedDict[bytes, _Convict] = OrderedDict()
        self._probation: OrderedDict[str, float] = OrderedDict()
        """Clients that sent a convict, and until when that counts."""
        self._by_itself: OrderedDict[str, bool] = OrderedDict()
        """How replicas ended, by their address, as the supervisor says."""
        self._lengths: frozenset[int] = frozenset()
        """Of the bodies known here: hashing is for those that could be one."""

    def fleet_changed(self, view: FleetView) -> None:
        """Hear how replicas ended."""
        for replica in view.replicas:
            if replica.lost is not None and replica.lost.base_url not in self._by_itself:
                _keep(self._by_itself, replica.lost.base_url, replica.lost.by_itself)

    def knows_end_of(self, base_url: str) -> bool:
        """The supervisor has said how it ended."""
        return base_url in self._by_itself

    def unexplained(self, asked: Fingerprint) -> tuple[str, ...]:
        """Addresses that were lost under it, and of which nobody has said how they ended."""
        urls = (death.base_url for death in self._deaths(asked))
        return tuple(url for url in urls if not self.knows_end_of(url))

    def blame(self, asked: Fingerprint, base_url: str, now_s: float) -> None:
        """Hold the loss of a replica against `asked`."""
        suspect, death = asked.digest, self._death_at(base_url, now_s)
        self._scenes[death].accused.add(suspect)
        known = self._records.pop(suspect, None)
        before = known.deaths if known is not None else ()
        recent = tuple(each for each in before if each != death and self._is_recent(each, now_s))
        _keep(self._records, suspect, _Record(length=asked.length, deaths=(*recent, death)))
        self._note_lengths()

    def acquit(self, base_url: str) -> None:
        """Nothing has died there: the address takes connections."""
        death = self._last.pop(base_url, None)
        if death is not None:
            self._scenes.pop(death, None)

    def may_know(self, asked: Fingerprint) -> bool:
        """Something of its length is known here: to say more it has to be hashed."""
        return asked.length in self._lengths

    def suspects(self, asked: Fingerprint, client: str = "", now_s: float = 0.0) -> bool:
        """A replica may have died of it, or one has died of what its client sent before."""
        known = asked.length in self._lengths
        return self._on_probation(client, now_s) or (known and self._weight(asked) >= 1)

    def condemns(self, asked: Fingerprint, client: str = "", now_s: float = 0.0) -> bool:
        """What is held against it is enough."""
        enough = _WHOLE if self._on_probation(client, now_s) else KILLS
        if self._weight(asked) < enough:
            return False
        deaths = self._deaths(asked)
        alone = len(self._scenes[deaths[-1]].accused) == 1
        shares = sum(self._end(death) / len(self._scenes[death].accused) for death in deaths)
        return alone or shares >= enough

    def convict(self, asked: Fingerprint, now_s: float, client: str = "") -> None:
        """Keep it out for a while."""
        suspect, until_s = asked.digest, now_s + QUARANTINE_S
        record = self._records.pop(suspect)
        lost = frozenset(death.base_url for death in record.deaths)
        self._convicts.pop(suspect, None)
        _keep(self._convicts, suspect, _Convict(until_s=until_s, length=record.length, lost=lost))
        if client:
            self._probation.pop(client, None)
            _keep(self._probation, client, until_s)
        self._note_lengths()

    def holds(self, asked: Fingerprint, fleet: FleetView, now_s: float) -> bool:
        """`asked` is in quarantine."""
        if asked.length not in self._lengths:
            return False
        convict = self._convicts.get(asked.digest)
        if convict is None or now_s >= convict.until_s:
            return False
        return convict.lost.isdisjoint(each.base_url for each in fleet.replicas if each.routable)

    def clear(self, asked: Fingerprint) -> None:
        """It was answered: whatever died while it ran, it was not of this."""
        if asked.length in self._lengths and self._records.pop(asked.digest, None) is not None:
            self._note_lengths()

    def _death_at(self, base_url: str, now_s: float) -> _Death:
        """The death that a loss at this address is part of."""
        death = self._last.get(base_url)
        scene = self._scenes.get(death) if death is not None else None
        if death is None or scene is None or now_s - scene.at_s > ONE_DEATH_S:
            death = _Death(base_url=base_url, number=death.number + 1 if death is not None else 0)
            self._last.pop(base_url, None)
            _keep(self._last, base_url, death)
            _keep(self._scenes, death, _Scene(at_s=now_s, accused=set()), most=_SCENES)
        return death

    def _deaths(self, asked: Fingerprint) -> tuple[_Death, ...]:
        """At which it was, and that are remembered."""
        record = self._records.get(asked.digest) if asked.length in self._lengths else None
        return tuple(each for each in record.deaths if each in self._scenes) if record is not None else ()

    def _weight(self, asked: Fingerprint) -> float:
        return sum(map(self._end, self._deaths(asked)))

    def _end(self, death: _Death) -> float:
        """What a death counts, by how the replica ended."""
        return _WHOLE if self._by_itself.get(death.base_url, True) else BY_OTHERS

    def _is_recent(self, death: _Death, now_s: float) -> bool:
        scene = self._scenes.get(death)
        return scene is not None and now_s - scene.at_s < QUARANTINE_S

    def _on_probation(self, client: str, now_s: float) -> bool:
        return bool(self._probation) and now_s < self._probation.get(client, 0.0)

    def _note_lengths(self) -> None:
        lengths = {record.length for record in self._records.values()}
        self._lengths = frozenset(lengths | {convict.length for convict in self._convicts.values()})


def _keep(known: "OrderedDict[Any, Any]", key: object, value: object, most: int = _REMEMBERED) -> None:
    known[key] = value
    if len(known) > most:
        known.popitem(last=False)
