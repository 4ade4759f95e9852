"""The screen of `autoglm serve` as a person copies from it."""

import io
import shlex
import threading

from rich.console import Console

from autoglm_serve.cli.screen import TerminalReporter, ThreadedReporter
from autoglm_serve.core.model import ModelFiles, ModelFormat
from autoglm_serve.core.plan import Deployment, Member, Placement, Plan


def test_the_examples_can_be_copied_from_a_narrow_terminal() -> None:
    files = ModelFiles(reference="demo", format=ModelFormat.GGUF)
    plan = Plan(engine="llama.cpp", placements=(Placement(),), max_model_len=4096, max_num_seqs=4)
    member = Member(names=("autoglm-phone-demo",), files=files, plan=plan, capabilities=frozenset())
    shown = io.StringIO()
    reporter = TerminalReporter(Console(file=shown, width=40))
    reporter.serving("http://127.0.0.1:8000", Deployment(members=(member,)))
    text = shown.getvalue()
    words = shlex.split(text[text.index("curl ") : text.index("from openai")].replace("\\\n", ""))
    assert words[:4] == [
        *("curl", "http://127.0.0.1:8000/v1/chat/completions"),
        *("-H", "Content-Type: application/json"),
    ]
    assert "\n" not in words[5]


class Stuck(io.StringIO):
    """A terminal that takes nothing until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait()
        return super().write(text)


def test_a_terminal_that_takes_nothing_holds_nobody_up() -> None:
    terminal = Stuck()
    reporter = ThreadedReporter(TerminalReporter(Console(file=terminal, width=100)))
    for number in range(5000):  # more than are kept for it
        reporter.stopping(number)
    terminal.go_on.set()
    reporter.close()
    assert "Stopping. 1 requests in flight" in terminal.getvalue()
