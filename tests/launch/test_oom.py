from pathlib import Path

from autoglm_serve.launch.oom import oom_kills

EVENTS = "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"


def machine(tmp_path: Path, *, own: str, events: str | None, vmstat: str = "") -> int:
    (tmp_path / "cgroup").write_text(own)
    (tmp_path / "vmstat").write_text(vmstat)
    group = tmp_path / "groups" / "system.slice"
    group.mkdir(parents=True)
    if events is not None:
        (group / "memory.events").write_text(events)
    return oom_kills(tmp_path / "groups", tmp_path / "cgroup", tmp_path / "vmstat")


def test_kills_in_our_own_group_are_counted(tmp_path: Path) -> None:
    assert machine(tmp_path, own="0::/system.slice\n", events=EVENTS, vmstat="oom_kill 50\n") == 2


def test_without_a_group_the_machine_counts(tmp_path: Path) -> None:
    own = "4:memory:/docker/x\n1:name=systemd:/\n"
    assert machine(tmp_path, own=own, events=None, vmstat="pgfault 1\noom_kill 50\n") == 50


def test_a_group_that_counts_nothing_leaves_it_to_the_machine(tmp_path: Path) -> None:
    assert machine(tmp_path, own="0::/system.slice\n", events=None, vmstat="oom_kill 50\n") == 50


def test_a_machine_that_tells_nothing_has_none(tmp_path: Path) -> None:
    assert machine(tmp_path, own="", events=None) == 0
    assert oom_kills() >= 0
