"""`verify` passes a server that is right and fails each that is broken, by the check that names the fault."""

import json
import socket
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from autoglm_serve.cli.main import main
from autoglm_serve.verify.finding import CheckOutcome, Finding
from autoglm_serve.verify.golden import golden_screens
from autoglm_serve.verify.report import as_junit
from autoglm_serve.verify.run import verify
from autoglm_serve.verify.screens import point_of
from autoglm_serve.verify.served_model import ServedModel
from autoglm_serve.verify.server import AskedServer
from tests.fakes.broken_serving import BREAKAGES
from tests.fakes.golden_model import NAME, Serving, served


def findings_of(serving: Serving) -> dict[str, Finding]:
    with served(serving) as url:
        address = AskedServer(url=url, timeout_s=20)
        subject = ServedModel(address=address, served=address.served(), name=NAME, long_tokens=4000)
        return {finding.check: finding for finding in verify(subject)}


def test_a_server_that_is_right_passes() -> None:
    found = findings_of(Serving())
    assert {finding.said for finding in found.values() if finding.outcome is CheckOutcome.FAILED} == set()
    assert {check for check, finding in found.items() if finding.outcome is CheckOutcome.SKIPPED} <= {
        "picture tokens",
        "speech",
    }


@pytest.mark.parametrize("broken", BREAKAGES)
def test_a_broken_server_fails_by_the_check_that_names_its_fault(broken: str) -> None:
    serving, check = BREAKAGES[broken]
    finding = findings_of(serving)[check]
    assert finding.outcome is CheckOutcome.FAILED, finding
    assert finding.next_step


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("coordinates from 0 to 100", "from 0 to 100"),
        ("picture turned", "turned to the"),
        ("picture upside down", "upside down"),
        ("doubled token", "twice"),
        ("truncated stream", "lacks the last"),
    ],
)
def test_a_fault_with_one_cause_is_told_by_it(broken: str, words: str) -> None:
    serving, check = BREAKAGES[broken]
    assert words in findings_of(serving)[check].said


def test_an_address_that_is_down_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.socket()) as ours:  # bound and not listening: nobody else can take the port
        ours.bind(("127.0.0.1", 0))
        assert main(["verify", "--url", f"http://127.0.0.1:{ours.getsockname()[1]}"]) == 9
    assert "Next: Start a service" in capsys.readouterr().err


def test_the_command_fails_for_a_broken_server_and_writes_what_build_servers_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verify.xml"
    with served(BREAKAGES["truncated stream"][0]) as url:
        assert main(["verify", "--url", url, "--long-context", "2000", "--json", "--junit", str(file)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == NAME
    failed = [one["check"] for one in told["findings"] if one["outcome"] == "failed"]
    suite = ElementTree.parse(file).getroot()
    assert [case.get("name") for case in suite if case.find("failure") is not None] == failed


def test_what_a_server_says_can_not_break_the_report() -> None:
    said = 'a <b> & "c" \x00\x1b[31m'
    xml = as_junit(
        "http://x", said, [Finding(check="taps", outcome=CheckOutcome.FAILED, said=said, next_step=said)]
    )
    assert ElementTree.fromstring(xml.partition("?>")[2]).get("failures") == "1"


def test_the_target_of_every_golden_screen_is_elsewhere_once_the_picture_is_turned() -> None:
    for screen in golden_screens():
        left, top, right, bottom = screen.target
        x, y = (left + right) / 2, (top + bottom) / 2
        assert screen.is_hit(x, y)
        for turned in ((999 - x, 999 - y), (y, x), (999 - y, x), (y, 999 - x), (999 - x, y)):
            assert not screen.is_hit(*turned)


@pytest.mark.parametrize(
    ("reply", "point"),
    [
        ('<think>x</think><answer>do(action="Tap", element=[300,938])</answer>', (300, 938)),
        ('do(action="Tap", element=[0.3, 0.9])', (0.3, 0.9)),
        ('do(action="Swipe", start=[1,2], end=[3,4])', None),
        ("I can not see it.", None),
    ],
)
def test_a_tap_is_read_in_whatever_scale_it_is_written(reply: str, point: tuple[float, float] | None) -> None:
    assert point_of(reply) == point
