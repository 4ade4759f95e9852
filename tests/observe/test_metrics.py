"""/metrics says what was counted, in the format that Prometheus reads."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from autoglm_serve.core.fleet import FleetView, ReplicaView
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.core.status import GatewayReport, ReplicaReport, ServiceStatus
from autoglm_serve.gateway.exchange.account import LATENCY_BUCKETS_S, Account, Outcome
from autoglm_serve.gateway.recovery.journal import Usage
from autoglm_serve.observe import counter_file
from autoglm_serve.observe.counter_file import CounterFile
from autoglm_serve.observe.metrics import ReplicaLoad, exposition

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(counts: dict[counter_file.Key, int], status: ServiceStatus | None = None) -> Samples:
    replica = ReplicaView(
        id="r0", slot=3, model="m", engine="e", state=ReplicaState.READY, base_url="http://x"
    )
    text = exposition(
        version="1.2",
        counts=counts,
        buckets_s=LATENCY_BUCKETS_S,
        fleet=FleetView(replicas=(replica,)),
        load=lambda slot: ReplicaLoad(requests=slot, cost_tokens=slot * 100),
        status=status,
    )
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_account_is_counted_once_in_outcome_latency_and_tokens(tmp_path: Path) -> None:
    account = Account(CounterFile(tmp_path / "counters"), "/v1/chat/completions", 10.0)
    account.model, account.outcome, account.attempts = "m", Outcome.OK, 3
    account.first_byte_s, account.usage = 10.3, Usage(prompt_tokens=30, completion_tokens=4)
    account.close(12.0)
    account.close(99.0)
    seen = samples(counter_file.read([tmp_path / "counters"]))

    def value(name: str, **labels: str) -> float:
        return seen[name, frozenset(labels.items())]

    path = "/v1/chat/completions"
    assert value("autoglm_requests_total", model="m", path=path, outcome="ok") == 1
    assert value("autoglm_retries_total", model="m") == 2
    assert value("autoglm_tokens_total", model="m", kind="prompt") == 30
    assert value("autoglm_tokens_total", model="m", kind="completion") == 4
    assert value("autoglm_ttft_seconds_bucket", model="m", le="0.2") == 0
    assert value("autoglm_ttft_seconds_bucket", model="m", le="0.35") == 1
    assert value("autoglm_request_duration_seconds_count", model="m") == 1
    assert value("autoglm_request_duration_seconds_sum", model="m") == 2


def test_each_replica_shows_its_one_state_and_its_load() -> None:
    seen = samples({})
    labels = {"model": "m", "replica": "r0", "engine": "e"}.items()
    states = {
        dict(key)["state"]: value for (name, key), value in seen.items() if name == "autoglm_replica_state"
    }
    assert {state for state, value in states.items() if value} == {"ready"}
    assert set(states) == set(ReplicaState)
    assert seen["autoglm_replica_in_flight_requests", frozenset(labels)] == 3
    assert seen["autoglm_replica_in_flight_cost_tokens", frozenset(labels)] == 300
    assert seen["autoglm_build_info", frozenset({"version": "1.2"}.items())] == 1


def test_what_only_the_control_plane_knows_is_there_while_it_says_it() -> None:
    report = ReplicaReport(id="r0", model="m", engine="e", state=ReplicaState.READY, restarts=2, start_s=1.5)
    status = ServiceStatus(
        url="u", version="1", replicas=(report,), gateway=GatewayReport(workers=2, serving=1, restarts=4)
    )
    seen, without = samples({}, status), samples({})
    labels = frozenset({"model": "m", "replica": "r0", "engine": "e"}.items())
    told = {
        ("autoglm_replica_restarts_total", labels): 2,
        ("autoglm_replica_start_seconds", labels): 1.5,
        ("autoglm_gateway_workers", frozenset[tuple[str, str]]()): 1,
        ("autoglm_gateway_restarts_total", frozenset[tuple[str, str]]()): 4,
    }
    assert {key: seen[key] for key in told} == told
    assert not told.keys() & without.keys()
