"""Downloads through the real huggingface_hub library, from a hub of the test's own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoglm_serve.core.errors import ModelError
from autoglm_serve.core.model import ModelFormat
from autoglm_serve.probe.hub import Download, HuggingFace, ModelScope, fetch
from autoglm_serve.probe.model_files import find_model
from tests.probe.gguf_bytes import TOWER, header, model_bytes
from tests.probe.hub_server import COMMIT, HubServer, hub_server

BIG = model_bytes() + os.urandom(300_000)
GGUF_REPOSITORY = {
    "README.md": b"# x",
    "m-Q4_K_M.gguf": BIG,
    "m-Q8_0.gguf": model_bytes(),
    "mmproj-m-F16.gguf": header(TOWER),
}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server({"org/m": GGUF_REPOSITORY}) as state:
        yield state


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> HuggingFace:
    return HuggingFace(endpoint=server.url, cache=tmp_path / "cache")


def test_only_what_is_needed_is_downloaded(server: HubServer, hub: HuggingFace) -> None:
    told: list[Download] = []
    fetched = fetch("org/m", hub=hub, on_progress=told.append)
    assert (fetched.folder / "m-Q4_K_M.gguf").read_bytes() == BIG
    assert sorted(set(server.downloads())) == ["m-Q4_K_M.gguf", "mmproj-m-F16.gguf"]
    assert told[0].done_bytes == 0
    assert told[-1].done_bytes == told[-1].total_bytes == len(BIG) + len(header(TOWER))


def test_a_second_time_nothing_is_downloaded(server: HubServer, hub: HuggingFace) -> None:
    first = fetch("org/m", hub=hub)
    server.asked.clear()
    assert fetch("org/m", hub=hub) == first
    assert server.downloads() == []


def test_a_revision_is_what_is_asked_for_and_a_commit_is_found_again_offline(
    server: HubServer, tmp_path: Path
) -> None:
    pinned = HuggingFace(endpoint=server.url, cache=tmp_path / "cache", revision=COMMIT)
    first = fetch("org/m", hub=pinned)
    assert any(path.split("?")[0].endswith(f"/revision/{COMMIT}") for _, path, _ in server.asked)
    server.broken = True
    assert fetch("org/m", hub=pinned).folder == first.folder
    other = HuggingFace(endpoint=server.url, cache=tmp_path / "cache", revision="0" * 40)
    with pytest.raises(ModelError, match="is not on this machine"):
        fetch("org/m", hub=other)


def test_a_quantisation_can_be_named(hub: HuggingFace) -> None:
    assert fetch("org/m", hub=hub, quantisation="Q8_0").choice.main == "m-Q8_0.gguf"


def test_a_download_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """The library keeps what came in pieces of 10 MiB."""
    big = model_bytes() + bytes(16 << 20)
    with hub_server({"org/big": {"m.gguf": big}}) as server:
        server.cut_at_bytes = 12 << 20
        fetched = fetch("org/big", hub=HuggingFace(endpoint=server.url, cache=tmp_path))
        assert (fetched.folder / "m.gguf").read_bytes() == big
        assert f"bytes={10 << 20}-" in [where for _, _, where in server.asked]


def test_a_file_whose_checksum_is_wrong_is_removed_and_told(server: HubServer, hub: HuggingFace) -> None:
    server.lie_about = "m-Q4_K_M.gguf"
    with pytest.raises(ModelError, match=r"m-Q4_K_M\.gguf of org/m arrived damaged"):
        fetch("org/m", hub=hub)
    server.lie_about = ""
    assert (fetch("org/m", hub=hub).folder / "m-Q4_K_M.gguf").read_bytes() == BIG


def test_a_mirror_that_gives_no_sizes_removes_nothing(server: HubServer, hub: HuggingFace) -> None:
    whole = fetch("org/m", hub=hub)
    server.names_only = True
    told: list[Download] = []
    assert fetch("org/m", hub=hub, on_progress=told.append).folder == whole.folder
    assert (whole.folder / "m-Q4_K_M.gguf").read_bytes() == BIG
    assert told[-1].total_bytes is None


def test_what_was_here_before_is_never_removed(server: HubServer, hub: HuggingFace) -> None:
    whole = fetch("org/m", hub=hub)
    server.claims_bytes["m-Q4_K_M.gguf"] = 7
    with pytest.raises(ModelError, match="is not what Hugging Face has under this name") as refused:
        fetch("org/m", hub=hub)
    assert "left as it is" in refused.value.why
    assert (whole.folder / "m-Q4_K_M.gguf").read_bytes() == BIG


def test_a_download_that_does_not_fit_on_the_disk_is_not_begun(server: HubServer, hub: HuggingFace) -> None:
    server.claims_bytes["m-Q4_K_M.gguf"] = 10**18
    with pytest.raises(ModelError, match=r"There is no room for org/m: 1000000000\.00 GB are still to come"):
        fetch("org/m", hub=hub)
    assert server.downloads() == []


def test_a_folder_that_may_not_be_written_to_is_no_network_problem(hub: HuggingFace, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")  # not even root may make a folder below a file
    with pytest.raises(ModelError) as refused:
        fetch("org/m", hub=hub)
    assert "could not be reached" not in str(refused.value)


def test_a_repository_that_is_not_there(hub: HuggingFace) -> None:
    with pytest.raises(ModelError, match="There is no model org/none on Hugging Face"):
        fetch("org/none", hub=hub)


def test_a_repository_behind_terms(server: HubServer, hub: HuggingFace) -> None:
    server.gated.add("org/m")
    with pytest.raises(ModelError, match="accepted its terms") as refused:
        fetch("org/m", hub=hub)
    assert "hf auth login" in refused.value.next_step


def test_a_repository_without_a_model(hub: HuggingFace) -> None:
    with pytest.raises(ModelError, match="none of its GGUF files is a Q2_K"):
        fetch("org/m", hub=hub, quantisation="Q2_K")


def test_a_hub_that_is_down_is_not_needed_for_what_is_here(server: HubServer, hub: HuggingFace) -> None:
    first = fetch("org/m", hub=hub)
    server.broken = True
    assert fetch("org/m", hub=hub).folder == first.folder


def test_offline_it_says_what_is_missing_and_where_it_looked(tmp_path: Path) -> None:
    nobody = HuggingFace(endpoint="http://127.0.0.1:1", cache=tmp_path)
    with pytest.raises(ModelError) as missing:
        fetch("org/m", hub=nobody)
    assert str(tmp_path / "models--org--m") in missing.value.why
    assert "could not be reached" in missing.value.why
    assert "hf download org/m" in missing.value.next_step
    assert "HF_ENDPOINT" in missing.value.next_step


def test_hf_hub_offline_is_obeyed(tmp_path: Path) -> None:
    """The library reads its environment when it is imported, hence a process of its own."""
    code = (
        "from autoglm_serve.probe.model_files import find_model\n"
        "from autoglm_serve.core.errors import ModelError\n"
        "try: find_model('org/m')\n"
        "except ModelError as problem: print(problem.why)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "HF_HUB_OFFLINE" in result.stdout
    assert str(tmp_path) in result.stdout


def test_an_unfinished_copy_is_no_model(server: HubServer, hub: HuggingFace) -> None:
    """Only the tower arrived before the hub went away."""
    listing = hub.listing("org/m")
    hub.download("org/m", listing.revision, "mmproj-m-F16.gguf")
    server.broken = True
    with pytest.raises(ModelError, match="cannot be downloaded") as missing:
        fetch("org/m", hub=hub)
    assert "no whole model" in missing.value.why


class ModelScopeLibrary:
    """As much of modelscope as is used: what both its old and its new versions have."""

    def __init__(self, cache: Path, files: Mapping[str, bytes], *, old: bool) -> None:
        self.files = files
        self.old = old
        self.problem: Exception | None = None
        self.folder = cache / ("org/m" if old else "models/org--m/snapshots/master")

    def HubApi(self) -> "ModelScopeLibrary":  # noqa: N802
        return self

    def get_model_files(self, repository: str, *, revision: str, recursive: bool) -> list[dict[str, Any]]:
        assert revision == "master"
        if self.problem is not None:
            raise self.problem
        entries: list[dict[str, Any]] = [{"Path": n, "Size": len(d)} for n, d in self.files.items()]
        if self.old:
            entries = [{**entry, "Type": "blob", "Sha256": ""} for entry in entries]
            entries.append({"Path": "assets", "Size": 0, "Type": "tree"})
        return entries

    def model_file_download(self, repository: str, name: str, *, revision: str, cache_dir: str | None) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.files[name])
        return str(path)


@pytest.mark.parametrize("old", [False, True])
def test_modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    library = ModelScopeLibrary(tmp_path, GGUF_REPOSITORY, old=old)
    for name in ("modelscope", "modelscope.hub", "modelscope.hub.api", "modelscope.hub.file_download"):
        monkeypatch.setitem(sys.modules, name, library)
    hub = ModelScope(cache=tmp_path)
    fetched = fetch("org/m", hub=hub)
    assert (fetched.folder / "m-Q4_K_M.gguf").read_bytes() == BIG
    library.problem = ConnectionError("no network")
    assert fetch("org/m", hub=hub).folder == fetched.folder
    library.problem = type("NotExistError", (Exception,), {})("404")
    with pytest.raises(ModelError, match="There is no model org/m on ModelScope"):
        fetch("org/m", hub=hub)


def test_a_missing_modelscope_library_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(ModelError, match="ModelScope needs its library") as missing:
        fetch("org/m", hub=ModelScope())
    assert "pip install modelscope" in missing.value.next_step


def test_from_the_reference_to_the_files(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = HuggingFace(endpoint=server.url, cache=tmp_path)
    monkeypatch.setitem(find_model.__globals__["hubs"].HUBS, "huggingface", lambda revision: hub)
    files = find_model("org/m:Q8_0")
    assert files.format is ModelFormat.GGUF
    assert files.path is not None
    assert files.mmproj is not None
    assert (files.path.name, files.mmproj.name) == ("m-Q8_0.gguf", "mmproj-m-F16.gguf")
