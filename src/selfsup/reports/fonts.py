"""Fonts for the captions of images: one that has the letters of a text, of those on this computer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from PIL import ImageFont

from selfsup.base.notes import say

WIDE = ("NotoSansCJK", "NotoSans-", "DroidSansFallback", "unifont", "ArialUnicode", "wqy", "Nanum", "malgun")
_missed: set[str] = set()


def font_for(text: str, size: int = 14) -> Any:
    """Return a font for a text; letters that no font has appear as boxes, which is said once."""
    if text.isascii():
        return ImageFont.load_default(size)
    wanted = {ord(letter) for letter in text if letter.isprintable() and not letter.isspace()}
    best, most = "", -1
    for path in _fonts():
        known = len(wanted & _letters(path))
        if known > most:
            best, most = path, known
        if known == len(wanted):
            break
    lost = {chr(letter) for letter in wanted - _letters(best)} - _missed
    if lost:
        _missed.update(lost)
        say(
            f"no font on this computer has {' '.join(sorted(lost)[:12])}: captions show boxes instead; install a "
            "font with wide coverage, such as Noto Sans CJK"
        )
    return ImageFont.truetype(best, size)


@lru_cache(maxsize=1)
def _fonts() -> list[str]:
    """Return the files of fonts: DejaVu Sans, which comes with matplotlib, and then those with wide coverage first."""
    from matplotlib import font_manager, get_data_path

    own = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    found = sorted(font_manager.findSystemFonts(), key=lambda path: (not any(n in path for n in WIDE), path))
    return [own, *found]


@lru_cache(maxsize=256)
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):  # a font that FreeType cannot read
        return frozenset()


def shorten(text: str, width: float, size: int = 14) -> str:
    """Return a text that is at most `width` pixels wide: its middle is left out, since names differ at their ends."""
    font = font_for(text, size)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        head = kept // 3
        short = f"{text[:head]}…{text[head - kept :]}"
        if font_for(short, size).getlength(short) <= width:
            return short
    return "…"
