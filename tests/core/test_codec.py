"""Frozen values survive the way through JSON, and what another version says beyond them is passed over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.core.codec import from_json, from_plain, to_json
from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.plan import Deployment
from autoglm_serve.core.status import ServiceStatus


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    color: Color
    sizes: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    leaf: Leaf
    maybe: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[str, Leaf] | None = None
    by_name: Mapping[str, Leaf] = field(default_factory=dict)
    path: Path | None = None
    share: float = 0.5
    sure: bool = False
    colors: frozenset[Color] = frozenset()


LEAVES = st.builds(
    Leaf,
    color=st.sampled_from(Color),
    sizes=st.lists(st.integers(-5, 5)).map(tuple),
    names=st.frozensets(st.text(max_size=3)),
)
TREES = st.builds(
    Tree,
    leaf=LEAVES,
    maybe=st.none() | LEAVES,
    leaves=st.lists(LEAVES, max_size=3).map(tuple),
    pair=st.none() | st.tuples(st.text(max_size=3), LEAVES),
    by_name=st.dictionaries(st.text(max_size=3), LEAVES, max_size=3),
    path=st.none() | st.just(Path("/a/b")),
    share=st.floats(allow_nan=False, allow_infinity=False),
    sure=st.booleans(),
    colors=st.frozensets(st.sampled_from(Color)),
)


@settings(deadline=None)  # how long a value takes is not what is asked here
@given(TREES)
def test_what_goes_through_json_comes_back(tree: Tree) -> None:
    line = to_json(tree)
    assert b"\n" not in line
    assert from_json(Tree, line) == tree


def test_what_is_not_known_is_passed_over_and_what_is_missing_is_the_default() -> None:
    assert from_plain(Leaf, {"color": "red", "taste": "sweet"}) == Leaf(color=Color.RED)


def test_words_that_are_not_known_are_passed_over_where_there_may_be_several() -> None:
    tree = {"leaf": {"color": "red"}, "colors": ["blue", "green"]}
    assert from_plain(Tree, tree) == Tree(leaf=Leaf(color=Color.RED), colors=frozenset({Color.BLUE}))


def test_a_whole_number_may_stand_for_a_float() -> None:
    share = from_plain(Tree, {"leaf": {"color": "red"}, "share": 1}).share
    assert (share, type(share)) == (1.0, float)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        None,
        {"color": "green"},
        {"color": "red", "sizes": 3},
        {"color": "red", "sizes": "12"},
        {"color": "red", "sizes": ["1"]},
        {"color": "red", "sizes": [True]},
        {"color": "red", "sizes": [1.5]},
        {"color": "red", "names": {"a": 1}},
    ],
)
def test_what_is_none_is_refused(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_plain(Leaf, wrong)


@pytest.mark.parametrize(
    "wrong", [{"sure": 1}, {"share": "1"}, {"share": False}, {"path": 3}, {"pair": ["a"]}]
)
def test_no_kind_stands_for_another(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_plain(Tree, {"leaf": {"color": "red"}, **wrong})


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (ServiceStatus, {"url": "u", "version": "1", "models": [], "replicas": []}),
        (FleetView, {"version": 1, "models": [], "replicas": []}),
        (Deployment, {"members": []}),
    ],
)
def test_the_hints_of_what_is_sent_can_be_read(kind: type[Any], plain: object) -> None:
    assert from_plain(kind, plain)
