"""The store of recordings whose spans are slow to decode: each is decoded once, into a file of the cache.

A file is a head (JSON in 512 bytes) and rows of 4,096 samples, one channel at one rate: 16 bits each, with a scale of
the row, so that nothing is clipped and the error is 1/65,534 of the loudest sample of the row; and a checksum. It is
written aside and renamed: what is there is whole.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.base.cache import derived_path, new_in_cache
from selfsup.data.audio.decode import stream
from selfsup.source import Broken

VERSION = 1
HEAD, LONG = 512, 4096
ROW = np.dtype([("scale", "<f4"), ("check", "<u4"), ("samples", "<i2", LONG)])


class Extent(NamedTuple):
    """How many samples of a recording there are: in the store, and in its file at its own rate."""

    stored: int
    own: int


def stored_path(sound: bytes, rate: int) -> Path:
    """Return where the samples of a sound file are kept; another file of the same name has another place."""
    return derived_path("audio", sound, [VERSION, rate], ".samples")


def store(sound: bytes, path: Path, rate: int) -> None:
    """Decode a sound file into its file of the store, block by block: memory does not grow with its length.

    What cannot be decoded becomes a file without samples that names the reason, so that it is tried once.
    Raises `RunFailed` where the cache cannot be written.
    """
    with new_in_cache(path) as aside, aside.open("wb") as file:
        file.write(bytes(HEAD))
        count, own, told, rest = 0, 0, {}, np.zeros(0, np.float32)
        try:
            for samples, decoded in stream(sound, rate):
                count, own = count + len(samples), decoded
                rest = np.concatenate([rest, samples])
                whole = len(rest) // LONG * LONG
                file.write(_rows(rest[:whole]))
                rest = rest[whole:]
        except Broken as error:
            told = {} if count else {"broken": str(error)}
        file.write(_rows(np.pad(rest, (0, -len(rest) % LONG))))
        file.seek(0)
        file.write(json.dumps({"stored": count, "own": own} | told).encode().ljust(HEAD))


def _rows(samples: NDArray[np.float32]) -> bytes:
    blocks = samples.reshape(-1, LONG)
    rows = np.zeros(len(blocks), ROW)
    rows["scale"] = np.abs(blocks).max(1, initial=0) / 32767
    rows["samples"] = np.rint(blocks / np.where(rows["scale"] > 0, rows["scale"], 1)[:, None])
    rows["check"] = [zlib.crc32(row) for row in rows["samples"]]
    return rows.tobytes()


def stored_extent(path: Path) -> Extent:
    """Return how many samples a file of the store has; raise `Broken` for one without, and for a damaged file."""
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(HEAD))
            found = Extent(told["stored"], told["own"])
    except (OSError, KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    if "broken" in told:
        raise Broken(told["broken"])
    if path.stat().st_size != HEAD + -(-found.stored // LONG) * ROW.itemsize:
        raise _damaged(path)
    return found


def read_stored(path: Path, start: int, stop: int) -> NDArray[np.float32]:
    """Return samples (N,) of a file of the store, or raise `Broken` for a damaged one."""
    first, last = start // LONG, -(-stop // LONG)
    try:
        with path.open("rb") as file:
            file.seek(HEAD + first * ROW.itemsize)
            rows = np.frombuffer(file.read((last - first) * ROW.itemsize), ROW)
    except (OSError, ValueError):
        raise _damaged(path) from None
    if len(rows) != last - first or any(zlib.crc32(row["samples"]) != row["check"] for row in rows):
        raise _damaged(path)
    return (rows["samples"] * rows["scale"][:, None]).reshape(-1)[start - first * LONG : stop - first * LONG]


def _damaged(path: Path) -> Broken:
    with contextlib.suppress(OSError):
        path.unlink()  # made again by the next start
    return Broken("its samples in the cache are damaged: start again")
