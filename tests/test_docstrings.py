"""What docstrings and comments name in backticks exists: whoever renames a thing renames its mentions."""

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "autoglm_serve"
FILES = sorted(SOURCE.rglob("*.py"))
_NAMED = re.compile(r"`([A-Za-z_][\w.]*)`")
_CALLERS = re.compile(r"\b(?:Called|Used|Asked) by\b")
_OF_OTHERS = frozenset(
    "adb profile_run profile_cudagraph_memory compile_or_warm_up_model".split()  # noqa: SIM905
)
"""Programs, and words of protocols and of other people's code."""


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Every text that stands for itself: docstrings, and what explains a field behind it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


@cache
def known() -> frozenset[str]:
    """Every name that the code has: definitions, arguments, attributes, imports, modules, plain strings."""
    names = set(dir(builtins)) | set(sys.stdlib_module_names) | set(_OF_OTHERS)
    for path in FILES:
        names |= {path.stem, path.name, *path.relative_to(SOURCE).parts}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names |= set(_names_of(node))
    return frozenset(names)


def _names_of(node: ast.AST) -> Iterator[str]:
    for field in ("name", "id", "arg", "attr", "asname"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield from value.split(".")
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
        yield from re.findall(r"[A-Za-z_]\w*", node.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_what_a_docstring_names_exists(path: Path) -> None:
    told = "\n".join(docstrings(ast.parse(path.read_text(encoding="utf-8"))))
    missing = [name for name in _NAMED.findall(told) if not set(name.strip(".").split(".")) <= known()]
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_docstring_names_its_callers(path: Path) -> None:
    """They change, and nobody tells the docstring."""
    told = "\n".join(docstrings(ast.parse(path.read_text(encoding="utf-8"))))
    assert not _CALLERS.findall(told)


def test_no_class_name_stands_for_two_things() -> None:
    named = [
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert not {name for name in named if named.count(name) > 1}
