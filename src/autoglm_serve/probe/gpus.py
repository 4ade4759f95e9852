"""The GPUs of this machine, asked from the driver (NVML) without creating a CUDA context.

Owns the translation from NVML to `Hardware`, and the three ways there can be none: no GPU, no driver, a
driver that does not answer. `nvidia-ml-py` is imported only when asked. `Snapshot` stands between the two, so
that the hosts of other people can be recorded once and replayed in tests.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from autoglm_serve.core.hardware import Gpu, GpuProcess, Hardware, Link
from autoglm_serve.probe.hardware_table import identify

# nvmlGpuP2PCapsIndex_t; written out, because nvidia-ml-py's names hold tuples in some releases.
P2P_READ, P2P_NVLINK = 0, 2
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

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Snapshot":
        raw = json.loads(text)
        readings = tuple(GpuReading(**_frozen(item)) for item in raw.pop("gpus"))
        driver = Driver(raw.pop("driver"))
        return cls(driver=driver, gpus=readings, **_frozen(raw))


def _frozen(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Lists become tuples again."""

    def deep(value: Any) -> Any:
        return tuple(deep(item) for item in value) if isinstance(value, list) else value

    return {key: deep(value) for key, value in raw.items()}


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
    if word.isascii() and word.isdigit():
        return int(word) if int(word) < len(gpus) else None
    matches = [index for index, gpu in enumerate(gpus) if word and gpu.uuid.startswith(word)]
    return matches[0] if len(matches) == 1 else None


def _gpu(position: int, reading: GpuReading) -> Gpu:
    spec, _ = identify(reading.name, reading.capability, reading.total_bytes)
    return Gpu(
        index=position,
        spec=spec,
        total_bytes=reading.total_bytes,
        free_bytes=max(0, reading.total_bytes - reading.used_bytes),
        name=reading.name,
        device=reading.uuid,
        mig=reading.mig,
        pcie_generation=reading.pcie_generation,
        pcie_width=reading.pcie_width,
        processes=tuple(GpuProcess(pid=pid, used_bytes=size) for pid, size in reading.processes),
    )


def _links(order: Sequence[int], snapshot: Snapshot) -> Iterator[tuple[int, int, Link]]:
    nvlink = {frozenset(pair) for pair in snapshot.nvlink}
    peers = {frozenset(pair) for pair in snapshot.peers}
    unsaid = {frozenset(pair) for pair in snapshot.unsaid}
    for a, first in enumerate(order):
        for b in range(a + 1, len(order)):
            pair = frozenset((first, order[b]))
            if pair in unsaid:
                yield a, b, _gpu(a, snapshot.gpus[first]).spec.link
            else:
                yield a, b, Link.NVLINK if pair in nvlink else Link.P2P if pair in peers else Link.HOST


def _notes(gpus: Iterable[Gpu], readings: Iterable[GpuReading]) -> Iterator[str]:
    for gpu, reading in zip(gpus, readings, strict=True):
        if reading.mig:
            yield f"GPU {gpu.index} is in MIG mode: give the slices to use in CUDA_VISIBLE_DEVICES"
        if gpu.spec.key == "unknown":
            yield f"{gpu.title} is not in this planner's table: its speed is guessed from the nearest card"
        used = gpu.total_bytes - gpu.free_bytes
        if used > BUSY_BYTES:
            owners = ", ".join(f"pid {process.pid}" for process in gpu.processes) or "another program"
            yield f"GPU {gpu.index} has {used / 2**30:.1f} GiB in use by {owners}: planned around it"
        width, most = reading.pcie_width, reading.pcie_width_max
        if width and most and width < most:
            yield f"GPU {gpu.index} sits on PCIe x{width} of x{most}: data between GPUs moves slower"


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
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    pairs = [(a, b) for a in range(len(handles)) for b in range(a + 1, len(handles))]
    cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    nvlink = {pair: _p2p(nvml, handles, pair, P2P_NVLINK) for pair in pairs}
    peers = {pair: _p2p(nvml, handles, pair, P2P_READ) for pair in pairs}
    return Snapshot(
        driver=Driver.OK if handles else Driver.NO_DEVICE,
        driver_version=str(nvml.nvmlSystemGetDriverVersion()),
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(_reading(nvml, handle) for handle in handles),
        nvlink=tuple(pair for pair in pairs if nvlink[pair]),
        peers=tuple(pair for pair in pairs if peers[pair]),
        unsaid=tuple(pair for pair in pairs if nvlink[pair] is None and peers[pair] is None),
    )


def _p2p(nvml: Any, handles: Sequence[Any], pair: tuple[int, int], capability: int) -> bool | None:
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
    whole = nvml.nvmlDeviceGetMemoryInfo(handle)  # older drivers count the reserve as used
    return int(whole.total), int(whole.used)


def _reading(nvml: Any, handle: Any) -> GpuReading:
    total, used = _memory(nvml, handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)

    def ask(function: str) -> Any:
        """What not every card or container answers."""
        with suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, function)(handle)
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
        processes=tuple(
            (int(process.pid), process.usedGpuMemory)
            for process in ask("nvmlDeviceGetComputeRunningProcesses") or ()
        ),
    )
