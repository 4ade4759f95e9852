"""/metrics: counters, fleet and load as Prometheus families. The one place that names a metric."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.observe.counter_file import Key

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What one replica carries now, over all gateway workers."""

    requests: int
    cost_tokens: int


def exposition(
    *,
    version: str,
    counts: Mapping[Key, int],
    buckets_s: Sequence[float],
    fleet: FleetView,
    load: Callable[[int], ReplicaLoad],
    status: ServiceStatus | None,
) -> bytes:
    """The text of /metrics. `load` tells of a slot; `counts` was filled with the bounds `buckets_s`; `status`
    is what only the control plane knows: while it is away, those metrics are not there."""
    registry = CollectorRegistry()
    families = (
        *_counters(counts),
        _histogram("duration", "From the first byte of a request to its end.", counts, buckets_s),
        _histogram("ttft", "From the first byte of a request to the first content sent.", counts, buckets_s),
        *_replicas(fleet, load),
        *(_kept(status) if status is not None else ()),
        InfoMetricFamily("autoglm_build", "What runs here.", {"version": version}),
    )
    registry.register(_Families(families))
    return generate_latest(registry)


@dataclass(frozen=True, slots=True, eq=False)  # the registry keeps collectors in a dict
class _Families(Collector):
    families: tuple[Metric, ...]

    def collect(self) -> Iterator[Metric]:
        return iter(self.families)


def _counters(counts: Mapping[Key, int]) -> Iterator[Metric]:
    for name, help_text, labels in (
        ("requests", "Requests by how they ended.", ("model", "path", "outcome")),
        ("retries", "Attempts beyond the first, before the first byte.", ("model",)),
        ("retries_denied", "Failed requests not tried again, to spare a fleet in trouble.", ("model",)),
        ("recoveries", "Streams that went on elsewhere after their replica was lost.", ("model", "way")),
        ("tokens", "Tokens as the engines counted them.", ("model", "kind")),
    ):
        family = CounterMetricFamily(f"autoglm_{name}", help_text, labels=labels)
        for key, value in sorted(counts.items()):
            if key[0] == name:
                family.add_metric(key[1:], value)
        yield family


def _histogram(name: str, help_text: str, counts: Mapping[Key, int], bounds_s: Sequence[float]) -> Metric:
    public = {"duration": "autoglm_request_duration_seconds", "ttft": "autoglm_ttft_seconds"}[name]
    family = HistogramMetricFamily(public, help_text, labels=("model",))
    for model in sorted({key[1] for key in counts if key[0] == name}):
        running, buckets = 0, []
        for index, bound in enumerate((*map(str, bounds_s), "+Inf")):
            running += counts.get((name, model, str(index)), 0)
            buckets.append((bound, running))
        family.add_metric((model,), buckets, counts.get((name, model, "sum"), 0) / 1e6)
    return family


_REPLICA = ("model", "replica", "engine")


def _replicas(fleet: FleetView, load: Callable[[int], ReplicaLoad]) -> Iterator[Metric]:
    prefix = "autoglm_replica"
    states = GaugeMetricFamily(f"{prefix}_state", "1 for the state it is in.", labels=(*_REPLICA, "state"))
    requests = GaugeMetricFamily(f"{prefix}_in_flight_requests", "Requests it carries.", labels=_REPLICA)
    cost = GaugeMetricFamily(
        f"{prefix}_in_flight_cost_tokens", "Outstanding cost, in tokens.", labels=_REPLICA
    )
    for replica in fleet.replicas:
        values = (replica.model, replica.id, replica.engine)
        carried = load(replica.slot)
        requests.add_metric(values, carried.requests)
        cost.add_metric(values, carried.cost_tokens)
        for state in ReplicaState:
            states.add_metric((*values, state), float(state is replica.state))
    return iter((states, requests, cost))


def _kept(status: ServiceStatus) -> Iterator[Metric]:
    """What became of the processes that are kept alive."""
    restarts = CounterMetricFamily(
        "autoglm_replica_restarts", "Starts that followed an exit nobody had asked for.", labels=_REPLICA
    )
    start = GaugeMetricFamily(
        "autoglm_replica_start_seconds", "From its last start until it was ready.", labels=_REPLICA
    )
    for replica in status.replicas:
        values = (replica.model, replica.id, replica.engine)
        restarts.add_metric(values, replica.restarts)
        if replica.start_s is not None:
            start.add_metric(values, replica.start_s)
    gateway = status.gateway
    workers = GaugeMetricFamily("autoglm_gateway_workers", "Those that take connections.", gateway.serving)
    again = CounterMetricFamily("autoglm_gateway_restarts", "Workers started again.", gateway.restarts)
    return iter((restarts, start, workers, again))
