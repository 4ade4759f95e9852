"""The documents say what the code does: generated parts are fresh, named things exist, links lead on."""

import argparse
import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

from autoglm_serve.cli.config import reference
from autoglm_serve.cli.main import VERBS, main
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.core.fleet import FleetView
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.gateway.admission.endpoints import ENDPOINTS
from autoglm_serve.gateway.exchange.account import Outcome
from autoglm_serve.observe import metrics

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "examples/README.md"])
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def code_blocks(path: Path) -> list[tuple[str, str]]:
    """(language, code) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", read(path), re.DOTALL | re.MULTILINE)


def test_the_option_reference_is_fresh() -> None:
    assert read("docs/options.md") == reference(), "run: autoglm config reference > docs/options.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_local_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", read(document))
    local = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in local if not (document.parent / link).exists()] == []


def flags_of(verb: str) -> set[str]:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"autoglm_serve.cli.{verb}").add_arguments(parser)
    return set(parser._option_string_actions)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_flag_that_is_named_exists(document: Path) -> None:
    commands = re.findall(r"autoglm (\w+)((?: [^\n`|]*)?)", read(document))
    commands += [("serve", rest) for rest in re.findall(r"run_autoglm_server\.sh( [^\n`|]*)", read(document))]
    for verb, rest in commands:
        named = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", rest.partition(" -- ")[0].partition("#")[0]))
        if named:
            assert named <= flags_of(verb), verb


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"(?:^|`)autoglm ([a-z]+)", read(document), re.MULTILINE))
    assert named <= {verb.name for verb in VERBS}


def test_the_two_readmes_show_the_same_code() -> None:
    english, chinese = (
        [(language, re.sub(r"\s*#.*", "", code)) for language, code in code_blocks(path)] for path in READMES
    )
    assert [language for language, _ in english] == [language for language, _ in chinese]
    assert [code for language, code in english if language == "sh"] == [
        code for language, code in chinese if language == "sh"
    ]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_plan_that_a_readme_shows_is_what_the_planner_says(
    readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = code_blocks(readme)
    command, shown = next(
        (code, blocks[index + 1][1]) for index, (_, code) in enumerate(blocks) if "autoglm plan" in code
    )
    assert main(command.split()[1:]) == ExitCode.OK
    said = capsys.readouterr().out.splitlines()
    assert [line for line in shown.splitlines() if line not in said] == []


def test_the_map_names_every_package_with_its_layer() -> None:
    table = read("docs/architecture.md").partition("## Packages")[2].partition("\n## ")[0]
    mapped = {name: int(layer) for layer, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", table, re.MULTILINE)}
    contract = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    layers = enumerate(contract["layers"], 1)
    assert mapped == {name: number for number, layer in layers for name in re.findall(r"\w+", layer)}
    package = ROOT / "src/autoglm_serve"
    there = {path.parent.name for path in package.glob("*/__init__.py")}
    there |= {path.stem for path in package.glob("[a-z]*.py")}
    assert set(mapped) == there


def test_the_api_page_names_every_path_outcome_and_metric() -> None:
    page = read("docs/api.md")
    families = metrics.exposition(
        version="0",
        counts={},
        buckets_s=(),
        fleet=FleetView(),
        load=lambda _: metrics.ReplicaLoad(requests=0, cost_tokens=0),
        status=ServiceStatus(url="", version=""),
    ).decode()
    names = {
        name + ("_total" if kind == "counter" and not name.endswith("_total") else "")
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)", families, re.MULTILINE)
    }
    for word in (*ENDPOINTS, *Outcome, *names):
        assert re.search(rf"(?<![\w/]){re.escape(word)}(?![\w/])", page), word


def refusal_codes() -> set[str]:
    """Every code that the source refuses with: a word like `no_vision` as an argument of a refusal."""
    codes = set()
    for path in (ROOT / "src/autoglm_serve").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                said = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
                function = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if function in ("Refusal", "refuse", "_refusal", "_overloaded"):
                    codes |= {
                        word for word in said if isinstance(word, str) and re.fullmatch("[a-z0-9_]+", word)
                    }
    return codes


def test_the_api_page_explains_every_error_code() -> None:
    explained = set(re.findall(r"`([a-z0-9_]+)`", read("docs/api.md").partition("## Errors")[2]))
    never_sent = {"client_left"}  # nobody is there to read it
    assert refusal_codes() - explained == never_sent
