"""Contact sheets: rows of pictures with their captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from selfsup.data import ImageSpec
from selfsup.nn.scale import mean_std
from selfsup.task import Panel

SIDE, MARGIN, CAPTION = 128, 8, 20  # pixels


def draw_panels(rows: Sequence[Sequence[Panel]], spec: Any) -> Image.Image:
    """Return one picture: each row of panels below the one before, captions under the pictures."""
    panels = [panel for row in rows for panel in row]
    if any(isinstance(panel.image, str) for panel in panels):
        return _draw_texts(panels)
    return draw_sheet([[(to_picture(torch.as_tensor(p.image), spec), p.caption) for p in row] for row in rows])


def _draw_texts(panels: Sequence[Panel]) -> Image.Image:
    """Return one picture of texts, each above its caption in blue."""
    lines: list[tuple[str, str]] = []
    for panel in panels:
        lines += [(line, "black") for line in textwrap.wrap(str(panel.image), 110)[:12]]
        lines += [(line, "blue") for line in textwrap.wrap(panel.caption, 110)[:6]] + [("", "black")]
    sheet = Image.new("RGB", (110 * 8 + 2 * MARGIN, len(lines) * CAPTION + 2 * MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (line, colour) in enumerate(lines):
        pen.text((MARGIN, MARGIN + row * CAPTION), line, colour, font)
    return sheet


def draw_sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]]) -> Image.Image:
    """Return one picture of pictures, each fitted into a square, with its caption below (shortened where too long)."""
    columns = max(len(row) for row in rows)
    wide, high = MARGIN + columns * (SIDE + MARGIN), MARGIN + len(rows) * (SIDE + CAPTION + MARGIN)
    sheet = Image.new("RGB", (wide, high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for r, row in enumerate(rows):
        for c, (picture, caption) in enumerate(row):
            left, top = MARGIN + c * (SIDE + MARGIN), MARGIN + r * (SIDE + CAPTION + MARGIN)
            fitted = fit_square(picture, SIDE)
            sheet.paste(fitted, (left + (SIDE - fitted.width) // 2, top + (SIDE - fitted.height) // 2))
            while len(caption) > 2 and pen.textlength(caption, font) > SIDE:
                caption = caption[: len(caption) * 3 // 4] + "…"
            pen.text((left + SIDE / 2, top + SIDE + CAPTION / 2), caption, "black", font, anchor="mm")
    return sheet


def fit_square(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture scaled so that its longer side is `side` pixels; small pictures keep their pixels sharp."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def to_picture(x: Tensor, spec: ImageSpec) -> Image.Image:
    """Undo the normalisation of (C, H, W) float; more than three channels show their first three."""
    x = x.detach().cpu().float()
    mean, std = mean_std(spec, x)
    pixels = ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    colours = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    return Image.fromarray(colours.permute(1, 2, 0).contiguous().numpy())
