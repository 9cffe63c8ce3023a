"""`selfsup show --preset`: a contact sheet of the views of a preset of a user's images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup.data.image import image_spec
from selfsup.data.image.values import to_uint8
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.views.image.crop import preset
from selfsup.views.image.views import ImageViews

_GAP = 4  # white pixels between two views


def contact_sheet(
    name: str,
    source: Source,
    path: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    rows: int = 6,
    seed: int = 0,
) -> Image.Image:
    """Write an image with one row a sample: the sample itself, then every view of preset `name`.

    `options`: of the source's `spec`, such as the size in pixels. The samples are spread over the source.
    Raises `UserError` for an unknown preset or family of views, `Broken` where nothing can be read.
    """
    spec = image_spec(source, **(options or {}))
    views = ImageViews(spec, preset(name, spec.size))
    chosen = np.unique(np.linspace(0, len(source) - 1, min(rows, len(source))).astype(np.int64))
    batch = views.fetch(source, chosen, seed, 0).batch
    drawn = [_original(source, int(index), spec) for index in batch["index"]]
    drawn_rows: list[NDArray[np.uint8]] = []
    for row, first in enumerate(drawn):
        tiles = [first]
        for key in views.groups:
            x = batch[key][row]
            tiles += [_tile(view) for view in (x if x.ndim == 4 else x[None])]
        drawn_rows.append(np.concatenate([_framed(tile, spec.size) for tile in tiles], 1))
    sheet = Image.fromarray(np.concatenate(drawn_rows))
    sheet.save(path)
    return sheet


def _original(source: Source, index: int, spec: ImageSpec) -> NDArray[np.uint8]:
    pixels = to_uint8(source.conform(spec).read(index))
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]).convert("RGB")
    image.thumbnail((spec.size, spec.size))
    tile = np.full((spec.size, spec.size, 3), 255, np.uint8)
    tile[: image.height, : image.width] = np.asarray(image)
    return tile


def _tile(view: Tensor) -> NDArray[np.uint8]:
    """Return (H, W, 3) of a uint8 view (C, H, W): the first three channels, or the first one as gray."""
    pixels: NDArray[np.uint8] = torch.as_tensor(view).permute(1, 2, 0).numpy()
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, -1)


def _framed(tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    framed = np.full((size + _GAP, tile.shape[1] + _GAP, 3), 255, np.uint8)
    framed[: tile.shape[0], : tile.shape[1]] = tile
    return framed
