"""Contact sheets of panels: rows of pictures with their captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from selfsup.data import ImageSpec
from selfsup.task import Panel

SIDE, MARGIN, CAPTION = 128, 8, 20  # pixels


def draw_panels(rows: Sequence[Sequence[Panel]], spec: ImageSpec) -> Image.Image:
    """Return one picture: each row of panels below the one before, captions under the pictures."""
    columns = max(len(row) for row in rows)
    wide, high = MARGIN + columns * (SIDE + MARGIN), MARGIN + len(rows) * (SIDE + CAPTION + MARGIN)
    sheet = Image.new("RGB", (wide, high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            left, top = MARGIN + c * (SIDE + MARGIN), MARGIN + r * (SIDE + CAPTION + MARGIN)
            sheet.paste(to_picture(panel.image, spec).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            pen.text((left + SIDE / 2, top + SIDE + CAPTION / 2), panel.caption, "black", font, anchor="mm")
    return sheet


def to_picture(x: Tensor, spec: ImageSpec) -> Image.Image:
    """Undo the normalisation of (C, H, W) float; more than three channels show their first three."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    pixels = ((x.detach().cpu().float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    colours = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    return Image.fromarray(colours.permute(1, 2, 0).contiguous().numpy())
