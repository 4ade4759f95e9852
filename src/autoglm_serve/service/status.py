"""From what is known of a running service to what is said of it. Pure."""

from collections.abc import Callable

from autoglm_serve import __version__
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ReplicaStatus
from autoglm_serve.core.status import GatewayReport, ModelReport, ReplicaReport, ServiceStatus


def service_status(
    url: str,
    deployment: Deployment,
    statuses: tuple[ReplicaStatus, ...],
    in_flight: Callable[[int], int],
    gateway: GatewayReport,
) -> ServiceStatus:
    """`in_flight` tells of a slot how many requests it carries."""
    return ServiceStatus(
        url=url,
        version=__version__,
        models=tuple(map(_model, deployment.members)),
        replicas=tuple(_replica(status, in_flight(status.slot)) for status in statuses),
        gateway=gateway,
    )


def _model(member: Member) -> ModelReport:
    plan = member.plan
    return ModelReport(
        names=member.names,
        reference=member.files.reference,
        plan=plan.reasons,
        ledger=plan.ledger,
        predicted=plan.predicted,
    )


def _replica(status: ReplicaStatus, in_flight: int) -> ReplicaReport:
    return ReplicaReport(
        id=status.id,
        model=status.model,
        engine=status.engine,
        state=status.state,
        pid=status.pid,
        port=status.port,
        address=status.base_url,
        gpus=status.gpus,
        in_flight=in_flight,
        restarts=status.restarts,
        start_s=status.start_s,
        last_exit=status.last_exit,
        progress=status.progress,
        memory=status.memory,
        log=status.log,
    )
