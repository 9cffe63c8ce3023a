"""Data sets of Minari: HDF5 (`main_data.hdf5`) and Arrow (a folder an episode), read without Minari."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data.trajectory.foreign import Foreign, Found, is_frames
from selfsup.errors import UserError, need
from selfsup.source import Broken, natural_order

HDF5, METADATA = "main_data.hdf5", "metadata.json"
ROOT = "observation"  # name of the camera where an observation is one image
OPEN = 64  # files of Arrow that are kept open


def minari_folder(root: str) -> str | None:
    """Return the folder of the data below `root` (it, or its `data`) where that is a data set of Minari; else None."""
    for folder in (root, os.path.join(root, "data")):
        if os.path.isfile(os.path.join(folder, HDF5)):
            return folder
        if os.path.isfile(os.path.join(folder, METADATA)) and "observation_space" in _metadata(folder):
            return folder
    return None


def open_minari(root: str, folder: str) -> Foreign:
    """Return the episodes of a data set of Minari. Raises `UserError` where it cannot be read, or shows no images."""
    return Hdf5Episodes(root, folder) if os.path.isfile(os.path.join(folder, HDF5)) else ArrowEpisodes(root, folder)


class Hdf5Episodes(Foreign):
    """Episodes of `main_data.hdf5`; frames are read from it when they are asked for."""

    def __init__(self, name: str, folder: str) -> None:
        h5py, path = need("h5py", "control"), os.path.join(folder, HDF5)
        try:
            self.file = h5py.File(path, "r")
        except OSError:
            raise UserError(f"{path} cannot be read as HDF5") from None
        super().__init__(name, sorted(self.file, key=natural_order), self._found)

    def _found(self, path: str) -> Found:
        group = self.file[path]
        if "observations" not in group:
            raise Broken("without observations")
        seen: dict[str, tuple[int, int, int]] = {}
        states = []
        for name, values in _leaves(group["observations"], ""):
            if is_frames(values.shape, values.dtype):
                seen[name or ROOT] = values.shape[:3]
            elif values.dtype.kind == "f" and values.ndim <= 2:
                states.append(np.reshape(values[()], (len(values), -1)))
        given = [
            group[name][()] if hasattr(group.get(name), "shape") else None
            for name in ("actions", "rewards", "terminations")
        ]
        return Found(seen, [*given, np.concatenate(states, 1) if states else None])

    def seen(self, number: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W[, C]), or raise `Broken`."""
        place = f"{self.paths[number]}/observations" + (f"/{camera}" if camera != ROOT else "")
        unique, back = np.unique(numbers, return_inverse=True)  # h5py takes rising numbers alone
        try:
            values = self.file[place]
            found: NDArray[np.uint8] = values[unique][back]
        except (OSError, KeyError, ValueError, IndexError):
            raise Broken("damaged in its HDF5 file") from None
        return found


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the data sets below a group of HDF5, or the group itself where it is one."""
    if hasattr(node, "dtype"):
        yield name, node
        return
    for key in node:
        yield from _leaves(node[key], f"{name}/{key}" if name else key)


class ArrowEpisodes(Foreign):
    """Episodes of Arrow files, mapped into memory; each has a folder of its number."""

    def __init__(self, name: str, folder: str) -> None:
        self.folder = folder
        try:
            self.space = json.loads(_metadata(folder)["observation_space"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{folder}: its {METADATA} names no observation_space") from None
        super().__init__(name, sorted((one for one in os.listdir(folder) if one.isdigit()), key=int), self._found)

    def _found(self, path: str) -> Found:
        batch = _batch(os.path.join(self.folder, path))
        seen: dict[str, tuple[int, int, int]] = {}
        states = []
        for name, values in _columns(batch["observations"], self.space, ""):
            if is_frames(values.shape, values.dtype):
                seen[name or ROOT] = values.shape[:3]
            elif values.dtype.kind == "f":
                states.append(values.reshape(len(values), -1))
        given = [_array(batch[name])[:-1] for name in ("actions", "rewards", "terminations")]
        return Found(seen, [*given, np.concatenate(states, 1) if states else None])

    def seen(self, number: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W[, C]), or raise `Broken`."""
        batch = _batch(os.path.join(self.folder, self.paths[number]))
        wanted = "" if camera == ROOT else camera
        for name, values in _columns(batch["observations"], self.space, ""):
            if name == wanted:
                found: NDArray[np.uint8] = values[numbers]
                return found
        raise Broken(f"without {camera}")


@lru_cache(OPEN)
def _batch(folder: str) -> Any:
    """Return the one batch of an episode. Raises `Broken`."""
    try:
        name = next(one for one in sorted(os.listdir(folder)) if one.endswith(".arrow"))
        return pa.ipc.open_file(pa.memory_map(os.path.join(folder, name))).read_all().combine_chunks().to_batches()[0]
    except (OSError, StopIteration, IndexError, pa.ArrowException):
        raise Broken("no readable Arrow file") from None


def _columns(values: pa.Array, space: Any, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of numbers of a column, in the shapes that their space gives them."""
    if pa.types.is_struct(values.type):
        inner = space.get("subspaces", {})
        for place in range(values.type.num_fields):
            key = values.type.field(place).name
            below = inner.get(key, {}) if isinstance(inner, dict) else {}
            yield from _columns(values.field(place), below, f"{name}/{key}" if name else key)
    elif pa.types.is_fixed_size_list(values.type):
        shape = space.get("shape") or [values.type.list_size]
        found = _array(values)
        if found.size == len(found) * np.prod(shape):
            yield name, found.reshape(len(found), *shape)


def _array(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(values.type):
        return np.asarray(values.flatten().to_numpy(zero_copy_only=False)).reshape(len(values), -1)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _metadata(folder: str) -> dict[str, Any]:
    try:
        with open(os.path.join(folder, METADATA), "rb") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}
