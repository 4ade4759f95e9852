"""What the control plane sends is what the gateway gets."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core import fleet_codec
from autoglm_serve.core.fleet import FleetView, ModelView, OutOfStep, ReplicaView, change_between
from autoglm_serve.core.model import Capability, VisionGeometry
from autoglm_serve.core.replica import Loss, ReplicaState

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
)


@given(VIEWS)
def test_a_view_survives_the_line(view: FleetView) -> None:
    line = fleet_codec.encode(view)
    assert b"\n" not in line
    assert fleet_codec.decode(line) == view


@given(VIEWS, VIEWS)
def test_who_has_the_view_before_gets_the_one_after_from_what_has_changed(
    before: FleetView, after: FleetView
) -> None:
    change = change_between(before, after)
    if change is not None:
        line = fleet_codec.encode(change)
        assert b"\n" not in line
        got = fleet_codec.decode(line)
        assert not isinstance(got, FleetView)
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
    assert len(fleet_codec.encode(change)) < 1000
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
    line = fleet_codec.encode(view).replace(b'"slot":0', b'"slot":0,"mood":"good"')
    assert fleet_codec.decode(line) == view


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"version":1,"models":[{}],"replicas":[]}', b'{"since":1}']
)
def test_anything_else_is_an_error_that_the_link_survives(line: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        fleet_codec.decode(line)


def test_a_model_answers_to_each_of_its_names() -> None:
    model = ModelView(names=("a", "b"), capabilities=frozenset())
    view = FleetView(models=(model,))
    assert view.model("a") is view.model("b") is model
    assert view.model("c") is None
    assert view.served_names == ("a", "b")
