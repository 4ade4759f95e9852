"""Predicted against said, by kind: every public point, then medians and the worst.

python -m benchmarks.planner             the table
python -m benchmarks.planner --markdown  the same for docs/planner.md
"""

import argparse
from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.planner.points import Compared, answer, figures, outcome, read, speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", action="store_true")
    markdown = parser.parse_args().markdown
    memory = read("memory")
    compared = [each for point in memory for each in figures(point)]
    timed = [each for point in read("speed") for each in speeds(point)]
    alone = [answer(point) for point in read("answer")]
    show = _markdown if markdown else _plain
    show(
        ("point", "figure", "predicted", "said", "off"), [_row(each) for each in (*compared, *timed, *alone)]
    )
    print()
    show(("kind", "points", "median", "worst"), list(_summary(compared, timed, alone)))
    print()
    show(("point", "planned", "said"), [_outcome(point["id"], *outcome(point)) for point in memory])


def _row(each: Compared) -> tuple[str, ...]:
    digits = 0 if each.said > 1000 else 2
    return (
        each.id,
        each.figure,
        f"{each.predicted:,.{digits}f}",
        f"{each.said:,.{digits}f}",
        f"{each.off:+.1%}",
    )


def _summary(
    memory: Sequence[Compared], speed: Sequence[Compared], alone: Sequence[Compared]
) -> Iterable[tuple[str, ...]]:
    memory = [each for each in memory if not each.old]
    kinds = {
        "weights": [each for each in memory if each.figure == "weights"],
        "KV cache, one GPU": [each for each in memory if each.figure != "weights" and each.gpus == 1],
        "KV cache, several GPUs": [each for each in memory if each.figure != "weights" and each.gpus > 1],
        **{
            f"{figure}, {kind}": [
                each
                for each in speed
                if each.figure == figure and ("at once" in each.id) is (kind != "alone")
            ]
            for figure in ("TTFT ms", "TPOT ms", "tokens/s")
            for kind in ("alone", "under load")
        },
    }
    for name, words in (("int4", ("AWQ", "Int4")), ("int8", ("Int8",)), ("bf16", ("BF16",))):
        kinds[f"tokens/s of one answer, {name}"] = [
            each for each in alone if any(word in each.id for word in words)
        ]
    for kind, found in kinds.items():
        if found:
            offs = [abs(each.off) for each in found]
            yield kind, str(len(found)), f"{median(offs):.1%}", f"{max(offs):.1%}"


def _outcome(name: str, planned: bool, said: bool | None) -> tuple[str, ...]:
    words = {True: "runs", False: "no memory", None: "not said"}
    wrong = " WRONG" if said is not None and planned is not said else ""
    return name, words[planned], words[said] + wrong


def _plain(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    for row in (titles, *rows):
        first, *others = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        print(f"{first.strip():<{widths[0]}}  " + "  ".join(others))


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (titles, ["---"] * len(titles), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
