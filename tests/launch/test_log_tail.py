from pathlib import Path

from autoglm_serve.launch.log_tail import KEPT_LINES, LONGEST_LINE_BYTES, LogTail


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_log_that_is_not_there_yet_has_no_lines(tmp_path: Path) -> None:
    assert LogTail(tmp_path / "none.log").read_new() == ()


def test_lines_come_once_and_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = LogTail(path)
    append(path, "one\ntw")
    assert tail.read_new() == ("one",)
    append(path, "o\r\nthree\n")
    assert tail.read_new() == ("two", "three")
    assert tail.read_new() == ()
    assert tail.lines == ("one", "two", "three")


def test_only_the_last_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "".join(f"{i}\n" for i in range(KEPT_LINES + 50)))
    tail = LogTail(path)
    tail.read_new()
    assert len(tail.lines) == KEPT_LINES
    assert tail.lines[-1] == str(KEPT_LINES + 49)


def test_a_line_without_an_end_does_not_grow_forever(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = LogTail(path)
    for _ in range(5):
        append(path, "x" * LONGEST_LINE_BYTES)
        tail.read_new()
    append(path, "\n")
    [line] = tail.read_new()
    assert len(line) <= LONGEST_LINE_BYTES


def test_a_log_over_its_cap_is_cut_and_followed_on(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = LogTail(path, cap_bytes=1000)
    append(path, "y" * 1001 + "\n")
    tail.read_new()
    assert path.stat().st_size == 0
    append(path, "after\n")
    assert tail.read_new() == ("after",)


def test_a_log_that_somebody_else_cut_is_read_from_its_new_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = LogTail(path)
    append(path, "a long first line\n")
    tail.read_new()
    path.write_text("new\n")
    assert tail.read_new() == ("new",)


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xff\xfe ok\n")
    assert LogTail(path).read_new() == ("�� ok",)
