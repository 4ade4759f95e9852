"""What the trainers share: several ranks learn as one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
loop = importlib.import_module("training.loop")

ROOT = Path(__file__).parents[2]
ONE_RANK = """
import json, pathlib, sys, torch
from training import loop
ranks = loop.Ranks.join()
folder = pathlib.Path(sys.argv[1])
layer = torch.nn.Linear(3, 2)
begin = loop.load(folder, "model", {"layer": layer})
both, mine = (torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(2))
both.grad = torch.full((2, 3), float(ranks.rank + 1))
if ranks.rank == 1:
    mine.grad = torch.ones(2, 3)
ranks.average([both, mine])
found = {"both": both.grad.flatten().tolist(), "mine": mine.grad.flatten().tolist()}
found["agreed"] = ranks.agree(0.25 + ranks.rank)
found |= {"begin": begin, "layer": layer.weight.flatten().tolist()}
(folder / f"{ranks.rank}.json").write_text(json.dumps(found))
ranks.leave()
"""


def test_two_ranks_go_on_together_and_share_gradients_and_the_first_ones_word(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    loop.save(tmp_path, "model", 700, {"layer": layer})
    script = tmp_path / "one_rank.py"
    script.write_text(ONE_RANK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*torchrun, script, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    # The second has a gradient where the first has none: only some batches hold a picture.
    wanted = {"both": [1.5] * 6, "mine": [0.5] * 6, "agreed": 0.25}
    wanted |= {"begin": 700, "layer": layer.weight.flatten().tolist()}
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [wanted] * 2


def test_a_resumed_run_has_its_moments_back(tmp_path: Path) -> None:
    def trained() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        layer = torch.nn.Linear(3, 2)
        return layer, loop.optimiser([layer], rate=0.1, cuda=False)

    layer, optimiser = trained()
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    loop.save(tmp_path, "model", 3, {"layer": layer}, optimiser, seed="0+0")
    again, resumed = trained()
    assert loop.load(tmp_path, "model", {"layer": again}, resumed) == 3
    for old, new in zip(layer.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(old, new)
        torch.testing.assert_close(
            optimiser.state[old]["exp_avg"], resumed.state[new]["exp_avg"], rtol=1e-2, atol=1e-4
        )
