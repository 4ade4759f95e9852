"""A report that opens in any browser: the figures as a table, and curves where there are several runs. Pure.

One file without scripts or outside assets. Names come from people and servers, so all text is escaped.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from autoglm_serve.bench.figures import Figures, Quantiles

_WIDTH, _HEIGHT, _EDGE = 460, 240, 44
_COLOURS = ("#0b6bcb", "#c8511b", "#2b8a3e")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run of a report."""

    label: str
    x: float
    """Where it stands in the curves: its sessions, or its number."""
    figures: Figures


Curve = tuple[str, Callable[[Figures], float | None]]


def page(title: str, told: str, rows: Sequence[Row]) -> str:
    """The report as HTML; `told` says what was asked and of whom."""
    plots = "".join(_plot(name, rows, curves) for name, curves in _PLOTS) if len(rows) > 1 else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(told)}</p>{_table(rows)}<div class=plots>{plots}</div></html>"
    )


def cells(figures: Figures) -> tuple[str, ...]:
    """One run as a line of a table, under `HEAD`."""
    return (
        f"{figures.steps_per_s:.2f}",
        f"{figures.good_steps_per_s:.2f}",
        f"{figures.output_tokens_per_s:.0f}",
        _three(figures.step),
        _three(figures.ttft),
        _three(figures.tpot, 1000.0),
        f"{figures.prompt_tokens_mean:.0f}/{figures.output_tokens_mean:.0f}",
        f"{figures.cached_share:.0%}",
        f"{figures.errors} of {figures.requests}",
    )


HEAD = (
    "steps/s",
    "good",
    "tokens/s",
    "step s p50/p90/p99",
    "TTFT s p50/p90/p99",
    "TPOT ms p50/p90/p99",
    "tokens in/out",
    "cached",
    "errors",
)


def _of(which: Callable[[Figures], Quantiles | None], at: str) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        found = which(figures)
        return None if found is None else float(getattr(found, at))

    return value


def _curves(which: Callable[[Figures], Quantiles | None]) -> tuple[Curve, ...]:
    return (("p50", _of(which, "p50_s")), ("p99", _of(which, "p99_s")))


_PLOTS: tuple[tuple[str, tuple[Curve, ...]], ...] = (
    ("steps per second", (("all", lambda f: f.steps_per_s), ("good", lambda f: f.good_steps_per_s))),
    ("time to the first token, seconds", _curves(lambda f: f.ttft)),
    ("whole step, seconds", _curves(lambda f: f.step)),
)
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}.plots{display:flex;flex-wrap:wrap;gap:1rem}"
    "svg text{font:11px system-ui,sans-serif;fill:#444}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}svg text{fill:#bbb}}"
)


def _three(values: Quantiles | None, scale: float = 1.0) -> str:
    if values is None:
        return "-"
    digits = 1 if scale > 1 else 2
    return "/".join(f"{value * scale:.{digits}f}" for value in (values.p50_s, values.p90_s, values.p99_s))


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(name)}" for name in ("run", *HEAD))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in (row.label, *cells(row.figures))) for row in rows
    )
    return f"<table><tr>{head}{body}</table>"


def _plot(name: str, rows: Sequence[Row], curves: Iterable[Curve]) -> str:
    series = [
        (label, [(row.x, value) for row in rows if (value := of(row.figures)) is not None])
        for label, of in curves
    ]
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    most_x = max(x for x, _ in points) or 1.0
    most_y = max(y for _, y in points) or 1.0
    lines = "".join(
        _line(label, line, most_x, most_y, colour, place)
        for place, ((label, line), colour) in enumerate(zip(series, _COLOURS, strict=False))
    )
    axes = (
        f"<text x={_EDGE} y=14>{escape(name)}</text><text x=2 y=34>{most_y:.3g}</text>"
        f"<text x={_WIDTH - 40} y={_HEIGHT - 6}>{most_x:g}</text><text x={_EDGE} y={_HEIGHT - 6}>0</text>"
        f'<path d="M{_EDGE} 28V{_HEIGHT - 20}H{_WIDTH - 10}" fill=none stroke=#888 />'
    )
    return f'<svg width={_WIDTH} height={_HEIGHT} role=img aria-label="{escape(name)}">{axes}{lines}</svg>'


def _line(
    label: str, line: Sequence[tuple[float, float]], most_x: float, most_y: float, colour: str, place: int
) -> str:
    across, up = _WIDTH - _EDGE - 20, _HEIGHT - 52
    at = [(_EDGE + across * x / most_x, _HEIGHT - 20 - up * y / most_y) for x, y in line]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = "".join(f"<circle cx={x:.1f} cy={y:.1f} r=3 fill={colour} />" for x, y in at)
    name = f"<text x={_WIDTH - 60} y={28 + 14 * place} style=fill:{colour}>{escape(label)}</text>"
    return f'<polyline points="{path}" fill=none stroke={colour} stroke-width=2 />{dots}{name}'
