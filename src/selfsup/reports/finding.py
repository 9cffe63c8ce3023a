"""The pictures behind the rows of an embedding file, where they can still be found."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

from selfsup.data import Broken, Files, Source, open_data
from selfsup.data.images import to_channels


def find_pictures(data: str, paths: Sequence[str], side: int) -> list[Image.Image | None]:
    """Return the picture of each path of an embedding file, at most `side` pixels a side; None where there is none.

    `data` is what was embedded: a folder, a list file, an .npz file or a name. Raises `UserError` where it is none.
    """
    if os.path.isdir(data):
        source: Source = Files(data, pa.array([os.fsencode(path) for path in paths], pa.binary()))
        return [_read(source, number, side) for number in range(len(paths))]
    source = open_data(data)
    if isinstance(source, Files):
        return find_pictures(os.fsdecode(source.root), paths, side)
    return [_read(source, int(path), side) if path.isdigit() and int(path) < len(source) else None for path in paths]


def _read(source: Source, number: int, side: int) -> Image.Image | None:
    try:
        pixels = source.read(number)
        colours = to_channels(pixels[..., :3] if pixels.shape[-1] > 3 else pixels, 3)
    except Broken:
        return None
    picture = Image.fromarray(np.ascontiguousarray(colours))
    picture.thumbnail((side, side))
    return picture
