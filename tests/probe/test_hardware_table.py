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
