"""What of the replicas of an earlier control plane goes on: who was started as it would be started now, and
answers at its health path. The others are ended.
"""

import asyncio
from collections.abc import Iterable, Mapping

from autoglm_serve.control.fleet.desired import DesiredState, claims
from autoglm_serve.control.replica.health import Health, ask
from autoglm_serve.core.plan import Deployment
from autoglm_serve.engines.base import Engine
from autoglm_serve.launch.base import Launcher, LeftT, RunningProcess

_HEALTH_S = 3.0


async def claimed(
    deployment: Deployment,
    engines: Mapping[str, Engine],
    left: Iterable[LeftT],
    launcher: Launcher[LeftT],
) -> tuple[DesiredState, dict[str, RunningProcess]]:
    """What ought to run, and the processes that go on as part of it, by id. Ends the others."""
    left = tuple(left)
    answers = await asyncio.gather(*(_serves(each.listen.url, deployment, engines) for each in left))
    healthy = {each.id: each for each, serves in zip(left, answers, strict=True) if serves}
    posts = claims(deployment, engines, healthy.values())
    found: dict[str, RunningProcess] = {}
    for replica, one in posts:
        process = await launcher.adopt(healthy[one.id]) if one is not None else None
        if process is not None:
            found[replica.id] = process
    await launcher.end(each for each in left if each.id not in found)
    return DesiredState(replicas=tuple(replica for replica, _ in posts)), found


async def _serves(url: str, deployment: Deployment, engines: Mapping[str, Engine]) -> bool:
    paths = {engines[member.plan.engine].health_path for member in deployment.members}
    answers = await asyncio.gather(*(ask(url, path, timeout_s=_HEALTH_S) for path in paths))
    return Health.OK in answers
