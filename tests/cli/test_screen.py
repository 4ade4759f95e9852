"""The screen of `autoglm serve` as a person copies from it."""

import io
import shlex

from rich.console import Console

from autoglm_serve.cli.screen import TerminalReporter
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
