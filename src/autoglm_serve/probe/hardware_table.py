"""Names of GPUs and what they stand for: `--hardware rtx4090:2`, and the cards that a driver names.

Rows are in `probe.gpu_specs`; here is how a name is read, how a size or a slice changes a row, and what is
said of hardware that engines for NVIDIA's cards do not run on.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.hardware import GIB, Gpu, GpuSource, GpuSpec, Hardware, Link
from autoglm_serve.probe.gpu_specs import ALIASES, BY_KEY, SPECS, key_of

__all__ = ["ALIASES", "BY_KEY", "ELSEWHERE", "SPECS", "hardware", "identify", "mig_slice"]

NEXT_STEP = "run `autoglm plan --hardware list` for every name"
ELSEWHERE = (
    "run a GGUF of the model on the processor (--engine llama_cpp), or start an engine made for that "
    "hardware yourself and put this in front of it: --engine external --upstream http://HOST:PORT"
)
"""What there is to do without an NVIDIA GPU."""
_OTHERS = (
    (r"(radeon|rx[67-9]|mi[1-3]\d\d|w7\d00|amd|gfx\d)", "AMD"),
    (r"(m[1-9](pro|max|ultra)?$|apple|mac)", "Apple"),
    (r"(ascend|910|310p|npu)", "Ascend"),
    (r"(arc|gaudi|intel|b580|max1\d\d\d)", "Intel"),
    (r"(tpu|v5e|v5p|v6e)", "Google"),
)

LINK_WORDS = {"nvlink": Link.NVLINK, "pcie": Link.P2P, "p2p": Link.P2P, "host": Link.HOST, "nop2p": Link.HOST}

MAX_COUNT = 64
LARGEST_GIB = 1024
SAME_SIZE = 0.06
"""A stated size this near to a row's is that row."""
VISIBLE_SHARE = 0.982
"""Of a card's nominal memory, what CUDA programs see."""
SYSTEM_SHARE = 0.08
"""Of memory that GPU and processor share: what the system itself is taken to need, at least."""
SYSTEM_BYTES = 4 * GIB
WHOLE_SLICES = 7
"""Compute slices of a GPU that MIG can divide."""
DIVISIBLE = frozenset({(8, 0), (9, 0), (10, 0), (10, 3)})
"""Chips that MIG divides, by compute capability. Source: NVIDIA MIG user guide, supported GPUs."""
DIVISIBLE_CARDS = frozenset({"rtxpro6000", "rtxpro5000"})
"""Of a chip whose other cards it does not divide."""


def hardware(text: str) -> Hardware:
    """The hardware that `--hardware` names: NAME[/GB][:COUNT][@LINK][,…], e.g. rtx4090:2, l40s:8@pcie,
    rtx4090/48, 2x4090.

    Raises ConfigError for a name, size, count or link that is not there, with the nearest name that is.
    """
    gpus: list[Gpu] = []
    overrides: set[Link] = set()
    for item in (part.strip().lower() for part in text.split(",")):
        spec, count, link, sliced = _item(item, text)
        overrides |= {link} if link else set()
        if len(gpus) + count > MAX_COUNT:
            raise _too_many(text, len(gpus) + count)
        gpus += [_idle(len(gpus) + offset, spec, sliced=sliced) for offset in range(count)]
    override = overrides.pop() if len(overrides) == 1 else None
    return Hardware(gpus=tuple(gpus), links=tuple(_pairs(gpus, override)), source=GpuSource.TABLE)


@dataclass(frozen=True, slots=True)
class _Words:
    """One item of `--hardware`, taken apart."""

    name: str
    size: str
    count: str
    link: str


_COUNT_FIRST = re.compile(r"(\d{1,9})\s*[x*]\s*(?=\S)")
_COUNT_LAST = re.compile(r"\s*[x*]\s*(\d{1,9})$")
_COUNT_MARKED = re.compile(r"\s*:\s*(\d{1,9})$")


def _counted(text: str) -> tuple[str, str]:
    """(count, the rest): 2x4090, 4090x2 and rtx4090:2 are all two of them. Whether an x is of the count or of
    the name is told by whether the rest is a GPU."""
    marked = _COUNT_MARKED.search(text)
    if marked:
        return marked[1], text[: marked.start()]
    first = _COUNT_FIRST.match(text)
    if first and key_of(text[first.end() :].partition("/")[0]):
        return first[1], text[first.end() :]
    last = _COUNT_LAST.search(text)
    if last and key_of(text[: last.start()].partition("/")[0]):
        return last[1], text[: last.start()]
    return "1", text


def _words(item: str, whole: str) -> _Words:
    text, _, link = item.partition("@")
    count, text = _counted(text)
    name, slash, size = text.partition("/")
    if not re.fullmatch(r"[a-z0-9 _-]+", name) or (slash and not re.fullmatch(r"[a-z0-9.]+", size)):
        raise ConfigError(
            f"--hardware {whole[:200]} cannot be read.",
            why="a GPU is written NAME, NAME:COUNT or NAME:COUNT@LINK, such as rtx4090:2 or l40s:8@pcie; "
            "NAME/48 states its memory in GB",
            next_step=NEXT_STEP,
        )
    return _Words(name.strip(), size, count, link)


def _item(item: str, whole: str) -> tuple[GpuSpec, int, Link | None, bool]:
    words = _words(item, whole)
    if words.link and words.link not in LINK_WORDS:
        raise ConfigError(
            f"--hardware {whole[:200]}: {words.link!r} is no link.", next_step="use nvlink, pcie or host"
        )
    key = key_of(words.name) or re.sub(r"[ _]", "", words.name)
    number = int(words.count)
    if not 1 <= number <= MAX_COUNT:
        raise _too_many(whole, number)
    link = LINK_WORDS[words.link] if words.link else None
    slice_of = re.fullmatch(r"(\d)g\.(\d{1,3})gb", words.size)
    if slice_of:
        spec = _slice(_known(key, words.name, whole), int(slice_of[1]), int(slice_of[2]), whole)
        return spec, number, link, True
    return _sized(key, words, whole) if words.size else _known(key, words.name, whole), number, link, False


def _too_many(whole: str, number: int) -> ConfigError:
    return ConfigError(
        f"--hardware {whole[:200]}: {number} GPUs.",
        why=f"a plan is for the GPUs of one machine, {MAX_COUNT} at most",
        next_step=f"name 1 to {MAX_COUNT} of them; replicas on further machines are planned there",
    )


def _known(key: str, name: str, whole: str) -> GpuSpec:
    spec = BY_KEY.get(key)
    if spec is not None:
        return spec
    maker = next((maker for pattern, maker in _OTHERS if re.match(pattern, key)), None)
    if maker is not None:
        raise ConfigError(
            f"--hardware {whole[:200]}: {maker} hardware is not planned for.",
            why="the planner knows how vLLM and SGLang use NVIDIA GPUs, and no other build of them",
            next_step=ELSEWHERE,
        )
    near = difflib.get_close_matches(key, [*BY_KEY, *ALIASES], n=1)
    raise ConfigError(
        f"--hardware {whole[:200]}: no GPU is known as {name!r}.",
        why=f"did you mean {near[0]}?" if near else "",
        next_step=NEXT_STEP,
    )


def _sized(key: str, words: _Words, whole: str) -> GpuSpec:
    """NAME/48: the row of that size where there is one, else the row with its memory as stated."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", words.size) or not 1 <= float(words.size) <= LARGEST_GIB:
        raise ConfigError(
            f"--hardware {whole[:200]}: {words.size!r} is no size of a GPU's memory.",
            why=f"a size is a number of GB from 1 to {LARGEST_GIB}, such as rtx4090/48",
            next_step="state the card's memory, or leave the size out",
        )
    stated = float(words.size) * GIB
    base = _known(key, words.name, whole)
    row = BY_KEY.get(f"{base.key}-{words.size}")
    if row is not None:
        return row
    if abs(base.memory_bytes / stated - 1) <= SAME_SIZE:
        return base
    return replace(base, memory_bytes=int(stated * VISIBLE_SHARE))


def _slice(spec: GpuSpec, slices: int, size_gb: int, whole: str) -> GpuSpec:
    """Raises ConfigError for a slice that no such card has."""
    why = ""
    if spec.compute_capability not in DIVISIBLE and spec.key not in DIVISIBLE_CARDS:
        why = f"MIG does not divide a {spec.title}"
    elif (
        not 1 <= slices <= WHOLE_SLICES or not 1 <= size_gb * GIB * VISIBLE_SHARE <= spec.memory_bytes * 1.02
    ):
        why = f"a {spec.title} has {WHOLE_SLICES} slices and {spec.memory_bytes / GIB:.0f} GiB of memory"
    if why:
        raise ConfigError(
            f"--hardware {whole[:200]}: there is no such slice.",
            why=why,
            next_step="see `nvidia-smi mig -lgip`",
        )
    return mig_slice(spec, slices, int(size_gb * GIB * VISIBLE_SHARE))


def mig_slice(spec: GpuSpec, slices: int, memory_bytes: int) -> GpuSpec:
    """A MIG slice of so many of seven: its share of the arithmetic, and of the bandwidth as of the memory."""
    compute = min(1.0, slices / WHOLE_SLICES)
    memory = min(1.0, memory_bytes / spec.memory_bytes)
    eight = spec.flops_8bit_float
    return replace(
        spec,
        title=f"{spec.title} MIG {slices}g",
        memory_bytes=memory_bytes,
        bandwidth_bytes_s=spec.bandwidth_bytes_s * memory,
        flops_16bit=spec.flops_16bit * compute,
        flops_8bit_float=None if eight is None else eight * compute,
        link=Link.HOST,
        nvlink_bytes_s=0.0,
        nvlink_group=0,
        pcie_peer=False,
    )


def _idle(index: int, spec: GpuSpec, *, sliced: bool = False) -> Gpu:
    # An idle card still loses a little to the driver: 0.3 % and at least 0.15 GiB.
    kept = max(int(0.003 * spec.memory_bytes), int(0.15 * GIB))
    if spec.integrated:
        kept = max(int(SYSTEM_SHARE * spec.memory_bytes), min(SYSTEM_BYTES, spec.memory_bytes // 4))
    return Gpu(
        index=index,
        spec=spec,
        total_bytes=spec.memory_bytes,
        free_bytes=spec.memory_bytes - kept,
        name=spec.title,
        mig=sliced,
    )


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

    An unknown card takes the rates of the slowest card of its generation with about its memory: an estimate
    that errs on the slow side. What the driver itself says of it is worth more (`probe.gpus`).
    """
    words = _title_words(name)
    exact = [spec for spec in SPECS if _title_words(spec.title) <= words and _same_kind(spec, words)]
    if exact:
        best = min(
            exact, key=lambda spec: (-len(_title_words(spec.title)), abs(spec.memory_bytes - total_bytes))
        )
        return best, True
    shared = [spec for spec in SPECS if spec.integrated and words & _FAMILIES & _title_words(spec.title)]
    if shared:
        return min(shared, key=lambda spec: abs(spec.memory_bytes - total_bytes)), True
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


def _same_kind(spec: GpuSpec, words: frozenset[str]) -> bool:
    """A laptop's chip, a Ti or a SUPER is not the card whose name it carries."""
    return _APART & words <= _title_words(spec.title)


_FAMILIES = frozenset({"orin", "thor", "gb10"})
"""Boards whose driver names the chip and no more."""
_APART = frozenset({"laptop", "ti", "super", "d", "pcie", "nvl", "3e"})


def _title_words(title: str) -> frozenset[str]:
    text = title.lower().replace("geforce", " ").replace("nvidia", " ").replace("tesla", " ")
    return frozenset(word for word in re.split(r"[^a-z0-9]+", text) if word)
