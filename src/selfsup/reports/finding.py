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
FRAMES = 600  # of a video that are looked at


def find_samples(data: str, paths: Sequence[str], side: int) -> list[Image.Image | str | None]:
    """Return the sample of each path of an embedding file: an image of at most `side` pixels a side, or the beginning
    of a text; None where there is none.

    `data` names the embedded data: a folder, a list file, an .npz file or a name. A path that leads out of the folder,
    or is not in the list file, has no sample, whatever the embedding file says. Raises `UserError` for other `data`.
    """
    if os.path.isdir(data):
        inside = [not os.path.isabs(path) and ".." not in path.split("/") and "\0" not in path for path in paths]
        files = _paged(data, paths)
        found = [read_sample(files, number, side) if inside[number] else None for number in range(len(paths))]
        if any(found):
            return found
    source: Any = open_data(data)
    if isinstance(source, Files):
        files = _paged(os.fsdecode(source.root), paths)
        known = pc.is_in(files.paths, value_set=source.paths).to_pylist()
        return [read_sample(files, number, side) if known[number] else None for number in range(len(paths))]
    places = {source.path(number): number for number in range(len(source))}
    return [read_sample(source, places[path], side) if path in places else None for path in paths]


def _paged(root: str, paths: Sequence[str]) -> Files:
    """Return files by their paths, of which some end in #2, #3, … for a page; a file may also be called so."""
    names, pages = [], []
    for path in paths:
        name, mark, page = path.rpartition("#")
        numbered = mark and page.isdecimal() and "\0" not in path and not os.path.lexists(os.path.join(root, path))
        names.append((name if numbered else path).encode(errors="surrogateescape"))
        pages.append(max(int(page), 1) - 1 if numbered else 0)
    files = Files(root, pa.array(names, pa.binary()))
    files.pages = np.array(pages, np.int64)
    return files


def read_sample(source: Source, number: int, side: int, letters: int = LETTERS) -> Image.Image | str | None:
    """Return an image of at most `side` pixels a side, or the beginning of a text; None for a broken sample.

    Of a video, four of its frames: within the first minutes, so that no long video is decoded for a thumbnail.
    """
    try:
        length = min(source.extent(number), FRAMES) if source.kind == "video" else 0
        sample: Any = source.read(number, slice(0, length, -(-length // 4)) if length else None)
        if isinstance(sample, str):
            return sample if len(sample) <= letters else sample[:letters] + " …"
        if sample.ndim == 4:  # four frames of a video, two by two
            four = sample[np.linspace(0, len(sample) - 1, 4).round().astype(np.int64)]
            sample = np.concatenate([np.concatenate(list(pair), 1) for pair in (four[:2], four[2:])], 0)
        colours = to_uint8(to_channels(sample[..., : 1 if sample.shape[-1] < 3 else 3], 3))
    except Broken:
        return None
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.thumbnail((side, side))
    return image
