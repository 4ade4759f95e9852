"""The fleet: an immutable view of every model and replica, by which the gateway routes.

The control plane makes a new view on every change; nobody edits one. Who has the view before is told of what
has changed (`FleetChange`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from autoglm_serve.core.model import Capability, Feature, VisionGeometry
from autoglm_serve.core.replica import Loss, ReplicaState

MOST_REPLICAS = 1024
"""Of one service."""


class Continuation(StrEnum):
    """How an engine takes the beginning of an answer that another replica could not finish."""

    NONE = "none"  # not at all, or nobody knows
    PREFILL = "prefill"  # a last message of the assistant is gone on with
    FLAGS = "flags"  # the same, with continue_final_message and without a generation prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """One replica as the gateway sees it."""

    id: str
    slot: int
    """Its column in the shared load table; stable for the life of the service."""
    model: str
    engine: str
    state: ReplicaState
    base_url: str
    """http://host:port or unix:path, where its HTTP server listens; empty while it has none."""
    upstream_model: str | None = None
    """The name it knows the model by, where that is not the served name."""
    continuation: Continuation = Continuation.NONE
    is_ours: bool = True
    """A process of this service, whose end is known; others keep an address, known by what it answers."""
    takes_key: bool = False
    """A client's Authorization is meant for it."""
    gives_finish: bool = True
    """Its answers are known to say how they ended. Of a server that nobody here knows it is learnt."""
    capacity_requests: int | None = None
    """Requests that it should carry at once; more would only wait inside it. None: it never says no."""
    capacity_tokens: int | None = None
    """Outstanding cost in tokens that its KV cache has room for."""
    lost: Loss | None = None
    """Its process before this one, if it has lost one."""

    @property
    def routable(self) -> bool:
        return self.state is ReplicaState.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One served model: its names and what a request may ask of it."""

    names: tuple[str, ...]
    capabilities: frozenset[Capability]
    vision: VisionGeometry | None = None
    max_model_len: int | None = None
    on_demand: bool = False
    created_s: int = 0
    """Unix time at which the service began to serve it, for /v1/models."""
    vocabulary: int | None = None
    """How many tokens it knows, where that is known."""
    undone: frozenset[Feature] = frozenset()
    """What its engine passes over in a request, so that asking for it is refused."""

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """Everything the gateway knows of what is behind it."""

    version: int = 0
    models: tuple[ModelView, ...] = ()
    replicas: tuple[ReplicaView, ...] = ()
    leaving: bool = False
    """The service is going to stop: it still serves, and says to whoever asks that others should."""

    def model(self, name: str) -> ModelView | None:
        for model in self.models:
            if name in model.names:
                return model
        return None

    def replicas_of(self, model: ModelView) -> tuple[ReplicaView, ...]:
        name = model.name
        return tuple([replica for replica in self.replicas if replica.model == name])

    @property
    def served_names(self) -> tuple[str, ...]:
        return tuple(name for model in self.models for name in model.names)

    def after(self, change: "FleetChange") -> "FleetView":
        """The view that the change makes of this one: what is not in it stays the very same value.

        Raises OutOfStep if the change is one of another view.
        """
        if change.since != self.version:
            raise OutOfStep(f"version {change.since} was changed, and {self.version} is known here")
        changed = {replica.id: replica for replica in change.changed}
        gone = set(change.gone)
        kept = tuple(changed.pop(each.id, each) for each in self.replicas if each.id not in gone)
        models = self.models if change.models is None else change.models
        return replace(self, version=change.version, models=models, replicas=(*kept, *changed.values()))


class OutOfStep(ValueError):
    """A change of a view that is not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetChange:
    """What makes one view of another."""

    since: int
    """The version that it changes."""
    version: int
    changed: tuple[ReplicaView, ...] = ()
    """As they are now, and those that are new."""
    gone: tuple[str, ...] = ()
    """Ids."""
    models: tuple[ModelView, ...] | None = None
    """All of them, where one is not as it was."""


def change_between(before: FleetView, after: FleetView) -> FleetChange | None:
    """What to tell who has the view before; None where only the whole view says it."""
    known = {replica.id: replica for replica in before.replicas}
    there = {replica.id for replica in after.replicas}
    change = FleetChange(
        since=before.version,
        version=after.version,
        changed=tuple(each for each in after.replicas if each != known.get(each.id)),
        gone=tuple(each for each in known if each not in there),
        models=None if after.models == before.models else after.models,
    )
    return change if before.after(change) == after else None
