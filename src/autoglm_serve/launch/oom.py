"""How often the kernel ended a process for want of memory: a SIGKILL alone does not say who sent it."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")


def oom_kills(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP, vmstat: Path = VMSTAT) -> int:
    """Kills in our own control group; without one (cgroup v1, no cgroup) those of the whole machine."""
    name = next((line[3:] for line in _lines(own_cgroup) if line.startswith("0::")), None)
    events = _lines(cgroups / name.lstrip("/") / "memory.events") if name is not None else ()
    for line in events or _lines(vmstat):
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text().splitlines())
    except OSError:
        return ()
