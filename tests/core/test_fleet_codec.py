"""What the control plane sends is what the gateway gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core import fleet_codec
from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
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


def test_what_a_newer_control_plane_says_beyond_what_is_known_is_passed_over() -> None:
    replica = ReplicaView(
        id="r0", slot=0, model="m", engine="e", state=ReplicaState.READY, base_url="http://a"
    )
    view = FleetView(version=1, replicas=(replica,))
    line = fleet_codec.encode(view).replace(b'"slot":0', b'"slot":0,"mood":"good"')
    assert fleet_codec.decode(line) == view


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"version":1,"models":[{}],"replicas":[]}'])
def test_anything_else_is_an_error_that_the_link_survives(line: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        fleet_codec.decode(line)


def test_a_model_answers_to_each_of_its_names() -> None:
    model = ModelView(names=("a", "b"), capabilities=frozenset())
    view = FleetView(models=(model,))
    assert view.model("a") is view.model("b") is model
    assert view.model("c") is None
    assert view.served_names == ("a", "b")
