"""What both trainers share: the learning rate, checkpoints, the record of a run.

A checkpoint holds the weights, the optimiser's moments, the step and the seed. Data is drawn from the seed
and the step, so a resumed run never sees a batch again.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn

SHARD_BYTES = 15 << 20
"""Checkpoints are cut into files that also pass through narrow channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to learn and how fast. The schedule ends at `steps` or `seconds`, whichever comes first."""

    steps: int
    seconds: float
    peak_rate: float
    warm_up_steps: int = 200
    cool_down_share: float = 0.4

    def rate(self, step: int, done: float) -> float:
        """The learning rate `step` steps after the start, with this share of the schedule done."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        cool = min(1.0, (1 - done) / self.cool_down_share)
        return self.peak_rate * warm * max(0.0, cool)

    def progress(self, step: int, elapsed_s: float) -> float:
        return min(1.0, max(step / self.steps, elapsed_s / self.seconds))


def optimiser(modules: list[nn.Module], *, rate: float, cuda: bool) -> torch.optim.AdamW:
    """AdamW; norms, biases and other vectors do not decay."""
    parameters = [
        parameter for module in modules for parameter in module.parameters() if parameter.requires_grad
    ]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=cuda)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The processes that train together, one a GPU, as torchrun starts them; one alone without it. They must
    agree on every step's gradient and on when to stop: each has its own clock. Without a GPU they share the
    processor, through gloo.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls) -> Ranks:
        count = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available()
        device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu")
        if count > 1:
            if cuda:
                torch.cuda.set_device(device)
            torch.distributed.init_process_group("nccl" if cuda else "gloo")
        return cls(rank=int(os.environ.get("RANK", "0")), count=count, device=device)

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks."""
        if self.count == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for parameter, part in zip(parameters, flat.split([g.numel() for g in grads]), strict=True):
            parameter.grad = part.view_as(parameter)

    def agree(self, value: float) -> float:
        """The first rank's value. Nobody goes on before everybody is here."""
        if self.count == 1:
            return value
        word = torch.tensor([value], device=self.device, dtype=torch.float64)
        torch.distributed.broadcast(word, 0)
        return float(word.item())

    def leave(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()


@dataclass(slots=True)
class Record:
    """The run's figures: one JSON line each, and the latest on the screen."""

    path: Path
    started_s: float = field(default_factory=time.monotonic)
    _sums: dict[str, float] = field(default_factory=dict)
    _counts: dict[str, float] = field(default_factory=dict)

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        if math.isfinite(total):
            self._sums[name] = self._sums.get(name, 0.0) + total
            self._counts[name] = self._counts.get(name, 0.0) + count

    def write(self, step: int, rate: float) -> dict[str, float]:
        """Means since the last line."""
        means = {name: self._sums[name] / self._counts[name] for name in self._sums if self._counts[name]}
        self._sums.clear()
        self._counts.clear()
        line = {"step": step, "seconds": round(self.elapsed_s(), 1), "rate": rate, **means}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"step {step:6d}  {self.elapsed_s():6.0f} s  {shown}", flush=True)
        return line


def save(
    folder: Path,
    name: str,
    step: int,
    modules: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer | None = None,
    *,
    seed: str = "",
) -> list[Path]:
    """Write the checkpoint `name`, in shards; a half-written one never replaces a whole one."""
    state: dict[str, object] = {"step": step, "seed": seed}
    state |= {key: module.state_dict() for key, module in modules.items()}
    if optimiser is not None:
        state["optimiser"] = _halved(optimiser.state_dict())
    whole = io.BytesIO()
    torch.save(state, whole)
    data = whole.getvalue()
    shards = []
    for index in range(-(-len(data) // SHARD_BYTES)):
        partial = folder / f"{name}.partial.{index}"
        partial.write_bytes(data[index * SHARD_BYTES : (index + 1) * SHARD_BYTES])
        shards.append(partial.replace(folder / f"{name}.pt.{index}"))
    for old in folder.glob(f"{name}.pt.*"):
        if old not in shards:
            old.unlink()
    return shards


def _halved(state: Any) -> Any:
    """The moments in 16 bits: half the size, and as good for going on."""
    if isinstance(state, torch.Tensor):
        return state.to(torch.bfloat16) if state.numel() > 1 else state
    if isinstance(state, dict):
        return {key: _halved(value) for key, value in state.items()}
    return [_halved(value) for value in state] if isinstance(state, list) else state


def load(
    folder: Path, name: str, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer | None = None
) -> int:
    """Restore the checkpoint `name` and return its step; 0 where there is none."""
    shards = sorted(folder.glob(f"{name}.pt.*"), key=lambda shard: int(shard.suffix[1:]))
    if not shards:
        return 0
    whole = io.BytesIO(b"".join(shard.read_bytes() for shard in shards))
    state = torch.load(whole, map_location="cpu", weights_only=True)
    for key, module in modules.items():
        if key in state:
            module.load_state_dict(state[key])
    if optimiser is not None and "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
