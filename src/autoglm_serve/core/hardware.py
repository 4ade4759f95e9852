"""The accelerators of one host: what they are, what is free on them now, and how they reach each other.

Made by `probe.gpus` from the driver or by `probe.hardware_table` from a name such as rtx4090:2; read by
the planner, which never knows which of the two it was. Bytes are what CUDA programs see, not the label.
"""

from dataclasses import dataclass
from enum import StrEnum

GIB = 1024**3


class Link(StrEnum):
    """How two GPUs of a host exchange data, best first."""

    NVLINK = "nvlink"
    P2P = "p2p"  # directly over PCIe
    HOST = "host"  # through host memory: the driver allows no peer access


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """What a kind of GPU can do. Rates are dense datasheet peaks; the planner applies its efficiencies."""

    key: str
    """The name in `--hardware`: rtx4090, h200 …"""
    title: str
    """As the driver names it."""
    compute_capability: tuple[int, int]
    memory_bytes: int
    bandwidth_bytes_s: float
    flops_16bit: float
    flops_8bit_float: float | None = None
    """None where the chip has no fp8 units (before 8.9): weights shrink, arithmetic stays 16-bit."""
    link: Link = Link.P2P
    """The best way between two of them in an ordinary host."""
    nvlink_bytes_s: float = 0.0
    """One direction, one GPU to the rest of its NVLink group; 0 without NVLink."""
    nvlink_group: int = 0
    """GPUs one NVLink group joins: 2 for a bridge, 8 for a switch; 0 without NVLink."""
    pcie_bytes_s: float = 32e9
    """One direction over its own slot, at the slot width that the card is made for."""
    pcie_peer: bool = True
    """The stock driver lets two of them talk over PCIe without going through host memory."""
    integrated: bool = False
    """Shares the machine's memory (Jetson, GB10)."""
    sustained: float = 1.0
    """Share of the datasheet's arithmetic that a card of its kind keeps up, against a Hopper of its own."""

    @property
    def bf16(self) -> bool:
        return self.compute_capability >= (8, 0)

    @property
    def hbm(self) -> bool:
        """Stacked memory: that of the data-centre generations' large chips."""
        return self.compute_capability in ((7, 0), (8, 0), (9, 0), (10, 0), (10, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """Somebody who holds memory on a GPU."""

    pid: int
    used_bytes: int | None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of this host."""

    index: int
    """As an engine counts: position among the visible GPUs."""
    spec: GpuSpec
    total_bytes: int
    free_bytes: int
    name: str = ""
    device: str = ""
    """What CUDA_VISIBLE_DEVICES calls it: its UUID."""
    mig: bool = False
    pcie_generation: int | None = None
    pcie_width: int | None = None
    processes: tuple[GpuProcess, ...] = ()

    @property
    def title(self) -> str:
        return self.name or self.spec.title


class GpuSource(StrEnum):
    """Where the description came from; a plan from the table is always an estimate."""

    PROBE = "probe"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine has beside its GPUs."""

    memory_bytes: int
    free_bytes: int
    disk_free_bytes: int | None = None
    """Where models are kept."""
    cores: int | None = None
    """That this process may use."""
    threads: int | None = None
    """Of every program that asks OMP_NUM_THREADS, where a person has set that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The GPUs that a plan may use, and how each pair of them is linked."""

    gpus: tuple[Gpu, ...]
    links: tuple[tuple[int, int, Link], ...] = ()
    """(lower index, higher index, link); a pair that is missing goes through host memory."""
    source: GpuSource = GpuSource.PROBE
    host: Host | None = None
    """None where it was not asked, as for hardware that is only named."""
    driver: str = ""
    cuda: str = ""
    """The newest CUDA that the driver runs."""
    notes: tuple[str, ...] = ()
    """Findings worth a line: MIG on, a link below its width, somebody else's process."""

    def by_pair(self) -> dict[tuple[int, int], Link]:
        """The same by pair, lower index first."""
        return {(a, b): link for a, b, link in self.links}

    def link(self, a: int, b: int) -> Link:
        low, high = min(a, b), max(a, b)
        return next((link for x, y, link in self.links if (x, y) == (low, high)), Link.HOST)

    def weakest_link(self, group: tuple[int, ...]) -> Link:
        """The slowest link inside a group, which sets the pace of its collectives."""
        inside, known = frozenset(group), self.by_pair()
        pairs = len(inside) * (len(inside) - 1) // 2
        found = {link for pair, link in known.items() if inside.issuperset(pair)}
        if sum(inside.issuperset(pair) for pair in known) < pairs:
            found.add(Link.HOST)
        return max(found or {Link.NVLINK}, key=list(Link).index)

    def gpu(self, index: int) -> Gpu:
        return next(gpu for gpu in self.gpus if gpu.index == index)

    @property
    def summary(self) -> str:
        """2x NVIDIA GeForce RTX 4090."""
        titles = [gpu.title for gpu in self.gpus]
        return ", ".join(f"{titles.count(title)}x {title}" for title in dict.fromkeys(titles)) or "no GPU"
