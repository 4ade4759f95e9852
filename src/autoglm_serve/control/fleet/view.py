"""From what the supervisor knows to what the gateway routes by. Pure."""

from collections.abc import Mapping

from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import MADE_READABLE, Feature
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ReplicaStatus
from autoglm_serve.engines.base import Engine, Place

_QUEUED_INSIDE = 2
"""Requests that an engine is given for each it can work on: one runs, one is ready to follow."""


def fleet_view(
    deployment: Deployment,
    statuses: tuple[ReplicaStatus, ...],
    engines: Mapping[str, Engine],
    *,
    version: int,
    created_s: int,
    leaving: bool = False,
) -> FleetView:
    """The fleet as of now; `created_s` is when the service began, Unix time."""
    members = {member.name: member for member in deployment.members}
    return FleetView(
        version=version,
        models=tuple(_model(member, engines, created_s) for member in deployment.members),
        replicas=tuple(
            _replica(status, members[status.model], engines) for status in statuses if status.model in members
        ),
        leaving=leaving,
    )


def _model(member: Member, engines: Mapping[str, Engine], created_s: int) -> ModelView:
    return ModelView(
        names=member.names,
        capabilities=member.capabilities,
        vision=member.vision,
        max_model_len=member.plan.max_model_len,
        on_demand=member.on_demand,
        vocabulary=member.vocabulary,
        created_s=created_s,
        undone=_undone(member, engines),
    )


def _undone(member: Member, engines: Mapping[str, Engine]) -> frozenset[Feature]:
    """Of an address of others nothing is refused that it may do; where the engine there is known, pictures
    that it does not read are made readable."""
    engine = engines.get(member.plan.engine)
    behind = engines.get(member.upstream_engine or "")
    refused = engine.undone if engine is not None else frozenset()
    return refused | (behind.undone & MADE_READABLE if behind is not None else frozenset())


def _replica(status: ReplicaStatus, member: Member, engines: Mapping[str, Engine]) -> ReplicaView:
    plan, runs = member.plan, engines[status.engine]
    engine = engines[member.upstream_engine] if member.upstream_engine else runs
    return ReplicaView(
        id=status.id,
        slot=status.slot,
        model=status.model,
        engine=status.engine,
        state=status.state,
        base_url=status.base_url,
        upstream_model=member.upstream_model or _former_name(status, member),
        continuation=engine.continuation,
        gives_finish=engine.gives_finish,
        is_ours=runs.place is not Place.ELSEWHERE,
        takes_key=runs.takes_key,
        capacity_requests=plan.max_num_seqs * _QUEUED_INSIDE if plan.max_num_seqs else None,
        capacity_tokens=plan.ledger.kv_cache_tokens if plan.ledger else None,
        lost=status.lost,
    )


def _former_name(status: ReplicaStatus, member: Member) -> str | None:
    """What a process must be asked for that was started before the model got its present names."""
    knows_all = not status.answers_to or set(member.names) <= set(status.answers_to)
    return None if knows_all else status.answers_to[0]
