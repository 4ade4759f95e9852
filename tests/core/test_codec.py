"""Frozen values survive the way through JSON, and what another version says beyond them is passed over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.codec import from_plain
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
)


def plain(value: object) -> Any:
    return orjson.loads(
        orjson.dumps(value, default=lambda each: sorted(each) if isinstance(each, frozenset) else str(each))
    )


@given(TREES)
def test_what_goes_through_json_comes_back(tree: Tree) -> None:
    assert from_plain(Tree, plain(tree)) == tree


def test_what_is_not_known_is_passed_over_and_what_is_missing_is_the_default() -> None:
    assert from_plain(Leaf, {"color": "red", "taste": "sweet"}) == Leaf(color=Color.RED)


@pytest.mark.parametrize("wrong", [{}, {"color": "green"}, {"color": "red", "sizes": 3}])
def test_what_is_none_is_refused(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_plain(Leaf, wrong)


@pytest.mark.parametrize("kind", [ServiceStatus, FleetView, Deployment])
def test_the_hints_of_what_is_sent_can_be_read(kind: type[Any]) -> None:
    given_fields = {"url": "u", "version": 1, "models": [], "replicas": [], "members": []}
    assert from_plain(kind, given_fields)
