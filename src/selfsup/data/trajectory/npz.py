"""Folders of `.npz` files, one an episode."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from selfsup.data.index import find_files
from selfsup.data.npz import read_npz
from selfsup.data.trajectory.foreign import Foreign, Found, is_frames
from selfsup.errors import UserError
from selfsup.source import Broken

SUFFIX = ".npz"
KEPT = 8  # compressed episodes of one camera whose frames are kept in memory


class _Member(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int | None  # of its values in the file; None where these are compressed


class NpzEpisodes(Foreign):
    """Episodes of a folder of `.npz` files: `obs`, or `obs_NAME` for each camera, (n, H, W[, C]) uint8.

    `action` (n or n - 1[, d]), `reward`, `terminated`, `state` (n[, S]) and `label` are optional. Of files that are not
    compressed (`numpy.savez`) only the frames that are asked for are read.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        files = [os.fsdecode(path) for path in find_files(root, [SUFFIX]).to_pylist()]
        super().__init__(root, files, self._found)
        if any(_members(os.path.join(root, path))[_key(self.cameras[0])].start is None for path in self.paths[:1]):
            self.notes += (f"{root}: its files are compressed: a whole episode is read for each of its frames; "
                           "numpy.savez writes files that are read faster",)  # fmt: skip

    def _found(self, path: str) -> Found:
        whole = os.path.join(self.root, path)
        members, seen = _members(whole), dict[str, tuple[int, int, int]]()
        for name, member in members.items():
            if name == "obs" or name.startswith("obs_"):
                if not is_frames(member.shape, member.dtype):
                    raise Broken(f"whose {name} is {member.shape} {member.dtype}, not (n, H, W, C) uint8")
                seen[name.removeprefix("obs_") if name != "obs" else "camera"] = (
                    member.shape[0],
                    member.shape[1],
                    member.shape[2],
                )
        if not seen:
            raise Broken("without an array obs")
        try:
            given: list[Any] = [
                read_npz(whole, name) if name in members else None
                for name in ("action", "reward", "terminated", "state", "label")
            ]
        except UserError as error:
            raise Broken(str(error)) from None
        label = None if given[4] is None else str(np.ravel(given[4])[0])
        return Found(seen, given[:4], label)

    def seen(self, number: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W[, C]) of a file, or raise `Broken`."""
        path, key = os.path.join(self.root, self.paths[number]), _key(camera)
        try:
            return _frames(path, key)[numbers]
        except (OSError, KeyError, IndexError, ValueError, UserError):
            raise Broken("changed since it was opened, or cannot be read") from None


def _key(camera: str) -> str:
    return "obs" if camera == "camera" else f"obs_{camera}"


@lru_cache(KEPT)
def _frames(path: str, key: str) -> NDArray[np.uint8]:
    member = _members(path)[key]
    if member.start is not None:
        return np.memmap(path, np.uint8, "r", member.start, member.shape)
    found = read_npz(path, key)
    if found is None:
        raise Broken(f"without {key}")
    return found


def is_episode(path: str) -> bool:
    """Return whether a file holds an array of observations."""
    try:
        return any(name == "obs" or name.startswith("obs_") for name in _members(path))
    except Broken:
        return False


@lru_cache(1024)
def _members(path: str) -> dict[str, _Member]:
    """Return the arrays of a file, of which only the headers are read. Raises `Broken`."""
    found = {}
    try:
        with ZipFile(path) as archive, open(path, "rb") as raw:
            for info in archive.infolist():
                with archive.open(info) as file:
                    version = npy.read_magic(file)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, fortran, dtype = read(file)
                    length = file.tell()
                start = None
                if info.compress_type == ZIP_STORED and not fortran:
                    raw.seek(info.header_offset + 26)
                    name, extra = (int.from_bytes(raw.read(2), "little") for _ in range(2))
                    start = info.header_offset + 30 + name + extra + length
                found[info.filename.removesuffix(".npy")] = _Member(shape, dtype, start)
    except (OSError, ValueError, EOFError, BadZipFile, NotImplementedError, RuntimeError):
        raise Broken("no readable .npz file") from None
    return found
