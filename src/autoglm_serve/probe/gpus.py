"""The GPUs of this machine, asked from the driver (NVML) without creating a CUDA context.

Owns the translation from NVML to `Hardware`, and the three ways there can be none: no GPU, no driver, a
driver that does not answer. `nvidia-ml-py` is imported only when asked. `Snapshot` stands between the two, so
that the hosts of other people can be recorded once and replayed in tests.
"""

import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from autoglm_serve.core.hardware import Gpu, GpuProcess, GpuSpec, Hardware, Link
from autoglm_serve.probe.hardware_table import identify, mig_slice

# nvmlGpuP2PCapsIndex_t; written out, because nvidia-ml-py's names hold tuples in some releases.
P2P_READ, P2P_NVLINK = 0, 2
MOST_GPUS = 64
"""Of one machine; more are not looked at."""
BUSY_BYTES = 512 * 2**20
"""More than this in use is somebody's program, not a display."""


class Driver(StrEnum):
    """What became of asking the driver."""

    OK = "ok"
    NO_GPU = "no-gpu"  # no NVIDIA driver is installed: this machine was never meant to have a GPU
    NO_DEVICE = "no-device"  # the driver runs and shows no GPU, or all are hidden
    BROKEN = "broken"  # the driver is there and does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU as NVML describes it."""

    uuid: str
    name: str
    capability: tuple[int, int]
    total_bytes: int
    used_bytes: int
    mig: bool = False
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    processes: tuple[tuple[int, int | None], ...] = ()
    """(pid, bytes), as far as the driver tells: in a container it may show none."""
    slices: int = 0
    """Of seven, where this is a MIG slice; 0 for a whole GPU."""
    board: int | None = None
    """Number of the GPU that a slice is of, as CUDA counts; None for a whole one, whose position it is."""
    bus_bits: int | None = None
    memory_mhz: int | None = None
    cores: int | None = None
    sm_mhz: int | None = None
    """What tells a card's rates where no table does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything read from the driver, in its own words."""

    driver: Driver
    detail: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    gpus: tuple[GpuReading, ...] = ()
    nvlink: tuple[tuple[int, int], ...] = ()
    """Pairs, by NVML index, that an NVLink joins."""
    peers: tuple[tuple[int, int], ...] = ()
    """Pairs that may read each other's memory over PCIe or NVLink."""
    unsaid: tuple[tuple[int, int], ...] = ()
    """Pairs that the driver says nothing about, as in some virtual machines: the table's usual link holds."""


# --- snapshot to hardware (pure) -------------------------------------------------------------------------


def hardware(snapshot: Snapshot, visible: str | None = None) -> Hardware:
    """The hardware that a program started here would see. `visible` is CUDA_VISIBLE_DEVICES, if it is set."""
    order = _visible(snapshot.gpus, visible)
    gpus = tuple(_gpu(position, snapshot.gpus[index]) for position, index in enumerate(order))
    return Hardware(
        gpus=gpus,
        links=tuple(_links(order, snapshot)),
        driver=snapshot.driver_version,
        cuda=snapshot.cuda_version,
        notes=tuple(_notes(gpus, [snapshot.gpus[index] for index in order])),
    )


def _visible(gpus: Sequence[GpuReading], visible: str | None) -> list[int]:
    """NVML indexes in the order in which CUDA counts them. CUDA stops at the first name it does not know."""
    if visible is None:
        return list(range(len(gpus)))
    order: list[int] = []
    for word in visible.split(","):
        found = _named(gpus, word.strip())
        if found is None or found in order:
            break
        order.append(found)
    return order


def _named(gpus: Sequence[GpuReading], word: str) -> int | None:
    """By number (of a GPU in slices its first one), or by the beginning of a UUID: GPU-… or MIG-…"""
    if word.isascii() and word.isdigit() and len(word) < 6:
        boards = [index if gpu.board is None else gpu.board for index, gpu in enumerate(gpus)]
        return boards.index(int(word)) if int(word) in boards else None
    matches = [index for index, gpu in enumerate(gpus) if word and gpu.uuid.startswith(word)]
    return matches[0] if len(matches) == 1 else None


def _gpu(position: int, reading: GpuReading) -> Gpu:
    spec = _spec(reading)
    return Gpu(
        index=position,
        spec=spec,
        total_bytes=reading.total_bytes,
        free_bytes=max(0, reading.total_bytes - reading.used_bytes),
        name=reading.name,
        device=reading.uuid,
        mig=reading.mig or reading.slices > 0,
        pcie_generation=reading.pcie_generation,
        pcie_width=reading.pcie_width,
        processes=tuple(GpuProcess(pid=pid, used_bytes=size) for pid, size in reading.processes),
    )


def _spec(reading: GpuReading) -> GpuSpec:
    """The table's row; a slice's share of it; for a card that it lacks, what the driver says of it."""
    name = reading.name.partition(" MIG ")[0] if reading.slices else reading.name
    spec, exact = identify(name, reading.capability, reading.total_bytes)
    if reading.slices:
        return mig_slice(spec, reading.slices, reading.total_bytes)
    return spec if exact else _by_its_clocks(spec, reading)


SLOW_SIDE = 0.9
TENSOR_RATE = 2
"""16-bit arithmetic of tensor cores against that of all cores in 32 bits: at least this, since Turing."""


def _by_its_clocks(spec: GpuSpec, reading: GpuReading) -> GpuSpec:
    """Rates of an unknown card: bus width and memory clock (both edges) tell the bandwidth, cores and their
    clock the arithmetic. A GeForce RTX 4090 comes out as its datasheet, larger chips slower than theirs."""
    if reading.bus_bits and reading.memory_mhz:
        bytes_s = reading.bus_bits / 8 * 2 * reading.memory_mhz * 1e6
        spec = replace(spec, bandwidth_bytes_s=SLOW_SIDE * bytes_s)
    if reading.cores and reading.sm_mhz:
        flops = SLOW_SIDE * TENSOR_RATE * 2 * reading.cores * reading.sm_mhz * 1e6
        eight = 2 * flops if reading.capability >= (8, 9) else None
        spec = replace(spec, flops_16bit=flops, flops_8bit_float=eight)
    return spec


def _links(order: Sequence[int], snapshot: Snapshot) -> Iterator[tuple[int, int, Link]]:
    nvlink = {frozenset(pair) for pair in snapshot.nvlink}
    peers = {frozenset(pair) for pair in snapshot.peers}
    unsaid = {frozenset(pair) for pair in snapshot.unsaid}
    for a, first in enumerate(order):
        for b in range(a + 1, len(order)):
            pair = frozenset((first, order[b]))
            if pair in unsaid:
                yield a, b, _spec(snapshot.gpus[first]).link
            else:
                yield a, b, Link.NVLINK if pair in nvlink else Link.P2P if pair in peers else Link.HOST


def _notes(gpus: Iterable[Gpu], readings: Iterable[GpuReading]) -> Iterator[str]:
    for gpu, reading in zip(gpus, readings, strict=True):
        if reading.mig and not reading.slices:
            yield f"GPU {gpu.index} is in MIG mode: give the slices to use in CUDA_VISIBLE_DEVICES"
        if gpu.spec.key == "unknown":
            yield _guessed(gpu)
        used = gpu.total_bytes - gpu.free_bytes
        if gpu.spec.integrated:
            yield (
                f"{gpu.title} shares the machine's memory: the system and others hold {used / 2**30:.1f} of "
                f"{gpu.total_bytes / 2**30:.0f} GiB, and what they take later is missing"
            )
        elif used > BUSY_BYTES:
            owners = ", ".join(f"pid {process.pid}" for process in gpu.processes) or "another program"
            yield f"GPU {gpu.index} has {used / 2**30:.1f} GiB in use by {owners}: planned around it"
        width, most = reading.pcie_width, reading.pcie_width_max
        if width and most and width < most:
            yield f"GPU {gpu.index} sits on PCIe x{width} of x{most}: data between GPUs moves slower"


def _guessed(gpu: Gpu) -> str:
    bytes_s, flops = gpu.spec.bandwidth_bytes_s / 1e9, gpu.spec.flops_16bit / 1e12
    return (
        f"{gpu.title} is not in this planner's table: planned on the slow side from what the driver says "
        f"({bytes_s:,.0f} GB/s, {flops:,.0f} TFLOP/s); --calibrate measures it"
    )


# --- the driver ------------------------------------------------------------------------------------------


def read() -> Snapshot:
    """Ask the driver. Never raises: what went wrong is in the snapshot."""
    try:
        import pynvml as nvml
    except ImportError:
        return Snapshot(driver=Driver.BROKEN, detail="the package nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return _no_driver(nvml, error)
    try:
        return _read(nvml)
    except nvml.NVMLError as error:
        return Snapshot(driver=Driver.BROKEN, detail=str(error))
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _no_driver(nvml: Any, error: Exception) -> Snapshot:
    code = getattr(error, "value", None)
    if code in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
        return Snapshot(driver=Driver.NO_GPU, detail=str(error))
    return Snapshot(driver=Driver.BROKEN, detail=str(error))


def _read(nvml: Any) -> Snapshot:
    count = min(nvml.nvmlDeviceGetCount(), MOST_GPUS)
    boards = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    readings: list[GpuReading] = []
    handles: dict[int, Any] = {}
    """Of whole GPUs, by their place among the readings: slices reach nobody."""
    for number, board in enumerate(boards):
        whole = _reading(nvml, board)
        slices = tuple(_slices(nvml, board, number, whole)) if whole.mig else ()
        if not slices:
            handles[len(readings)] = board
        readings += slices or (replace(whole, board=number if len(readings) != number else None),)
    pairs = [(a, b) for a in handles for b in handles if a < b]
    cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    nvlink = {pair: _p2p(nvml, handles, pair, P2P_NVLINK) for pair in pairs}
    peers = {pair: _p2p(nvml, handles, pair, P2P_READ) for pair in pairs}
    return Snapshot(
        driver=Driver.OK if handles else Driver.NO_DEVICE,
        driver_version=str(nvml.nvmlSystemGetDriverVersion()),
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(readings),
        nvlink=tuple(pair for pair in pairs if nvlink[pair]),
        peers=tuple(pair for pair in pairs if peers[pair]),
        unsaid=tuple(pair for pair in pairs if nvlink[pair] is None and peers[pair] is None),
    )


def _slices(nvml: Any, board: Any, number: int, whole: GpuReading) -> Iterator[GpuReading]:
    """The MIG slices of a GPU: each has a UUID and memory of its own."""
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        with suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, index)
            total, used = _memory(nvml, handle)
            attributes = nvml.nvmlDeviceGetAttributes_v2(handle)
            yield replace(
                whole,
                uuid=str(nvml.nvmlDeviceGetUUID(handle)),
                name=str(nvml.nvmlDeviceGetName(handle)),
                total_bytes=total,
                used_bytes=used,
                mig=False,
                slices=int(attributes.gpuInstanceSliceCount),
                board=number,
                processes=(),
            )


def _p2p(nvml: Any, handles: Mapping[int, Any], pair: tuple[int, int], capability: int) -> bool | None:
    """Whether the pair has a capability; None where the driver does not say."""
    with suppress(nvml.NVMLError):
        status = nvml.nvmlDeviceGetP2PStatus(handles[pair[0]], handles[pair[1]], capability)
        return None if status == nvml.NVML_P2P_STATUS_UNKNOWN else bool(status == nvml.NVML_P2P_STATUS_OK)
    return None


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """(total, used) as CUDA programs see them: without what the driver keeps for itself."""
    with suppress(nvml.NVMLError, AttributeError):
        split = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return int(split.total - split.reserved), int(split.used)
    with suppress(nvml.NVMLError):
        whole = nvml.nvmlDeviceGetMemoryInfo(handle)  # older drivers count the reserve as used
        return int(whole.total), int(whole.used)
    # Memory that is shared with the processor has no figure of its own; engines ask the system for it too.
    system = psutil.virtual_memory()
    return int(system.total), int(system.total - system.available)


def _reading(nvml: Any, handle: Any) -> GpuReading:
    total, used = _memory(nvml, handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)

    def ask(function: str, *what: Any) -> Any:
        """What not every card or container answers."""
        with suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, function)(handle, *what)
        return None

    mig = ask("nvmlDeviceGetMigMode")
    return GpuReading(
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        capability=(int(major), int(minor)),
        total_bytes=total,
        used_bytes=used,
        mig=bool(mig and mig[0]),
        pcie_generation=ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_width_max=ask("nvmlDeviceGetMaxPcieLinkWidth"),
        bus_bits=ask("nvmlDeviceGetMemoryBusWidth"),
        memory_mhz=ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM),
        cores=ask("nvmlDeviceGetNumGpuCores"),
        sm_mhz=ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        processes=tuple(
            (int(process.pid), process.usedGpuMemory)
            for process in ask("nvmlDeviceGetComputeRunningProcesses") or ()
        ),
    )


# --- what is no NVIDIA GPU -------------------------------------------------------------------------------

_DEVICES = (("dev/kfd", "AMD"), ("dev/davinci0", "Ascend"), ("dev/accel/accel0", "Intel or Habana"))


def other_accelerator(root: Path = Path("/"), system: str = sys.platform, machine: str = "") -> str:
    """Whose accelerator this machine has instead, by its device files; empty where none is seen."""
    if system == "darwin" and (machine or platform.machine()) == "arm64":
        return "Apple"
    return next((maker for name, maker in _DEVICES if (root / name).exists()), "")
