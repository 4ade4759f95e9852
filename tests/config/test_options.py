"""Options: the declaration itself."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from autoglm_serve.config.options import Options, declared


def test_the_state_directory_is_the_ports_own(tmp_path: Path) -> None:
    options = Options()
    assert options.state_dir_for(8000, {"HOME": "/h"}) == Path("/h/.local/state/autoglm-serve/8000")
    assert options.state_dir_for(81, {"HOME": "/h", "XDG_STATE_HOME": "/x"}) == Path("/x/autoglm-serve/81")
    assert Options(state_dir=tmp_path).state_dir_for(81, {}) == tmp_path


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().port = 1  # type: ignore[misc]


def test_every_option_is_explained() -> None:
    for option in declared():
        assert option.doc.help.endswith("."), option.name
        assert option.choices or option.switch or option.doc.metavar or not option.doc.flag, option.name
        assert option.default not in (None, ()) or option.doc.unset, option.name


def test_importing_the_declaration_stays_cheap() -> None:
    """No framework, event loop or network client comes along: `autoglm serve` has 3 s to its first token."""
    program = "import sys, autoglm_serve.config.sources; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "rich", "starlette", "huggingface_hub", "pydantic_settings"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    "name", ["a\0b", "a\x1b[31m", "a\udcffb", "a b"], ids=["nul", "escape", "bytes", "blank"]
)
def test_a_name_can_be_printed(name: str) -> None:
    """It goes to clients as JSON, to /metrics as a label, and to the counters' files between NULs."""
    with pytest.raises(ValueError, match="is not a name"):
        Options(served_model_name=(name,))
