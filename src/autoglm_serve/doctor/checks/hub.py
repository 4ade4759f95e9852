"""Can the model be had?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None or host.hub.model_cached:
        return
    hub = host.hub
    if hub.offline:
        yield error(
            "The model is not on this machine, and the environment says to stay offline.",
            evidence="HF_HUB_OFFLINE",
            why="Nothing can be downloaded.",
            remedy="unset HF_HUB_OFFLINE, or bring the files and name their folder: --model /path",
        )
    elif hub.unreachable:
        yield error(
            f"{hub.title} does not answer.",
            evidence=hub.unreachable,
            why="The model is not on this machine yet.",
            remedy="HF_ENDPOINT names a mirror, --hub modelscope another hub, HTTPS_PROXY a way out",
        )
