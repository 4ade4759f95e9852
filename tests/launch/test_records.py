from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_serve.launch.process import ProcessIdentity
from autoglm_serve.launch.records import Records, ReplicaRecord

RECORD = ReplicaRecord(
    id="r0",
    identity=ProcessIdentity(pid=12, start_ticks=345, boot_id="b", mark="m"),
    argv=("engine", "--port", "1"),
    port=1,
    log_path=Path("/x/r0.log"),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    Records(tmp_path).write(RECORD)
    assert Records(tmp_path).read_all() == (RECORD,)


def test_a_record_of_before_there_were_marks_is_read(tmp_path: Path) -> None:
    Records(tmp_path).write(RECORD)
    path = tmp_path / "replicas" / "r0.json"
    path.write_text(path.read_text().replace(',"mark":"m"', ""))
    assert Records(tmp_path).read_all()[0].identity == replace(RECORD.identity, mark="")


def test_a_removed_record_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    records.remove("r0")
    records.remove("r0")
    assert records.read_all() == ()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"id": "r0"}', '{"id": 1}', "null"])
def test_a_damaged_record_names_no_process(tmp_path: Path, damage: str) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    (tmp_path / "replicas" / "r1.json").write_text(damage)
    assert records.read_all() == (RECORD,)
    assert not (tmp_path / "replicas" / "r1.json").exists()


def test_a_draft_that_was_not_finished_is_no_record(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    (tmp_path / "replicas" / "r1.tmp").write_text('{"id": ')
    assert records.read_all() == (RECORD,)


def test_others_may_not_look(tmp_path: Path) -> None:
    Records(tmp_path).write(RECORD)
    assert (tmp_path / "replicas").stat().st_mode & 0o077 == 0


def test_a_record_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    written = (
        '{"id": "r0", "identity": {"pid": 12, "start_ticks": 345, "boot_id": "b", "mark": "m"}, '
        '"argv": ["engine", "--port", "1"], "port": 1, "log_path": "/x/r0.log", "fingerprint": "f", '
        '"note": {"slot": "3"}}'
    )
    (tmp_path / "replicas").mkdir()
    (tmp_path / "replicas" / "r0.json").write_text(written)
    assert Records(tmp_path).read_all() == (replace(RECORD, fingerprint="f", note={"slot": "3"}),)
