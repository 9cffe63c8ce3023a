"""The samples behind the rows of an embedding file, if they can still be found."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from selfsup.data.audio.decode import about as about_sound
from selfsup.data.audio.sources import Sounds
from selfsup.data.image import Files
from selfsup.data.image.decode import to_channels
from selfsup.data.image.values import to_uint8
from selfsup.data.open import open_data
from selfsup.data.video import Videos
from selfsup.data.video.decode import about
from selfsup.reports.media import FRAMES, thinned
from selfsup.source import Broken, Source
from selfsup.spec import Clip, Waveform
from selfsup.spec.media import MOVING

LETTERS, LEAST_FPS = 200, 5.0  # of a text; of an episode
SECONDS, DECODED = 6.0, 600  # of a video or sound that are shown, and frames of it at most
Sample = Image.Image | Clip | Waveform | str


def find_samples(data: str, paths: Sequence[str], side: int, frames: int = FRAMES) -> list[Sample | None]:
    """Return the sample of each path of an embedding file as `read_sample` does; None where there is none.

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
    if isinstance(source, Files) and source.store is None:
        files = _paged(os.fsdecode(source.root), paths)
        known = pc.is_in(files.paths, value_set=source.paths).to_pylist()
        return [read_sample(files, number, side) if known[number] else None for number in range(len(paths))]
    places = {source.path(number): number for number in range(len(source))}
    if isinstance(source, Videos):
        return [_window(source, places, path, side, frames) for path in paths]
    return [read_sample(source, places[path], side, frames=frames) if path in places else None for path in paths]


def _window(videos: Videos, places: Mapping[str, int], path: str, side: int, frames: int) -> Sample | None:
    """Return a video of these places, or a window of one, whose path ends in #t= and its beginning in seconds."""
    name, mark, start = path.rpartition("#t=")
    if path in places or not mark or name not in places or not re.fullmatch(r"\d+(\.\d+)?", start):
        return read_sample(videos, places[path], side, frames=frames) if path in places else None
    video = videos.take(np.array([places[name]]))
    video.parts = np.array([[float(start), np.inf]])
    return read_sample(video, 0, side, frames=frames)


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


def read_sample(source: Source, number: int, side: int, letters: int = LETTERS, frames: int = FRAMES) -> Sample | None:
    """Return an image of at most `side` pixels a side, the beginning of a text, or at most `frames` frames of a video.

    None for a broken sample. Of a video or sound the first 6 seconds: nothing beyond them is decoded to show it.
    """
    try:
        if source.kind == "audio":
            return _sound(source, number)
        if source.kind in MOVING:
            return _clip(source, number, side, frames)
        sample: Any = source.read(number)
        if isinstance(sample, str):
            return sample if len(sample) <= letters else sample[:letters] + " …"
        colours = to_uint8(to_channels(sample[..., : 1 if sample.shape[-1] < 3 else 3], 3))
    except Broken:
        return None
    image = Image.fromarray(np.ascontiguousarray(colours))
    image.thumbnail((side, side))
    return image


def _clip(source: Any, number: int, side: int, frames: int) -> Clip:
    files = isinstance(source, Videos)
    fps = about(source.file(number)).fps if files else source.spec().fps
    fps = max(fps, LEAST_FPS) if source.kind == "trajectory" else fps  # which may have no clock
    most = max(1, min(source.extent(number) or DECODED, round(SECONDS * fps), DECODED))
    span = slice(0, most, -(-most // frames))
    found = source.read(number, span, side) if files else source.read(number, span)
    return thinned(Clip(found, fps / span.step), side, frames)


def _sound(source: Any, number: int) -> Waveform:
    own = isinstance(source, Sounds) and source.rate is None
    rate = about_sound(source.file(number)).rate if own else source.rate
    return Waveform(source.read(number, slice(0, round(SECONDS * rate))), rate)
