"""Whose the state directory has to be, and who holds it."""

import os
import shutil
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ConfigError, StateDirBusy
from autoglm_serve.launch.state_dir import StateDir, holder

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to other accounts")


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError, match="cannot be trusted") as refused:
        StateDir(path)
    return refused.value.why


def test_a_new_folder_is_closed_to_other_accounts_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with StateDir(tmp_path / "a" / "state") as held:
            assert held.path.stat().st_mode & 0o777 == 0o700
            assert (held.path / "lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_folder_that_others_could_look_into_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    with StateDir(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    assert "may have left something there" in refusal(folder)


def test_a_folder_that_everybody_may_replace_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert f"{tmp_path} is open to all" in refusal(tmp_path / "state")
    tmp_path.chmod(0o1777)  # as /tmp: only its owner may
    StateDir(tmp_path / "state").close()


@AS_ROOT
def test_a_folder_of_another_account_is_refused_even_to_root(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    assert refusal(folder) == "It belongs to another account."


@AS_ROOT
def test_a_link_that_another_account_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    StateDir(link).close()  # one of our own is followed
    os.lchown(link, 12345, 12345)
    assert refusal(link) == "It belongs to another account."


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "lock").symlink_to(victim)
    with pytest.raises(ConfigError):
        StateDir(folder)
    assert victim.read_text() == "mine"


def test_the_holder_is_known_and_a_second_one_refused(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with StateDir(tmp_path / "state"):
        assert holder(tmp_path / "state") == os.getpid()
        with pytest.raises(StateDirBusy):
            StateDir(tmp_path / "state")
    assert holder(tmp_path / "state") is None


@pytest.mark.parametrize("what", ["lock", "all of it"])
def test_a_directory_that_was_deleted_is_held_again(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state"
    with StateDir(path) as held:
        assert held.intact
        if what == "lock":
            (path / "lock").unlink()
        else:
            shutil.rmtree(path)
        assert not held.intact
        assert held.make_again() is None
        assert held.intact
        with pytest.raises(StateDirBusy, match=str(os.getpid())):
            StateDir(path)


def test_one_in_which_another_has_begun_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateDir(path) as held:
        (path / "lock").unlink()
        with StateDir(path) as other:
            assert held.make_again() == os.getpid()
            assert not held.intact
            assert other.intact
