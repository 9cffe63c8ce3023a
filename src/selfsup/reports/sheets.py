"""Contact sheets: rows of samples with their captions, as one image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from selfsup.errors import RunFailed
from selfsup.reports.fonts import font_for, shorten
from selfsup.reports.media import to_image, to_media, to_words
from selfsup.spec import Clip, Media, Spec
from selfsup.task import Panel

SIDE, MARGIN, CAPTION = 128, 8, 20  # pixels


def _draw(shown: Sequence[Sequence[tuple[Media, str]]]) -> Image.Image:
    """Return one image: each row below the one before, captions under the images; clips as contact strips."""
    if any(isinstance(media, str) for row in shown for media, _ in row):
        return _draw_texts([(to_words(media), caption) for row in shown for media, caption in row])
    width = SIDE * (3 if _clips(shown) else 1)
    return draw_sheet([[(_still(media), caption) for media, caption in row] for row in shown], width)


def save_sheet(shown: Sequence[tuple[Media | None, str]], path: Path, columns: int, missing: str = "") -> None:
    """Write samples, images, clips or texts, with their captions, so many a row, as `save_panels` does.

    None is a blank, or among texts `missing`.

    Raises `RunFailed` where the file cannot be written.
    """
    texts = any(isinstance(content, str) for content, _ in shown)
    blank = missing if texts else Image.new("RGB", (SIDE, SIDE), "lightgrey")
    cells = [(blank if content is None else content, caption) for content, caption in shown]
    try:
        _save([cells[at : at + columns] for at in range(0, len(cells), columns)], path)
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror}") from error


def save_panels(rows: Sequence[Sequence[Panel]], spec: Spec, path: Path) -> None:
    """Write rows of panels to a file, one below the other; clips are contact strips, or animated in a .webp."""
    _save([[(to_media(panel.content, spec), panel.caption) for panel in row] for row in rows], path)


def _save(shown: Sequence[Sequence[tuple[Media, str]]], path: Path) -> None:
    clips = _clips(shown)
    if not clips or path.suffix.lower() != ".webp":
        _draw(shown).save(path)
        return
    sheets = [
        draw_sheet([[(_at(media, place), caption) for media, caption in row] for row in shown])
        for place in range(max(len(clip.frames) for clip in clips))
    ]
    duration = round(1000 / clips[0].rate)
    sheets[0].save(path, save_all=True, append_images=sheets[1:], duration=duration, loop=0)


def _clips(shown: Sequence[Sequence[tuple[Media, str]]]) -> list[Clip]:
    return [media for row in shown for media, _ in row if isinstance(media, Clip)]


def _still(media: Media) -> Image.Image:
    image = to_image(media)
    assert image is not None
    return image


def _at(media: Media, place: int) -> Image.Image:
    if isinstance(media, Clip):
        return Image.fromarray(media.frames[place % len(media.frames)])
    return _still(media)


def _draw_texts(panels: Sequence[tuple[str, str]]) -> Image.Image:
    """Return one image of texts, each above its caption in blue."""
    lines: list[tuple[str, str]] = []
    for text, caption in panels:
        lines += [(line, "black") for line in textwrap.wrap(text, 110)[:12]]
        lines += [(line, "blue") for line in textwrap.wrap(caption, 110)[:6]] + [("", "black")]
    sheet = Image.new("RGB", (110 * 8 + 2 * MARGIN, len(lines) * CAPTION + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (line, colour) in enumerate(lines):
        pen.text((MARGIN, MARGIN + row * CAPTION), line, colour, font_for(line))
    return sheet


def draw_sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], width: int = SIDE) -> Image.Image:
    """Return one image of images, each fitted into `width` × `SIDE` pixels above its caption.

    The parts of a caption behind a semicolon have lines of their own; each line is shortened to fit.
    """
    columns = max(len(row) for row in rows)
    below = CAPTION * max(len(caption.split("; ")) for row in rows for _, caption in row)
    wide, high = MARGIN + columns * (width + MARGIN), MARGIN + len(rows) * (SIDE + below + MARGIN)
    sheet = Image.new("RGB", (wide, high), "white")
    pen = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for c, (image, caption) in enumerate(row):
            left, top = MARGIN + c * (width + MARGIN), MARGIN + r * (SIDE + below + MARGIN)
            fitted = _fit(image, width)
            sheet.paste(fitted, (left + (width - fitted.width) // 2, top + (SIDE - fitted.height) // 2))
            for place, line in enumerate(caption.split("; ")):
                middle, words = (left + width / 2, top + SIDE + CAPTION * (place + 0.5)), shorten(line, width)
                pen.text(middle, words, "black", font_for(words), anchor="mm")
    return sheet


def _fit(image: Image.Image, width: int) -> Image.Image:
    """Return the image scaled to fill `width` or `SIDE`; small images keep their pixels sharp."""
    scale = min(width / image.width, SIDE / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
