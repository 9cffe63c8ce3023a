"""The samples behind the rows of an embedding file, if they can still be found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from selfsup.data.image import Files
from selfsup.data.image.decode import to_channels
from selfsup.data.image.values import to_uint8
from selfsup.data.open import open_data
from selfsup.source import Broken, Source

LETTERS = 200  # of a text


def find_samples(data: str, paths: Sequence[str], side: int) -> list[Image.Image | str | None]:
    """Return the sample of each path of an embedding file: an image of at most `side` pixels a side, or the beginning
    of a text; None where there is none.

    `data` names the embedded data: a folder, a list file, an .npz file or a name. A path that leads out of the folder,
    or is not in the list file, has no sample, whatever the embedding file says. Raises `UserError` for other `data`.
    """
    if os.path.isdir(data):
        inside = [not os.path.isabs(path) and ".." not in path.split("/") and "\0" not in path for path in paths]
        encoded = [path.encode(errors="surrogateescape") for path in paths]
        files = Files(data, pa.array(encoded, pa.binary()))
        found = [read_sample(files, number, side) if inside[number] else None for number in range(len(paths))]
        if any(found):
            return found
    source: Any = open_data(data)
    if isinstance(source, Files):
        wanted = pa.array([path.encode(errors="surrogateescape") for path in paths], pa.large_binary())
        numbers = pc.index_in(wanted, value_set=source.paths).to_pylist()
        return [None if number is None else read_sample(source, number, side) for number in numbers]
    places = {source.path(number): number for number in range(len(source))}
    return [read_sample(source, places[path], side) if path in places else None for path in paths]


def read_sample(source: Source, number: int, side: int, letters: int = LETTERS) -> Image.Image | str | None:
    """Return an image of at most `side` pixels a side, or the beginning of a text; None for a broken sample."""
    try:
        sample: Any = source.read(number)
        if isinstance(sample, str):
            return sample if len(sample) <= letters else sample[:letters] + " …"
        colours = to_uint8(to_channels(sample[..., : 1 if sample.shape[-1] < 3 else 3], 3))
    except Broken:
        return None
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.thumbnail((side, side))
    return image
