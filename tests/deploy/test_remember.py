"""What one control plane has decided is what the next one goes on with, whatever version wrote it down."""

import json
from pathlib import Path

import pytest

from autoglm_serve.config.options import Options
from autoglm_serve.core.ledger import Badge, Expectation, HostLedger, Ledger, Predicted, Subject
from autoglm_serve.core.model import (
    AudioSpan,
    Capability,
    ImageRule,
    ModelFiles,
    ModelFormat,
    VisionGeometry,
)
from autoglm_serve.core.plan import Deployment, Member, Placement, Plan
from autoglm_serve.deploy.remember import recall, remember

WRITTEN_BEFORE = Path(__file__).parent / "written_before" / "deployment.json"
"""As it was written while another library made the file."""
LEDGER = Ledger(
    total_bytes=150_000_000_000,
    weights_bytes=20_000_000_000,
    peak_activation_bytes=3_000_000_000,
    non_torch_bytes=161_061_273,
    cuda_graphs_bytes=1,
    kv_cache_bytes=2,
    kv_cache_tokens=3,
    badge=Badge.CALIBRATED,
)
ON_GPUS = Member(
    names=("autoglm-phone-9b", "gpt-4o"),
    files=ModelFiles(
        reference="zai-org/AutoGLM-Phone-9B", format=ModelFormat.HUGGING_FACE, path=Path("/models/phone")
    ),
    plan=Plan(
        engine="vllm",
        max_num_seqs=32,
        gpu_memory_utilization=0.9,
        placements=(Placement(gpus=(0,), devices=("GPU-a",)), Placement(gpus=(1,), devices=("GPU-b",))),
        reasons=("one GPU a replica",),
        ledger=LEDGER,
        predicted=Predicted(
            steps_per_s=4.5,
            ttft_s=1.0,
            tpot_s=0.02,
            single_ttft_s=0.5,
            single_tpot_s=0.01,
            sessions=32,
            steps_range_per_s=(4.0, 5.0),
        ),
        engine_args=("--seed", "7"),
    ),
    capabilities=frozenset({Capability.CHAT, Capability.VISION}),
    vision=VisionGeometry(rule=ImageRule.GRIDS, grids=((1, 2), (2, 1))),
    expected=Expectation(
        subject=Subject(gpu="H200", driver="570", engine="0.19", model="m"), gpus_per_replica=1, ledger=LEDGER
    ),
    may_degrade=True,
)
SPEECH = Member(
    names=("glm-asr",),
    files=ModelFiles(
        reference="demo", format=ModelFormat.GGUF, path=Path("/m/a.gguf"), mmproj=Path("/m/b.gguf")
    ),
    plan=Plan(
        engine="llama_cpp_speech",
        threads=2,
        placements=(Placement(),),
        host=HostLedger(
            cores=2,
            total_bytes=9,
            free_bytes=8,
            replicas=1,
            weights_bytes=1,
            kv_cache_bytes=1,
            work_bytes=1,
            kv_cache_tokens=2,
        ),
    ),
    capabilities=frozenset({Capability.TRANSCRIPTION}),
    audio=AudioSpan(shortest_s=0.1, longest_s=30.0),
    on_demand=True,
    idle_stop_s=60.0,
)
DEPLOYMENT = Deployment(members=(ON_GPUS, SPEECH))


def test_what_was_decided_is_recalled_for_the_same_options_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    remember(path, Options(sessions=8), DEPLOYMENT)
    assert recall(path, Options(sessions=8)) == DEPLOYMENT
    assert recall(path, Options(sessions=9)) is None
    assert recall(path, None) == DEPLOYMENT


def test_what_an_earlier_version_wrote_is_recalled() -> None:
    assert recall(WRITTEN_BEFORE, Options()) == DEPLOYMENT


def test_an_option_that_there_was_not_then_counts_as_it_does_by_default(tmp_path: Path) -> None:
    written = json.loads(WRITTEN_BEFORE.read_text())
    del written["asked"]["goal"]
    written["asked"]["an_option_of_old"] = "7"
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(written))
    assert recall(path, Options()) == DEPLOYMENT
    assert recall(path, Options(goal="latency")) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"asked": {}}', '{"asked": 3, "deployment": {}}'])
def test_what_cannot_be_read_was_not_decided(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(damage)
    assert recall(path, None) is None
    assert recall(tmp_path / "none.json", None) is None
