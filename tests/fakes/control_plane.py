"""A control plane that does nothing but keep two faulty engines alive; tests kill it.

    python -m tests.fakes.control_plane STATE_DIR

Prints the pids of its replicas once they are ready, and then again whenever they are all ready anew.
"""

import asyncio
import sys
from pathlib import Path

from autoglm_serve.control.fleet.desired import DesiredState
from autoglm_serve.control.fleet.supervisor import Supervisor
from autoglm_serve.control.replica.effects import Effects
from autoglm_serve.core.plan import Deployment
from autoglm_serve.launch.local import LocalLauncher
from tests.fakes.faulty_adapter import FaultyAdapter, faulty_member
from tests.fakes.faulty_engine import die_with_parent


def main(state_dir: Path) -> None:
    die_with_parent()
    told: list[str] = []

    def tell() -> None:
        statuses = supervisor.statuses()
        pids = " ".join(str(status.pid) for status in statuses)
        if all(status.state == "ready" for status in statuses) and told[-1:] != [pids]:
            told.append(pids)
            sys.stdout.write(pids + "\n")
            sys.stdout.flush()

    supervisor = Supervisor(
        DesiredState.of(Deployment(members=(faulty_member(replicas=2),))),
        engines={"faulty": FaultyAdapter()},
        effects=Effects(launcher=LocalLauncher(state_dir)),
        on_change=tell,
    )
    asyncio.run(supervisor.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
