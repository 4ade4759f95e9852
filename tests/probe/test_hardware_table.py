"""The table of GPUs: names that are read, names that are not, and cards that a driver reports."""

import pytest

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.hardware import GIB, GpuSource, Link
from autoglm_serve.probe.gpu_specs import SPECS
from autoglm_serve.probe.hardware_table import hardware, identify


def test_a_name_and_a_count() -> None:
    host = hardware("rtx4090:2")
    assert host.source is GpuSource.TABLE
    assert [gpu.spec.key for gpu in host.gpus] == ["rtx4090", "rtx4090"]
    assert host.link(0, 1) is Link.HOST  # the stock driver allows no peer access


def test_a_link_can_be_named() -> None:
    assert hardware("l40s:8@pcie").weakest_link((0, 7)) is Link.P2P
    assert hardware("rtx3090:2@nvlink").link(0, 1) is Link.NVLINK
    assert hardware("h200:2").link(0, 1) is Link.NVLINK


@pytest.mark.parametrize("text", ["RTX4090:2", "rtx 4090:2", "4090:2"])
def test_spelling_is_forgiven(text: str) -> None:
    assert hardware(text).gpus[0].spec.key == "rtx4090"


def test_kinds_can_be_mixed() -> None:
    assert [gpu.spec.key for gpu in hardware("h200:1,l40s:2").gpus] == ["h200", "l40s", "l40s"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rtx9999", "no GPU is known as 'rtx9999'"),
        ("rtx4090:0", "0 GPUs"),
        ("rtx4090:x", "cannot be read"),
        ("rtx4090:2@warp", "'warp' is no link"),
        ("", "cannot be read"),
    ],
)
def test_a_wrong_name_is_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        hardware(text)
    assert caught.value.next_step


def test_a_near_miss_is_guessed() -> None:
    with pytest.raises(ConfigError, match="did you mean rtx4090"):
        hardware("rtx4900")


def test_keys_are_unique() -> None:
    keys = [spec.key for spec in SPECS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("name", "capability", "gib", "key"),
    [
        ("NVIDIA H200", (9, 0), 140, "h200"),
        ("NVIDIA H100 80GB HBM3", (9, 0), 79, "h100"),
        ("NVIDIA GeForce RTX 4090", (8, 9), 24, "rtx4090"),
        ("NVIDIA A100-SXM4-40GB", (8, 0), 40, "a100-40"),
        ("NVIDIA A100 80GB PCIe", (8, 0), 80, "a100-pcie"),
        ("Tesla V100-SXM2-16GB", (7, 0), 16, "v100-16"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", (12, 0), 95, "rtxpro6000"),
    ],
)
def test_cards_are_known_by_the_driver_s_name(
    name: str, capability: tuple[int, int], gib: int, key: str
) -> None:
    spec, exact = identify(name, capability, gib * GIB)
    assert (spec.key, exact) == (key, True)


def test_an_unknown_card_takes_the_nearest_rates_of_its_generation() -> None:
    spec, exact = identify("NVIDIA Future 1", (8, 9), 44 * GIB)
    assert not exact
    assert spec.key == "unknown"
    assert spec.title == "NVIDIA Future 1"
    assert spec.flops_8bit_float is not None


# --- sizes, counts, slices, and what is no NVIDIA GPU ----------------------------------------------------


@pytest.mark.parametrize("text", ["2x4090", "4090x2", "rtx4090:2", "rtx4090*2", "2 x RTX 4090"])
def test_a_count_is_read_on_either_side(text: str) -> None:
    assert [gpu.spec.key for gpu in hardware(text).gpus] == ["rtx4090", "rtx4090"]


@pytest.mark.parametrize(
    ("text", "key", "gib"),
    [("rtx4090/48", "rtx4090-48", 47.4), ("a100/40", "a100-40", 39.4), ("h100/80", "h100", 79.1)],
)
def test_a_size_names_the_card_that_has_it(text: str, key: str, gib: float) -> None:
    (gpu,) = hardware(text).gpus
    assert gpu.spec.key == key
    assert gpu.total_bytes == pytest.approx(gib * GIB, rel=0.001)


def test_a_size_that_no_row_has_is_taken_at_its_word() -> None:
    (gpu,) = hardware("rtx3090/32").gpus
    assert gpu.total_bytes == pytest.approx(32 * 0.982 * GIB, rel=0.001)


@pytest.mark.parametrize("text", ["rtx4090/0", "rtx4090/x", "rtx4090/99999", "rtx4090:1000", "1000x4090"])
def test_sizes_and_counts_that_cannot_be_are_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hardware(text)
    assert caught.value.next_step


@pytest.mark.parametrize("name", ["mi300x", "rx7900xtx", "m3max", "ascend910b", "gaudi3"])
def test_other_makers_hardware_is_said_with_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError, match="is not planned for") as caught:
        hardware(name)
    assert "llama_cpp" in caught.value.next_step
    assert "external" in caught.value.next_step


@pytest.mark.parametrize(
    "text",
    ["h100/9g.40gb", "h100/0g.10gb", "h100/3g.99gb", "a100-40/7g.80gb", "rtx4090/1g.10gb", "a10g/2g.12gb"],
)
def test_a_slice_that_no_such_card_has_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no such slice"):
        hardware(text)


@pytest.mark.parametrize(
    "text", ["a100/1g.10gb", "a100-40/1g.5gb", "h200/7g.141gb", "b200/1g.23gb", "rtxpro6000/1g.24gb"]
)
def test_slices_that_there_are_can_be_named(text: str) -> None:
    assert hardware(text).gpus[0].mig


def test_a_slice_has_its_share() -> None:
    whole, (gpu,) = hardware("h100").gpus[0], hardware("h100/3g.40gb").gpus
    assert gpu.mig
    assert gpu.spec.flops_16bit == pytest.approx(whole.spec.flops_16bit * 3 / 7)
    assert gpu.spec.bandwidth_bytes_s == pytest.approx(whole.spec.bandwidth_bytes_s / 2, rel=0.02)


def test_memory_that_the_system_lives_in_is_not_all_free() -> None:
    (gpu,) = hardware("gb10").gpus
    assert gpu.total_bytes - gpu.free_bytes >= 4 * GIB


@pytest.mark.parametrize(
    ("name", "capability", "gib", "key"),
    [
        ("NVIDIA GeForce RTX 4090 Laptop GPU", (8, 9), 16, "rtx4090-laptop"),
        ("NVIDIA GeForce RTX 4090", (8, 9), 48, "rtx4090-48"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", (8, 9), 16, "rtx4070tisuper"),
        ("NVIDIA H100 NVL", (9, 0), 94, "h100-nvl"),
        ("NVIDIA L40", (8, 9), 45, "l40"),
        ("NVIDIA GB10", (12, 1), 120, "gb10"),
        ("Orin (nvgpu)", (8, 7), 61, "orin-64"),
        ("NVIDIA GH200 480GB", (9, 0), 95, "gh200"),
    ],
)
def test_relatives_are_told_apart(name: str, capability: tuple[int, int], gib: int, key: str) -> None:
    assert identify(name, capability, gib * GIB)[0].key == key
