"""The GPUs this project knows by name: for `--hardware rtx4090:2`, and for the rates of GPUs a probe finds.

Rates are dense datasheet figures (bf16 or fp16 with 32-bit accumulation); memory is what CUDA programs see
on a machine with no display attached. A live probe replaces the memory, never the rates.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.hardware import GIB, Gpu, GpuSource, GpuSpec, Hardware, Link

NEXT_STEP = "run `autoglm plan --hardware list` for every name"


def _spec(
    key: str,
    title: str,
    capability: tuple[int, int],
    memory_gib: float,
    bandwidth_gb_s: float,
    tflops_16bit: float,
    tflops_fp8: float | None = None,
    *,
    nvlink_gb_s: float = 0.0,
    nvlink_group: int = 0,
    pcie_gb_s: float = 32.0,
    pcie_peer: bool = True,
    integrated: bool = False,
) -> GpuSpec:
    switched = nvlink_group > 2
    return GpuSpec(
        key=key,
        title=title,
        compute_capability=capability,
        memory_bytes=int(memory_gib * GIB),
        bandwidth_bytes_s=bandwidth_gb_s * 1e9,
        flops_16bit=tflops_16bit * 1e12,
        flops_8bit_float=None if tflops_fp8 is None else tflops_fp8 * 1e12,
        link=Link.NVLINK if switched else Link.P2P if pcie_peer else Link.HOST,
        nvlink_bytes_s=nvlink_gb_s * 1e9,
        nvlink_group=nvlink_group,
        pcie_bytes_s=pcie_gb_s * 1e9,
        pcie_peer=pcie_peer,
        integrated=integrated,
    )


SPECS: tuple[GpuSpec, ...] = (
    # data centre
    _spec(
        "v100", "Tesla V100-SXM2-32GB", (7, 0), 31.7, 900, 125, nvlink_gb_s=150, nvlink_group=8, pcie_gb_s=16
    ),
    _spec(
        "v100-16",
        "Tesla V100-SXM2-16GB",
        (7, 0),
        15.8,
        900,
        125,
        nvlink_gb_s=150,
        nvlink_group=8,
        pcie_gb_s=16,
    ),
    _spec("t4", "Tesla T4", (7, 5), 14.58, 300, 65, pcie_gb_s=16),
    _spec("a10", "A10", (8, 6), 22.0, 600, 125),
    _spec("a10g", "A10G", (8, 6), 22.03, 600, 70),
    _spec("a30", "A30", (8, 0), 23.5, 933, 165, nvlink_gb_s=100, nvlink_group=2),
    _spec("a40", "A40", (8, 6), 44.4, 696, 150, nvlink_gb_s=56, nvlink_group=2),
    _spec("a100-40", "A100-SXM4-40GB", (8, 0), 39.4, 1555, 312, nvlink_gb_s=300, nvlink_group=8),
    _spec("a100", "A100-SXM4-80GB", (8, 0), 79.1, 2039, 312, nvlink_gb_s=300, nvlink_group=8),
    _spec("a100-pcie", "A100 80GB PCIe", (8, 0), 79.1, 1935, 312, nvlink_gb_s=300, nvlink_group=2),
    _spec("l4", "L4", (8, 9), 22.0, 300, 121, 242),
    _spec("l40s", "L40S", (8, 9), 44.4, 864, 362, 733),
    _spec("h20", "H20", (9, 0), 95.0, 4000, 148, 296, nvlink_gb_s=450, nvlink_group=8, pcie_gb_s=64),
    _spec(
        "h100",
        "H100 80GB HBM3",
        (9, 0),
        79.1,
        3350,
        989,
        1979,
        nvlink_gb_s=450,
        nvlink_group=8,
        pcie_gb_s=64,
    ),
    _spec(
        "h100-pcie",
        "H100 PCIe",
        (9, 0),
        79.1,
        2000,
        756,
        1513,
        nvlink_gb_s=300,
        nvlink_group=2,
        pcie_gb_s=64,
    ),
    _spec("h200", "H200", (9, 0), 139.8, 4800, 989, 1979, nvlink_gb_s=450, nvlink_group=8, pcie_gb_s=64),
    _spec("b200", "B200", (10, 0), 178.0, 7700, 2250, 4500, nvlink_gb_s=900, nvlink_group=8, pcie_gb_s=64),
    # workstation
    _spec("rtxa5000", "RTX A5000", (8, 6), 23.6, 768, 111, nvlink_gb_s=56, nvlink_group=2),
    _spec("rtxa6000", "RTX A6000", (8, 6), 47.5, 768, 155, nvlink_gb_s=56, nvlink_group=2),
    _spec("rtx6000ada", "RTX 6000 Ada Generation", (8, 9), 47.4, 960, 364, 728),
    _spec("rtxpro6000", "RTX PRO 6000 Blackwell", (12, 0), 95.0, 1792, 468, 936, pcie_gb_s=64),
    # consumer: the stock driver allows no peer access over PCIe
    _spec("rtx2080ti", "GeForce RTX 2080 Ti", (7, 5), 10.75, 616, 54, pcie_gb_s=16, pcie_peer=False),
    _spec("rtx3060", "GeForce RTX 3060", (8, 6), 11.65, 360, 25.5, pcie_peer=False),
    _spec("rtx3080", "GeForce RTX 3080", (8, 6), 9.75, 760, 59.5, pcie_peer=False),
    _spec(
        "rtx3090",
        "GeForce RTX 3090",
        (8, 6),
        23.58,
        936,
        71,
        nvlink_gb_s=56,
        nvlink_group=2,
        pcie_peer=False,
    ),
    _spec("rtx4060ti-16", "GeForce RTX 4060 Ti", (8, 9), 15.6, 288, 44, 88, pcie_gb_s=16, pcie_peer=False),
    _spec("rtx4070ti", "GeForce RTX 4070 Ti", (8, 9), 11.6, 504, 80, 160, pcie_peer=False),
    _spec("rtx4080", "GeForce RTX 4080", (8, 9), 15.6, 717, 97.5, 195, pcie_peer=False),
    _spec("rtx4090", "GeForce RTX 4090", (8, 9), 23.53, 1008, 165.2, 330.3, pcie_peer=False),
    _spec("rtx5080", "GeForce RTX 5080", (12, 0), 15.5, 960, 112.6, 225.1, pcie_gb_s=64, pcie_peer=False),
    _spec("rtx5090", "GeForce RTX 5090", (12, 0), 31.4, 1792, 209.5, 419, pcie_gb_s=64, pcie_peer=False),
    # Jetson: memory shared with the CPU
    _spec("orin-64", "Jetson AGX Orin 64GB", (8, 7), 61.0, 204.8, 42, integrated=True),
    _spec("orin-32", "Jetson AGX Orin 32GB", (8, 7), 30.0, 204.8, 27, integrated=True),
    _spec("orin-nano", "Jetson Orin Nano 8GB", (8, 7), 7.4, 68, 10, integrated=True),
)

BY_KEY = {spec.key: spec for spec in SPECS}

ALIASES = {
    "4090": "rtx4090",
    "3090": "rtx3090",
    "5090": "rtx5090",
    "a100-80": "a100",
    "h100-sxm": "h100",
    "orin": "orin-64",
    "a6000": "rtxa6000",
}

LINK_WORDS = {"nvlink": Link.NVLINK, "pcie": Link.P2P, "p2p": Link.P2P, "host": Link.HOST, "nop2p": Link.HOST}

MAX_COUNT = 64


def hardware(text: str) -> Hardware:
    """The hardware that `--hardware` names: KEY[:COUNT][@LINK][,…], e.g. rtx4090:2, l40s:8@pcie.

    Raises ConfigError for a name, count or link that is not there, with the nearest name that is.
    """
    gpus: list[Gpu] = []
    overrides: set[Link] = set()
    for item in (part.strip().lower() for part in text.split(",")):
        spec, count, link = _item(item, text)
        overrides |= {link} if link else set()
        gpus += [_idle(len(gpus) + offset, spec) for offset in range(count)]
    override = overrides.pop() if len(overrides) == 1 else None
    return Hardware(gpus=tuple(gpus), links=tuple(_pairs(gpus, override)), source=GpuSource.TABLE)


def _item(item: str, whole: str) -> tuple[GpuSpec, int, Link | None]:
    match = re.fullmatch(r"([a-z0-9 _-]+?)(?::(\d+))?(?:@([a-z0-9]+))?", item)
    if not match:
        raise ConfigError(
            f"--hardware {whole} cannot be read.",
            why="a GPU is written NAME, NAME:COUNT or NAME:COUNT@LINK, such as rtx4090:2 or l40s:8@pcie",
            next_step=NEXT_STEP,
        )
    name, count, link = match.groups()
    key = re.sub(r"[ _]", "", name)
    spec = BY_KEY.get(ALIASES.get(key, key))
    if spec is None:
        near = difflib.get_close_matches(key, [*BY_KEY, *ALIASES], n=1)
        raise ConfigError(
            f"--hardware {whole}: no GPU is known as {name!r}.",
            why=f"did you mean {near[0]}?" if near else "",
            next_step=NEXT_STEP,
        )
    if link and link not in LINK_WORDS:
        raise ConfigError(f"--hardware {whole}: {link!r} is no link.", next_step="use nvlink, pcie or host")
    number = int(count or 1)
    if not 1 <= number <= MAX_COUNT:
        raise ConfigError(f"--hardware {whole}: {number} GPUs.", next_step=f"name 1 to {MAX_COUNT} of them")
    return spec, number, LINK_WORDS[link] if link else None


def _idle(index: int, spec: GpuSpec) -> Gpu:
    # An idle card still loses a little to the driver: 0.3 % and at least 0.15 GiB.
    free = spec.memory_bytes - max(int(0.003 * spec.memory_bytes), int(0.15 * GIB))
    return Gpu(index=index, spec=spec, total_bytes=spec.memory_bytes, free_bytes=free, name=spec.title)


def _pairs(gpus: list[Gpu], override: Link | None) -> Iterable[tuple[int, int, Link]]:
    for position, a in enumerate(gpus):
        for b in gpus[position + 1 :]:
            yield a.index, b.index, override or _usual_link(a, b)


def _usual_link(a: Gpu, b: Gpu) -> Link:
    """How two of them see each other in an ordinary host. A bridge is an extra, so it is not assumed."""
    if a.spec.key != b.spec.key:
        return Link.P2P if a.spec.pcie_peer and b.spec.pcie_peer else Link.HOST
    if a.spec.nvlink_group > 2 and a.index // a.spec.nvlink_group == b.index // a.spec.nvlink_group:
        return Link.NVLINK
    return Link.P2P if a.spec.pcie_peer else Link.HOST


def identify(
    name: str,
    compute_capability: tuple[int, int],
    total_bytes: int,
) -> tuple[GpuSpec, bool]:
    """The table's row for a GPU that a driver names, and whether it is this very model.

    An unknown card takes the rates of the smallest card of its generation with no more memory: an estimate
    that errs on the slow side.
    """
    words = _words(name)
    exact = [spec for spec in SPECS if _words(spec.title) <= words]
    if exact:
        best = min(exact, key=lambda spec: (-len(_words(spec.title)), abs(spec.memory_bytes - total_bytes)))
        return best, True
    same = [spec for spec in SPECS if spec.compute_capability <= compute_capability and not spec.integrated]
    nearest = min(
        same or SPECS,
        key=lambda spec: (
            spec.compute_capability != compute_capability,
            abs(spec.memory_bytes - total_bytes),
            spec.flops_16bit,
        ),
    )
    return replace(nearest, key="unknown", title=name, compute_capability=compute_capability), False


def _words(title: str) -> frozenset[str]:
    text = title.lower().replace("geforce", " ").replace("nvidia", " ").replace("tesla", " ")
    return frozenset(word for word in re.split(r"[^a-z0-9]+", text) if word)
