"""The GPUs this project knows, one row each: dense datasheet rates, and the memory that CUDA programs see.

Rates of 16-bit arithmetic are those with 32-bit accumulation, which engines use: half of the headline on
GeForce cards. A row's memory is what a card without a display shows; a live probe replaces it, never the
rates. Sources: the makers' datasheets and white papers; memory from logs of engines where there are any.
"""

from autoglm_serve.core.hardware import GIB, GpuSpec, Link

HALVED = 1.15
"""Cards whose 16-bit rate is halved by 32-bit accumulation come nearer to it: 335 of 468 TFLOP/s were seen in
the prefill of an RTX PRO 6000, where Hopper has 0.60."""
POWER_BOUND = 0.88
"""Ada cards rated in full for their power keep 0.53 of it up (AIConfigurator's tables for the L40S)."""


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
    sustained: float = 1.0,
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
        sustained=sustained,
    )


def _switched(
    key: str,
    title: str,
    capability: tuple[int, int],
    memory_gib: float,
    bandwidth_gb_s: float,
    tflops: tuple[float, float | None],
    nvlink_gb_s: float,
    pcie_gb_s: float = 64.0,
) -> GpuSpec:
    """A card whose NVLink joins all of a host's."""
    return _spec(
        key, title, capability, memory_gib, bandwidth_gb_s, *tflops,
        nvlink_gb_s=nvlink_gb_s, nvlink_group=8, pcie_gb_s=pcie_gb_s,
    )  # fmt: skip


def _bridged(
    key: str,
    title: str,
    capability: tuple[int, int],
    memory_gib: float,
    bandwidth_gb_s: float,
    tflops: tuple[float, float | None],
    nvlink_gb_s: float,
    *,
    pcie_gb_s: float = 32.0,
    pcie_peer: bool = True,
) -> GpuSpec:
    """A card that a bridge can join to one other."""
    return _spec(
        key, title, capability, memory_gib, bandwidth_gb_s, *tflops,
        nvlink_gb_s=nvlink_gb_s, nvlink_group=2, pcie_gb_s=pcie_gb_s, pcie_peer=pcie_peer,
        sustained=1.0 if pcie_peer else HALVED,
    )  # fmt: skip


def _consumer(
    key: str,
    title: str,
    capability: tuple[int, int],
    memory_gib: float,
    bandwidth_gb_s: float,
    tflops_16bit: float,
    tflops_fp8: float | None = None,
    *,
    pcie_gb_s: float = 32.0,
) -> GpuSpec:
    """The stock driver allows no peer access over PCIe."""
    return _spec(
        key, title, capability, memory_gib, bandwidth_gb_s, tflops_16bit, tflops_fp8,
        pcie_gb_s=pcie_gb_s, pcie_peer=False, sustained=HALVED,
    )  # fmt: skip


def _shared(
    key: str,
    title: str,
    capability: tuple[int, int],
    memory_gib: float,
    bandwidth_gb_s: float,
    tflops_16bit: float,
    tflops_fp8: float | None = None,
) -> GpuSpec:
    """Its memory is the machine's, and the system lives in it too."""
    return _spec(
        key, title, capability, memory_gib, bandwidth_gb_s, tflops_16bit, tflops_fp8, integrated=True
    )  # fmt: skip


_TURING, _AMPERE, _AMPERE_GEFORCE, _ADA, _HOPPER = (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)
_BLACKWELL, _BLACKWELL_ULTRA, _BLACKWELL_RTX = (10, 0), (10, 3), (12, 0)

_DATA_CENTRE = (
    _switched("v100", "Tesla V100-SXM2-32GB", (7, 0), 31.7, 900, (125, None), 150, 16),
    _switched("v100-16", "Tesla V100-SXM2-16GB", (7, 0), 15.8, 900, (125, None), 150, 16),
    _spec("v100-pcie", "Tesla V100-PCIE-16GB", (7, 0), 15.8, 900, 112, pcie_gb_s=16),
    _spec("v100-pcie-32", "Tesla V100-PCIE-32GB", (7, 0), 31.7, 900, 112, pcie_gb_s=16),
    _spec("t4", "Tesla T4", _TURING, 14.58, 300, 65, pcie_gb_s=16),
    _spec("a2", "A2", _AMPERE_GEFORCE, 14.8, 200, 18, pcie_gb_s=16),
    _spec("a10", "A10", _AMPERE_GEFORCE, 22.0, 600, 125),
    _spec("a10g", "A10G", _AMPERE_GEFORCE, 22.03, 600, 70),
    _spec("a16", "A16", _AMPERE_GEFORCE, 14.6, 200, 18),
    _bridged("a30", "A30", _AMPERE, 23.5, 933, (165, None), 100),
    _bridged("a40", "A40", _AMPERE_GEFORCE, 44.4, 696, (150, None), 56),
    _switched("a100-40", "A100-SXM4-40GB", _AMPERE, 39.4, 1555, (312, None), 300, 32),
    _bridged("a100-pcie-40", "A100-PCIE-40GB", _AMPERE, 39.4, 1555, (312, None), 300),
    _switched("a100", "A100-SXM4-80GB", _AMPERE, 79.1, 2039, (312, None), 300, 32),
    _bridged("a100-pcie", "A100 80GB PCIe", _AMPERE, 79.1, 1935, (312, None), 300),
    _switched("a800", "A800-SXM4-80GB", _AMPERE, 79.1, 2039, (312, None), 200, 32),
    _bridged("a800-pcie", "A800 80GB PCIe", _AMPERE, 79.1, 1935, (312, None), 200),
    _spec("l2", "L2", _ADA, 22.0, 300, 96.5, 193, sustained=POWER_BOUND),
    _spec("l4", "L4", _ADA, 22.0, 300, 121, 242, sustained=POWER_BOUND),
    _spec("l20", "L20", _ADA, 44.4, 864, 119.5, 239, sustained=POWER_BOUND),
    _spec("l40", "L40", _ADA, 44.4, 864, 181, 362, sustained=POWER_BOUND),
    _spec("l40s", "L40S", _ADA, 44.4, 864, 362, 733, sustained=POWER_BOUND),
    _switched("h20", "H20", _HOPPER, 95.0, 4000, (148, 296), 450),
    _switched("h20-141", "H20-3e", _HOPPER, 139.8, 4800, (148, 296), 450),
    _switched("h100", "H100 80GB HBM3", _HOPPER, 79.1, 3350, (989, 1979), 450),
    _bridged("h100-pcie", "H100 PCIe", _HOPPER, 79.1, 2000, (756, 1513), 300, pcie_gb_s=64),
    _bridged("h100-nvl", "H100 NVL", _HOPPER, 93.1, 3938, (835, 1671), 300, pcie_gb_s=64),
    _switched("h100-96", "H100 96GB HBM3", _HOPPER, 94.5, 3350, (989, 1979), 450),
    _switched("h800", "H800", _HOPPER, 79.1, 3350, (989, 1979), 200),
    _bridged("h800-pcie", "H800 PCIe", _HOPPER, 79.1, 2000, (756, 1513), 200, pcie_gb_s=64),
    _switched("h200", "H200", _HOPPER, 139.8, 4800, (989, 1979), 450),
    _bridged("h200-nvl", "H200 NVL", _HOPPER, 139.8, 4800, (835, 1671), 450, pcie_gb_s=64),
    _spec("gh200", "GH200 480GB", _HOPPER, 94.5, 4000, 989, 1979, pcie_gb_s=64),
    _spec("gh200-144", "GH200 144G HBM3e", _HOPPER, 140.0, 4900, 989, 1979, pcie_gb_s=64),
    _switched("b200", "B200", _BLACKWELL, 178.0, 7700, (2250, 4500), 900),
    _switched("gb200", "GB200", _BLACKWELL, 184.0, 8000, (2500, 5000), 900),
    _switched("b300", "B300", _BLACKWELL_ULTRA, 267.0, 8000, (2250, 4500), 900),
    _switched("gb300", "GB300", _BLACKWELL_ULTRA, 276.0, 8000, (2500, 5000), 900),
)

_WORKSTATION = (
    _spec("rtx4000turing", "Quadro RTX 4000", _TURING, 7.8, 416, 57, pcie_gb_s=16),
    _bridged("rtx6000turing", "Quadro RTX 6000", _TURING, 22.5, 672, (130, None), 50, pcie_gb_s=16),
    _bridged("rtx8000turing", "Quadro RTX 8000", _TURING, 44.5, 672, (130, None), 50, pcie_gb_s=16),
    _spec("rtxa2000", "RTX A2000 12GB", _AMPERE_GEFORCE, 11.6, 288, 32),
    _spec("rtxa4000", "RTX A4000", _AMPERE_GEFORCE, 15.7, 448, 76),
    _bridged("rtxa4500", "RTX A4500", _AMPERE_GEFORCE, 19.7, 640, (94, None), 56),
    _bridged("rtxa5000", "RTX A5000", _AMPERE_GEFORCE, 23.6, 768, (111, None), 56),
    _bridged("rtxa5500", "RTX A5500", _AMPERE_GEFORCE, 23.6, 768, (136, None), 56),
    _bridged("rtxa6000", "RTX A6000", _AMPERE_GEFORCE, 47.5, 768, (155, None), 56),
    _spec(
        "rtx2000ada", "RTX 2000 Ada Generation", _ADA, 15.6, 224, 48, 96, pcie_gb_s=16, sustained=POWER_BOUND
    ),
    _spec("rtx4000ada", "RTX 4000 Ada Generation", _ADA, 19.6, 360, 107, 214, sustained=POWER_BOUND),
    _spec("rtx4500ada", "RTX 4500 Ada Generation", _ADA, 23.6, 432, 158, 317, sustained=POWER_BOUND),
    _spec("rtx5000ada", "RTX 5000 Ada Generation", _ADA, 31.5, 576, 261, 522, sustained=POWER_BOUND),
    _spec("rtx6000ada", "RTX 6000 Ada Generation", _ADA, 47.4, 960, 364, 728, sustained=POWER_BOUND),
    _spec(
        "rtxpro4000",
        "RTX PRO 4000 Blackwell",
        _BLACKWELL_RTX,
        23.5,
        672,
        94,
        188,
        pcie_gb_s=64,
        sustained=HALVED,
    ),
    _spec(
        "rtxpro4500",
        "RTX PRO 4500 Blackwell",
        _BLACKWELL_RTX,
        31.4,
        896,
        110,
        220,
        pcie_gb_s=64,
        sustained=HALVED,
    ),
    _spec(
        "rtxpro5000",
        "RTX PRO 5000 Blackwell",
        _BLACKWELL_RTX,
        47.3,
        1344,
        290,
        580,
        pcie_gb_s=64,
        sustained=HALVED,
    ),
    _spec(
        "rtxpro6000",
        "RTX PRO 6000 Blackwell",
        _BLACKWELL_RTX,
        95.0,
        1792,
        468,
        936,
        pcie_gb_s=64,
        sustained=HALVED,
    ),
)

_GEFORCE = (
    _consumer("rtx2080ti", "GeForce RTX 2080 Ti", _TURING, 10.75, 616, 54, pcie_gb_s=16),
    _consumer("rtx2080ti-22", "GeForce RTX 2080 Ti", _TURING, 21.6, 616, 54, pcie_gb_s=16),
    _consumer("rtx2070", "GeForce RTX 2070", _TURING, 7.8, 448, 30, pcie_gb_s=16),
    _consumer("titanrtx", "TITAN RTX", _TURING, 23.6, 672, 65, pcie_gb_s=16),
    _consumer("rtx3060", "GeForce RTX 3060", _AMPERE_GEFORCE, 11.65, 360, 25.5),
    _consumer("rtx3060ti", "GeForce RTX 3060 Ti", _AMPERE_GEFORCE, 7.8, 448, 32.4),
    _consumer("rtx3070", "GeForce RTX 3070", _AMPERE_GEFORCE, 7.8, 448, 40.6),
    _consumer("rtx3070ti", "GeForce RTX 3070 Ti", _AMPERE_GEFORCE, 7.8, 608, 43.5),
    _consumer("rtx3080", "GeForce RTX 3080", _AMPERE_GEFORCE, 9.75, 760, 59.5),
    _consumer("rtx3080-12", "GeForce RTX 3080", _AMPERE_GEFORCE, 11.75, 912, 61),
    _consumer("rtx3080-20", "GeForce RTX 3080", _AMPERE_GEFORCE, 19.6, 760, 59.5),
    _consumer("rtx3080ti", "GeForce RTX 3080 Ti", _AMPERE_GEFORCE, 11.75, 912, 68),
    _bridged("rtx3090", "GeForce RTX 3090", _AMPERE_GEFORCE, 23.58, 936, (71, None), 56, pcie_peer=False),
    _bridged(
        "rtx3090ti", "GeForce RTX 3090 Ti", _AMPERE_GEFORCE, 23.58, 1008, (80, None), 56, pcie_peer=False
    ),
    _consumer("rtx4060", "GeForce RTX 4060", _ADA, 7.6, 272, 30, 60, pcie_gb_s=16),
    _consumer("rtx4060ti", "GeForce RTX 4060 Ti", _ADA, 7.6, 288, 44, 88, pcie_gb_s=16),
    _consumer("rtx4060ti-16", "GeForce RTX 4060 Ti", _ADA, 15.6, 288, 44, 88, pcie_gb_s=16),
    _consumer("rtx4070", "GeForce RTX 4070", _ADA, 11.6, 504, 58.3, 116.6),
    _consumer("rtx4070super", "GeForce RTX 4070 SUPER", _ADA, 11.6, 504, 71, 142),
    _consumer("rtx4070ti", "GeForce RTX 4070 Ti", _ADA, 11.6, 504, 80, 160),
    _consumer("rtx4070tisuper", "GeForce RTX 4070 Ti SUPER", _ADA, 15.6, 672, 88, 176),
    _consumer("rtx4080", "GeForce RTX 4080", _ADA, 15.6, 717, 97.5, 195),
    _consumer("rtx4080super", "GeForce RTX 4080 SUPER", _ADA, 15.6, 736, 104, 209),
    _consumer("rtx4090", "GeForce RTX 4090", _ADA, 23.53, 1008, 165.2, 330.3),
    _consumer("rtx4090-48", "GeForce RTX 4090", _ADA, 47.4, 1008, 165.2, 330.3),
    _consumer("rtx4090d", "GeForce RTX 4090 D", _ADA, 23.53, 1008, 147, 294),
    _consumer("rtx4090d-48", "GeForce RTX 4090 D", _ADA, 47.4, 1008, 147, 294),
    _consumer("rtx5060", "GeForce RTX 5060", _BLACKWELL_RTX, 7.5, 448, 38.4, 76.8),
    _consumer("rtx5060ti", "GeForce RTX 5060 Ti", _BLACKWELL_RTX, 7.5, 448, 47.4, 94.9),
    _consumer("rtx5060ti-16", "GeForce RTX 5060 Ti", _BLACKWELL_RTX, 15.5, 448, 47.4, 94.9),
    _consumer("rtx5070", "GeForce RTX 5070", _BLACKWELL_RTX, 11.5, 672, 61.7, 123.5, pcie_gb_s=64),
    _consumer("rtx5070ti", "GeForce RTX 5070 Ti", _BLACKWELL_RTX, 15.5, 896, 87.9, 175.8, pcie_gb_s=64),
    _consumer("rtx5080", "GeForce RTX 5080", _BLACKWELL_RTX, 15.5, 960, 112.6, 225.1, pcie_gb_s=64),
    _consumer("rtx5090", "GeForce RTX 5090", _BLACKWELL_RTX, 31.4, 1792, 209.5, 419, pcie_gb_s=64),
    _consumer("rtx5090d", "GeForce RTX 5090 D", _BLACKWELL_RTX, 31.4, 1792, 209.5, 419, pcie_gb_s=64),
)

_LAPTOP = (
    _consumer("rtx3060-laptop", "GeForce RTX 3060 Laptop GPU", _AMPERE_GEFORCE, 5.8, 336, 21),
    _consumer("rtx3070-laptop", "GeForce RTX 3070 Laptop GPU", _AMPERE_GEFORCE, 7.8, 448, 32),
    _consumer("rtx3080-laptop", "GeForce RTX 3080 Laptop GPU", _AMPERE_GEFORCE, 15.7, 448, 38),
    _consumer("rtx3080ti-laptop", "GeForce RTX 3080 Ti Laptop GPU", _AMPERE_GEFORCE, 15.7, 512, 42),
    _consumer("rtx4060-laptop", "GeForce RTX 4060 Laptop GPU", _ADA, 7.6, 256, 28, 56, pcie_gb_s=16),
    _consumer("rtx4070-laptop", "GeForce RTX 4070 Laptop GPU", _ADA, 7.6, 256, 38, 76, pcie_gb_s=16),
    _consumer("rtx4080-laptop", "GeForce RTX 4080 Laptop GPU", _ADA, 11.6, 432, 60, 120),
    _consumer("rtx4090-laptop", "GeForce RTX 4090 Laptop GPU", _ADA, 15.6, 576, 78, 156),
    _consumer("rtx5060-laptop", "GeForce RTX 5060 Laptop GPU", _BLACKWELL_RTX, 7.5, 448, 32, 64),
    _consumer("rtx5070-laptop", "GeForce RTX 5070 Laptop GPU", _BLACKWELL_RTX, 7.5, 448, 42, 84),
    _consumer("rtx5070ti-laptop", "GeForce RTX 5070 Ti Laptop GPU", _BLACKWELL_RTX, 11.5, 672, 56, 112),
    _consumer("rtx5080-laptop", "GeForce RTX 5080 Laptop GPU", _BLACKWELL_RTX, 15.5, 896, 76, 152),
    _consumer("rtx5090-laptop", "GeForce RTX 5090 Laptop GPU", _BLACKWELL_RTX, 23.5, 896, 95, 190),
)

_INTEGRATED = (
    _shared("gb10", "GB10", (12, 1), 119.6, 273, 62, 125),
    _shared("thor", "Thor", (11, 0), 122.8, 273, 250, 500),
    _shared("orin-64", "Jetson AGX Orin 64GB", (8, 7), 61.0, 204.8, 42),
    _shared("orin-32", "Jetson AGX Orin 32GB", (8, 7), 30.0, 204.8, 27),
    _shared("orin-nx-16", "Jetson Orin NX 16GB", (8, 7), 15.2, 102, 25),
    _shared("orin-nano", "Jetson Orin Nano 8GB", (8, 7), 7.4, 68, 10),
)

SPECS: tuple[GpuSpec, ...] = (*_DATA_CENTRE, *_WORKSTATION, *_GEFORCE, *_LAPTOP, *_INTEGRATED)
BY_KEY = {spec.key: spec for spec in SPECS}

_NICKNAMES = {
    "a100-80": "a100",
    "a100-sxm": "a100",
    "h100-sxm": "h100",
    "h100-80": "h100",
    "h20-96": "h20",
    "orin": "orin-64",
    "agxorin": "orin-64",
    "a6000": "rtxa6000",
    "a5000": "rtxa5000",
    "a4000": "rtxa4000",
    "6000ada": "rtx6000ada",
    "rtxpro6000blackwell": "rtxpro6000",
    "pro6000": "rtxpro6000",
    "rtx8000": "rtx8000turing",
    "quadrortx8000": "rtx8000turing",
    "spark": "gb10",
    "dgxspark": "gb10",
    "agxthor": "thor",
    "jetsonthor": "thor",
    "v100-32": "v100",
    "rtx3080-10": "rtx3080",
}
ALIASES = {
    **{spec.key.removeprefix("rtx"): spec.key for spec in (*_GEFORCE, *_LAPTOP) if spec.key != "titanrtx"},
    **_NICKNAMES,
}
"""4090 is rtx4090; what people say for the others."""


def key_of(name: str) -> str:
    """The key that a name means, however it is spelt; empty where none is meant."""
    return _SPELLINGS.get(_plain(name), "")


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")


_SPELLINGS = {**{_plain(key): key for key in BY_KEY}, **{_plain(word): key for word, key in ALIASES.items()}}
