"""Cut Debian's fonts down to the characters of the synthetic world.

    python -m training.make_fonts --shipped     the fonts that the package carries (…/demo/fonts)
    python -m training.make_fonts --all FOLDER  every font that training draws with

Needs fonttools and the Debian packages fonts-noto-cjk, fonts-wqy-microhei and fonts-wqy-zenhei.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

from autoglm_serve.demo import words

SHARE = Path("/usr/share/fonts")
SHIPPED_FOLDER = Path(__file__).parents[1] / "src/autoglm_serve/demo/fonts"
NOTO_SC = 2
"""The place of Simplified Chinese in Debian's Noto CJK collections."""
SOURCES: dict[str, tuple[str, int]] = {
    "noto-sans-sc-regular": ("opentype/noto/NotoSansCJK-Regular.ttc", NOTO_SC),
    "noto-sans-sc-bold": ("opentype/noto/NotoSansCJK-Bold.ttc", NOTO_SC),
    "wqy-microhei": ("truetype/wqy/wqy-microhei.ttc", 0),
    "wqy-zenhei": ("truetype/wqy/wqy-zenhei.ttc", 0),
    "noto-serif-sc-regular": ("opentype/noto/NotoSerifCJK-Regular.ttc", NOTO_SC),
}
SHIPPED = ("noto-sans-sc-regular", "noto-sans-sc-bold", "wqy-microhei")


def characters() -> str:
    """Every character that can be drawn, and printable ASCII."""
    drawn = (*words.ALL, *words.TYPED, *words.COLOURS, *words.DIALOG_LINES)
    ascii_printable = "".join(map(chr, range(32, 127)))
    return ascii_printable + "".join(word.zh + word.en for word in drawn) + "，。？！：“”"


def cut(name: str, folder: Path) -> Path:
    source, number = SOURCES[name]
    options = subset.Options(
        layout_features=[], hinting=False, name_IDs=[0, 1, 2, 13, 14], notdef_outline=True
    )
    font = TTFont(SHARE / source, fontNumber=number)
    cutter = subset.Subsetter(options)
    cutter.populate(text=characters())
    cutter.subset(font)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{'otf' if font.sfntVersion == 'OTTO' else 'ttf'}"
    font.save(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.shipped:
        for name in SHIPPED:
            print(cut(name, SHIPPED_FOLDER))
    if options.all:
        for name in SOURCES:
            print(cut(name, options.all))


if __name__ == "__main__":
    main()
