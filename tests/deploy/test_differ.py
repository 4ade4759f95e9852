"""What other settings amount to in a service that runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.config.options import Options, declared
from autoglm_serve.deploy.differ import change_of

NOT_LIVE: dict[str, Any] = {
    "gateway_workers": 3,
    "upstream": ("http://127.0.0.1:9",),
    "usage_db": "elsewhere.db",
    "port": 9,
    "state_dir": Path("/elsewhere"),
}


@pytest.mark.parametrize("name", NOT_LIVE)
def test_what_cannot_change_while_the_service_runs_stays_as_it_is_and_is_named(name: str) -> None:
    before = Options()
    change = change_of(before, replace(before, queue_timeout_s=7.0, **{name: NOT_LIVE[name]}))
    assert change.not_live == (name,)
    assert change.live == ("queue_timeout_s",)
    assert change.options == replace(before, queue_timeout_s=7.0)


def test_every_option_that_says_so_is_one_of_these() -> None:
    assert {option.name for option in declared() if not option.doc.live} <= NOT_LIVE.keys()
