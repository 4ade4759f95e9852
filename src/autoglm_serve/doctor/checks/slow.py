"""Is an answer slow, and where does its time go?"""

from collections.abc import Iterator

from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.doctor.facts import Facts, ServiceFacts
from autoglm_serve.doctor.symptom import Symptom, warning

_FIRST_S = 2.0
"""For a question of a few words, without a picture: an idle engine takes a tenth of it."""
_GAP_S = 0.2


def check(facts: Facts) -> Iterator[Symptom]:
    service = facts.service
    if service is None or service.stream is None:
        return
    stream = service.stream
    gap_s = stream.spread_s / max(1, len(stream.pieces_s) - 1)
    if stream.first_s <= _FIRST_S and gap_s <= _GAP_S:
        return
    evidence = f"first piece after {stream.first_s:.1f} s, then one each {gap_s * 1000:.0f} ms"
    waiting, ready = _load(service)
    if ready and waiting > 2 * ready:
        yield warning(
            "Answers are slow: more is asked than replicas carry.",
            evidence=f"{evidence}; {waiting} requests on {ready} ready replicas",
            why="Requests share an engine, or wait for one.",
            remedy="more replicas (--replicas) or GPUs: `autoglm plan --sessions N` says how many",
        )
    else:
        yield warning(
            "Answers are slow though little is asked.",
            evidence=evidence,
            why="The engine itself is slow: a model too large for this machine, a GPU throttled or shared.",
            remedy=_faster(facts),
        )


def _load(service: ServiceFacts) -> tuple[int, int]:
    """Requests under way, and replicas that are ready."""
    if service.status is None:
        return 0, 0
    ready = [each for each in service.status.replicas if each.state is ReplicaState.READY]
    return sum(each.in_flight for each in ready), len(ready)


def _faster(facts: Facts) -> str:
    if facts.host is not None and not facts.host.hardware.gpus:
        return "serve it on a GPU, or a smaller or more quantised model (Q4_K_M)"
    return "nvidia-smi -q -d PERFORMANCE says whether it is throttled; `autoglm bench` measures"
