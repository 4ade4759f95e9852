"""From what the supervisor knows to what the gateway routes by. Pure."""

from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ReplicaStatus


def fleet_view(
    deployment: Deployment, statuses: tuple[ReplicaStatus, ...], *, version: int, created_s: int
) -> FleetView:
    """The fleet as of now; `created_s` is when the service began, Unix time."""
    known_as = {member.name: member.upstream_model for member in deployment.members}
    return FleetView(
        version=version,
        models=tuple(_model(member, created_s) for member in deployment.members),
        replicas=tuple(_replica(status, known_as.get(status.model)) for status in statuses),
    )


def _model(member: Member, created_s: int) -> ModelView:
    return ModelView(
        names=member.names,
        capabilities=member.capabilities,
        vision=member.vision,
        max_model_len=member.plan.max_model_len,
        on_demand=member.on_demand,
        created_s=created_s,
    )


def _replica(status: ReplicaStatus, upstream_model: str | None) -> ReplicaView:
    return ReplicaView(
        id=status.id,
        slot=status.slot,
        model=status.model,
        engine=status.engine,
        state=status.state,
        base_url=status.base_url,
        upstream_model=upstream_model,
    )
