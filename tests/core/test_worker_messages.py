"""What a worker says is what the control plane hears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core import worker_messages
from autoglm_serve.core.worker_messages import Joined, Serving, UnknownMessage, WakeModel, WorkerMessage

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
PIDS = st.integers(1, 2**22)
MESSAGES = st.one_of(
    st.builds(Joined, worker_id=st.integers(0, 127), pid=PIDS),
    st.builds(Serving, pid=PIDS),
    st.builds(WakeModel, model=NAMES),
)


@given(MESSAGES)
def test_a_message_survives_the_line(message: WorkerMessage) -> None:
    line = worker_messages.encode(message)
    assert b"\n" not in line
    assert worker_messages.decode(line) == message


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"wake": 1}', b'{"serving": "x"}'])
def test_anything_else_is_an_error_that_the_channel_survives(line: bytes) -> None:
    with pytest.raises(UnknownMessage):
        worker_messages.decode(line)
