"""The frame store: each video is decoded once, into a file of the cache from which any frame can be read at once.

A file is Arrow's (IPC), mapped into memory: one row a frame, with its pixels (uint8, or a JPEG), their checksum, and
its motion, how much every second pixel differs from the frame before, the mean in grey levels. It is written aside and
renamed: what is there is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.cache import derived_path, new_in_cache
from selfsup.data.image.decode import decode_image
from selfsup.data.video.decode import decode
from selfsup.data.video.tracks import Tracks, find_tracks
from selfsup.source import Broken

VERSION = 2
ROWS = 32  # frames of a batch of Arrow
QUALITY = 95
SCHEMA = pa.schema([("pixels", pa.large_binary()), ("checksum", pa.uint32()), ("motion", pa.float32())])
OPEN = 256  # files that are kept open


def stored_path(video: bytes, fps: float, side: int, jpeg: bool) -> Path:
    """Return where the frames of a video are kept; another file of the same name has another place."""
    return derived_path("video", video, [VERSION, fps, side, jpeg], ".arrow")


def store(video: bytes, path: Path, fps: float, side: int, jpeg: bool) -> None:
    """Decode a video into its file, frame by frame: memory does not grow with its length.

    What cannot be decoded becomes a file of no frames that names the reason, so that it is tried once.
    Raises `RunFailed` where the cache cannot be written.
    """
    with new_in_cache(path) as aside:
        try:
            frames = decode(video, fps, side)
            first = next(frames)
            about = {"shape": list(first.shape), "jpeg": jpeg}
            with FrameWriter(aside, about) as writer:
                writer.add(first)
                for frame in frames:
                    writer.add(frame)
        except Broken as error:
            with FrameWriter(aside, {"broken": str(error)}):
                pass


class FrameWriter:
    """Writes frames in batches of `ROWS`. `about`: the `shape` (H, W, 3) of all, and whether they are `jpeg`s."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.about = about
        self.rows: list[tuple[bytes, int, float]] = []
        self.before: NDArray[np.int16] | None = None
        schema = SCHEMA.with_metadata({"selfsup": json.dumps(about)})
        self.file = pa.ipc.new_file(os.fspath(path), schema)
        self.schema = schema

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and self.rows:
            self._flush()
        self.file.close()

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Write the next frame (H, W, 3)."""
        some = frame[::2, ::2].astype(np.int16)
        grey = some[..., 0] + some[..., 1] + some[..., 2]
        motion = 0.0 if self.before is None else float(np.abs(grey - self.before).mean()) / 3
        self.before = grey
        pixels = _jpeg(frame) if self.about["jpeg"] else frame.tobytes()
        self.rows.append((pixels, zlib.crc32(pixels), motion))
        if len(self.rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*self.rows, strict=True), SCHEMA, strict=True)
        ]
        self.file.write_batch(pa.record_batch(columns, schema=self.schema))
        self.rows = []


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    import simplejpeg

    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), QUALITY, colorsubsampling="444")
    return encoded


class Damaged(Broken):
    """A file of frames that is not whole."""


class Frames:
    """The frames of such a file. Raises `Broken` for a video without frames, and `Damaged`."""

    def __init__(self, path: Path) -> None:
        try:
            file = pa.ipc.open_file(pa.memory_map(os.fspath(path)))
            about = json.loads(file.schema.metadata[b"selfsup"])
            self.batches = [file.get_batch(place) for place in range(file.num_record_batches)]  # mapped, not copied
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            raise Damaged("its frames are damaged") from None
        if "broken" in about:
            raise Broken(about["broken"])
        self.shape, self.jpeg = tuple(about["shape"]), about["jpeg"]
        self.length = sum(batch.num_rows for batch in self.batches)

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) by their numbers."""
        out = np.empty((len(numbers), *self.shape), np.uint8)
        for place, number in enumerate(numbers.tolist()):
            pixels, checksum, _ = self.batches[number // ROWS]
            row = number % ROWS
            stored = pixels[row].as_buffer()
            if zlib.crc32(stored) != checksum[row].as_py():
                raise Damaged("its frames are damaged")
            if self.jpeg:
                out[place] = decode_image(stored.to_pybytes(), 3)
            else:
                out[place] = np.frombuffer(stored, np.uint8).reshape(self.shape)
        return out

    def motion(self) -> NDArray[np.float32]:
        """Return the motion of each frame (N,); 0 for the first."""
        return np.concatenate([batch.column(2).to_numpy() for batch in self.batches])


@lru_cache(OPEN)
def open_frames(path: Path) -> Frames:
    """Return the frames of a file of the store; the last ones opened stay open."""
    try:
        return Frames(path)
    except Damaged:
        with contextlib.suppress(OSError):
            path.unlink()  # made again by the next start
        raise Broken("its frames in the cache are damaged: start again") from None


@lru_cache(OPEN)
def stored_tracks(path: Path, gap: int) -> Tracks:
    """Return the tracks of a video whose frames are at `path`; they are kept beside it."""
    try:
        with np.load(tracks_path(path, gap), allow_pickle=False) as file:
            return Tracks(file["frames"], file["boxes"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # not there, or damaged: found again
        return store_tracks(path, gap)


def tracks_path(path: Path, gap: int) -> Path:
    """Return where the tracks of a video are kept whose frames are at `path`."""
    return path.with_suffix(f".{gap}.npz")


def store_tracks(path: Path, gap: int) -> Tracks:
    """Find the tracks of a video whose frames are at `path`, and keep them beside it."""
    frames = open_frames(path)
    found = find_tracks(frames.read, frames.length, gap)
    with new_in_cache(tracks_path(path, gap)) as aside, aside.open("wb") as file:
        np.savez(file, frames=found.frames, boxes=found.boxes)
    return found
