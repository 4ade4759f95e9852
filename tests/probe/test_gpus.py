"""What the driver says, turned into hardware; recorded hosts are under captured/."""

from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_serve.core.codec import from_json, to_json
from autoglm_serve.core.hardware import GIB, Link
from autoglm_serve.probe.gpus import Driver, GpuReading, Snapshot, hardware, other_accelerator, read

CAPTURED = Path(__file__).parent / "captured"


def reading(index: int, **changes: object) -> GpuReading:
    base = GpuReading(
        uuid=f"GPU-{index}{index}-aa",
        name="NVIDIA H200",
        capability=(9, 0),
        total_bytes=140 * GIB,
        used_bytes=0,
        pcie_width=16,
        pcie_width_max=16,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


HOST = Snapshot(
    driver=Driver.OK,
    driver_version="580.159.04",
    cuda_version="13.0",
    gpus=tuple(reading(index) for index in range(4)),
    nvlink=((0, 1), (2, 3)),
    peers=((0, 1), (2, 3), (0, 2)),
)


def test_links_of_each_pair() -> None:
    found = hardware(HOST)
    assert found.link(0, 1) is Link.NVLINK
    assert found.link(2, 0) is Link.P2P
    assert found.link(1, 3) is Link.HOST
    assert found.driver == "580.159.04"


def test_where_the_driver_says_nothing_the_usual_link_holds() -> None:
    found = hardware(replace(HOST, nvlink=(), peers=(), unsaid=((0, 1),)))
    assert found.link(0, 1) is Link.NVLINK
    assert found.link(0, 2) is Link.HOST


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        ("GPU-33", [3]),
        ("1,9,2", [1]),  # CUDA stops at the first it does not know
        ("", []),
        ("-1", []),
        ("²", []),
    ],
)
def test_cuda_visible_devices_is_respected(visible: str | None, uuids: list[int]) -> None:
    found = hardware(HOST, visible)
    assert [gpu.device for gpu in found.gpus] == [f"GPU-{index}{index}-aa" for index in uuids]
    assert [gpu.index for gpu in found.gpus] == list(range(len(uuids)))


def test_links_follow_the_visible_order() -> None:
    found = hardware(HOST, "3,0,2")
    assert found.link(0, 2) is Link.NVLINK  # NVML's 3 and 2
    assert found.link(1, 2) is Link.P2P  # NVML's 0 and 2


def test_somebody_else_s_memory_is_seen_and_said() -> None:
    busy = reading(0, used_bytes=20 * GIB, processes=((4711, 19 * GIB),))
    found = hardware(replace(HOST, gpus=(busy,)))
    assert found.gpus[0].free_bytes == 120 * GIB
    assert any("20.0 GiB in use by pid 4711" in note for note in found.notes)


def test_mig_and_narrow_slots_are_said() -> None:
    odd = reading(0, mig=True, pcie_width=4)
    notes = hardware(replace(HOST, gpus=(odd,))).notes
    assert any("MIG" in note for note in notes)
    assert any("PCIe x4 of x16" in note for note in notes)


def test_a_snapshot_survives_json() -> None:
    assert from_json(Snapshot, to_json(HOST)) == HOST


def test_a_recorded_host() -> None:
    """Four H200s of one host, each with NVLink to each."""
    snapshot = from_json(Snapshot, (CAPTURED / "h200x4.json").read_text())
    found = hardware(snapshot)
    assert [gpu.spec.key for gpu in found.gpus] == ["h200"] * 4
    assert found.weakest_link((0, 1, 2, 3)) is Link.NVLINK
    assert found.gpus[0].total_bytes == pytest.approx(139.8 * GIB, rel=0.001)
    assert found.notes == ()


def test_asking_never_raises() -> None:
    """On a machine without a driver this is NO_GPU; with one it is OK."""
    assert read().driver in set(Driver)


# --- slices, cards that no table has, shared memory, other makers ----------------------------------------


def slices(board: int) -> tuple[GpuReading, ...]:
    return tuple(
        reading(
            board,
            uuid=f"MIG-{board}{number}-bb",
            name=f"NVIDIA H100 80GB HBM3 MIG {share}g.{gib}gb",
            total_bytes=gib * GIB,
            slices=share,
            board=board,
        )
        for number, (share, gib) in enumerate(((3, 40), (1, 10)))
    )


def test_slices_are_gpus_of_their_own() -> None:
    host = Snapshot(driver=Driver.OK, gpus=(*slices(0), reading(1, board=1)))
    found = hardware(host)
    assert [gpu.device for gpu in found.gpus] == ["MIG-00-bb", "MIG-01-bb", "GPU-11-aa"]
    assert [gpu.mig for gpu in found.gpus] == [True, True, False]
    large, small, _ = found.gpus
    assert large.spec.flops_16bit == pytest.approx(3 * small.spec.flops_16bit)
    assert found.link(0, 1) is Link.HOST


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("MIG-01", ["MIG-01-bb"]),
        ("MIG-01-bb,MIG-00-bb", ["MIG-01-bb", "MIG-00-bb"]),
        ("0", ["MIG-00-bb"]),  # CUDA takes the first slice of a GPU that it is given by number
        ("1,0", ["GPU-11-aa", "MIG-00-bb"]),
        ("2", []),
    ],
)
def test_slices_are_named_in_cuda_visible_devices(visible: str, devices: list[str]) -> None:
    host = Snapshot(driver=Driver.OK, gpus=(*slices(0), reading(1, board=1)))
    assert [gpu.device for gpu in hardware(host, visible).gpus] == devices


def test_an_unknown_card_is_planned_from_what_the_driver_says_of_it() -> None:
    """With the clocks of a GeForce RTX 4090: nine tenths of its datasheet."""
    card = reading(
        0,
        name="NVIDIA Future 1",
        capability=(8, 9),
        total_bytes=24 * GIB,
        bus_bits=384,
        memory_mhz=10_501,
        cores=16_384,
        sm_mhz=2_520,
    )
    (gpu,) = hardware(replace(HOST, gpus=(card,), nvlink=(), peers=())).gpus
    assert gpu.spec.bandwidth_bytes_s == pytest.approx(0.9 * 1008e9, rel=0.01)
    assert gpu.spec.flops_16bit == pytest.approx(0.9 * 165e12, rel=0.01)
    (note,) = hardware(replace(HOST, gpus=(card,), nvlink=(), peers=())).notes
    assert "slow side" in note


def test_memory_that_is_shared_is_said_to_be() -> None:
    board = reading(0, name="NVIDIA GB10", capability=(12, 1), total_bytes=119 * GIB, used_bytes=9 * GIB)
    found = hardware(replace(HOST, gpus=(board,), nvlink=(), peers=()))
    assert found.gpus[0].free_bytes == 110 * GIB
    assert any("shares the machine's memory" in note for note in found.notes)


def test_other_makers_accelerators_are_told_by_their_device_files(tmp_path: Path) -> None:
    assert other_accelerator(tmp_path, "linux") == ""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    assert other_accelerator(tmp_path, "linux") == "AMD"
    assert other_accelerator(tmp_path, "darwin", "arm64") == "Apple"
