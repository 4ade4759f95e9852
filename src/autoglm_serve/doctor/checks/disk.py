"""Is there room for models, logs and records?"""

from collections.abc import Iterator

from autoglm_serve.doctor.facts import Facts
from autoglm_serve.doctor.symptom import Symptom, error, warning

_STATE_BYTES = 200 * 2**20
_CACHE_BYTES = 30 * 10**9
"""AutoGLM-Phone-9B is 20.6 GB."""


def check(facts: Facts) -> Iterator[Symptom]:
    if (host := facts.host) is None:
        return
    state, cache = host.state, host.cache
    if not state.writable:
        yield error(
            f"{state.path} can't be written to.",
            evidence="access() says so",
            why="Records by which a killed service is found again, and logs, lie there.",
            remedy="autoglm serve --state-dir /other/folder, or give it to the user that serves",
        )
    elif state.free_bytes < _STATE_BYTES:
        yield warning(
            f"{state.free_bytes / 2**20:.0f} MiB are free for logs and records.",
            evidence=str(state.path),
            why="A service goes on without them, and you are blind.",
            remedy="make room there, or --state-dir /other/folder",
        )
    if not host.hub.model_cached and cache.free_bytes < _CACHE_BYTES:
        yield warning(
            f"{cache.free_bytes / 1e9:.1f} GB are free where models are kept.",
            evidence=str(cache.path),
            why="AutoGLM-Phone-9B takes 20.6 GB.",
            remedy="make room there, or HF_HOME=/other/folder",
        )
