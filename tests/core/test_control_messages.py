"""What one end of the control channel says is what the other hears."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.control_messages import (
    Joined,
    Leaving,
    Serving,
    StatusAnswer,
    StatusQuestion,
    UnknownMessage,
    WakeModel,
    WorkerMessage,
    decode_message,
    decode_news,
    encode_message,
    encode_news,
)
from autoglm_serve.core.fleet import FleetChange, FleetView, ModelView, OutOfStep, ReplicaView, change_between
from autoglm_serve.core.model import Capability, Feature, VisionGeometry
from autoglm_serve.core.replica import Loss, ReplicaState
from autoglm_serve.core.status import GatewayReport, ServiceStatus

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
MODELS = st.builds(
    ModelView,
    names=st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    capabilities=st.frozensets(st.sampled_from(list(Capability))),
    vision=st.none() | st.builds(VisionGeometry, max_pixels=st.integers(1, 10**9)),
    max_model_len=st.none() | st.integers(1, 10**7),
    on_demand=st.booleans(),
    created_s=st.integers(0, 2**40),
)
REPLICAS = st.builds(
    ReplicaView,
    id=NAMES,
    slot=st.integers(0, 255),
    model=NAMES,
    engine=NAMES,
    state=st.sampled_from(list(ReplicaState)),
    base_url=NAMES,
    upstream_model=st.none() | NAMES,
    lost=st.none() | st.builds(Loss, base_url=NAMES, by_itself=st.booleans()),
)
VIEWS = st.builds(
    FleetView,
    version=st.integers(0, 2**40),
    models=st.lists(MODELS, max_size=3).map(tuple),
    replicas=st.lists(REPLICAS, max_size=4).map(tuple),
    leaving=st.booleans(),
)


@given(VIEWS)
def test_a_view_survives_the_line(view: FleetView) -> None:
    line = encode_news(view)
    assert b"\n" not in line
    assert decode_news(line) == view


@given(VIEWS, VIEWS)
def test_who_has_the_view_before_gets_the_one_after_from_what_has_changed(
    before: FleetView, after: FleetView
) -> None:
    change = change_between(before, after)
    if change is not None:
        line = encode_news(change)
        assert b"\n" not in line
        got = decode_news(line)
        assert isinstance(got, FleetChange)
        assert before.after(got) == after


def large_view(version: int, state: ReplicaState = ReplicaState.READY) -> FleetView:
    """A thousand replicas, the last of them in that state."""
    each = ReplicaView(id="", slot=0, model="m", engine="e", state=ReplicaState.READY, base_url="http://a:1")
    replicas = [replace(each, id=f"r{slot}", slot=slot) for slot in range(1000)]
    replicas[-1] = replace(replicas[-1], state=state)
    return FleetView(version=version, replicas=tuple(replicas))


def test_the_change_of_one_among_a_thousand_is_small_and_leaves_the_others_as_they_are() -> None:
    before, after = large_view(1), large_view(2, ReplicaState.WAITING)
    change = change_between(before, after)
    assert change is not None
    assert len(encode_news(change)) < 1000
    made = before.after(change)
    assert made == after
    assert all(one is other for one, other in zip(made.replicas[:-1], before.replicas[:-1], strict=True))


def test_a_change_of_another_view_is_not_taken() -> None:
    change = change_between(large_view(1), large_view(2))
    assert change is not None
    with pytest.raises(OutOfStep):
        large_view(7).after(change)


def test_what_stands_in_another_order_is_sent_whole() -> None:
    before = large_view(1)
    assert change_between(before, replace(before, replicas=before.replicas[::-1])) is None


def test_what_a_newer_control_plane_says_beyond_what_is_known_is_passed_over() -> None:
    replica = ReplicaView(
        id="r0", slot=0, model="m", engine="e", state=ReplicaState.READY, base_url="http://a"
    )
    view = FleetView(version=1, replicas=(replica,))
    line = encode_news(view).replace(b'"slot":0', b'"slot":0,"mood":"good"')
    assert decode_news(line) == view


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"version":1,"models":[{}],"replicas":[]}', b'{"since":1}']
)
def test_anything_else_is_an_error_that_the_link_survives(line: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_news(line)


def test_a_model_answers_to_each_of_its_names() -> None:
    model = ModelView(names=("a", "b"), capabilities=frozenset())
    view = FleetView(models=(model,))
    assert view.model("a") is view.model("b") is model
    assert view.model("c") is None
    assert view.served_names == ("a", "b")


def test_a_view_of_before_is_read_and_words_that_are_not_known_here_are_passed_over() -> None:
    line = (
        b'{"version":4,"models":[{"names":["m"],"capabilities":["chat","smell"],"vision":null,'
        b'"max_model_len":512,"on_demand":false,"created_s":7,"undone":["echo","levitation"]}],'
        b'"replicas":[{"id":"r0","slot":0,"model":"m","engine":"e","state":"ready","base_url":"http://a:1",'
        b'"upstream_model":null,"continuation":"none","capacity_requests":4,"capacity_tokens":null}]}'
    )
    model = ModelView(
        names=("m",),
        capabilities=frozenset({Capability.CHAT}),
        max_model_len=512,
        created_s=7,
        undone=frozenset({Feature.ECHO}),
    )
    replica = ReplicaView(
        id="r0",
        slot=0,
        model="m",
        engine="e",
        state=ReplicaState.READY,
        base_url="http://a:1",
        capacity_requests=4,
    )
    assert decode_news(line) == FleetView(version=4, models=(model,), replicas=(replica,))


def test_the_answer_to_a_question_survives_the_line() -> None:
    answer = StatusAnswer(status=ServiceStatus(url="u", version="v", gateway=GatewayReport(serving=2)))
    line = encode_news(answer)
    assert b"\n" not in line
    assert decode_news(line) == answer


PIDS = st.integers(1, 2**22)
MESSAGES = st.one_of(
    st.builds(Joined, worker_id=st.integers(0, 127), pid=PIDS),
    st.builds(Serving, pid=PIDS),
    st.builds(Leaving, pid=PIDS),
    st.builds(WakeModel, model=NAMES | st.just("")),
    st.just(StatusQuestion()),
)


@given(MESSAGES)
def test_a_message_survives_the_line(message: WorkerMessage | StatusQuestion) -> None:
    line = encode_message(message)
    assert b"\n" not in line
    assert decode_message(line) == message


def test_the_lines_of_a_worker_are_those_that_earlier_control_planes_read() -> None:
    said = (Joined(worker_id=3, pid=9), Serving(pid=9), Leaving(pid=9), WakeModel(model="m"))
    assert [encode_message(each) for each in said] == [
        b'{"worker":3,"pid":9}',
        b'{"serving":9}',
        b'{"leaving":9}',
        b'{"wake":"m"}',
    ]


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b'{"wake": 1}', b'{"serving": "x"}', b'{"asks": "more"}']
)
def test_anything_else_that_a_worker_says_is_an_error_that_the_channel_survives(line: bytes) -> None:
    with pytest.raises(UnknownMessage):
        decode_message(line)
