"""Data sets of LeRobot, version 3: tables of rows and episodes, and videos of many episodes each."""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.base.threads import side_by_side
from selfsup.data.index import find_files
from selfsup.data.trajectory.episodes import LARGEST
from selfsup.data.trajectory.foreign import Foreign, Found
from selfsup.data.video.store import open_frames, store, stored_path
from selfsup.errors import UserError
from selfsup.source import Broken
from selfsup.spec import Spec, TrajectorySpec

INFO = os.path.join("meta", "info.json")


class LeRobot(Foreign):
    """Episodes of a folder with `meta/info.json`: its videos are decoded once, into the frame store of videos.

    The task of an episode is its label, `next.reward` and `next.done` are rewards and terminations where there are
    some. Raises `UserError` for another version, and where it has no videos.
    """

    def __init__(self, root: str) -> None:
        self.root, self.side = root, LARGEST
        self._made: Self | None = None  # the same in the size of the last spec
        try:
            with open(os.path.join(root, INFO), "rb") as file:
                info = json.load(file)
            version, fps, features = str(info["codebase_version"]), float(info["fps"]), dict(info["features"])
            self.video_path = info.get("video_path")
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{root}: its {INFO} cannot be read") from None
        if not version.startswith("v3"):
            raise UserError(f"{root} is a LeRobot data set of version {version}; version 3 is read: convert it first")
        self.sizes = {key: _size(one) for key, one in features.items() if one.get("dtype") == "video"}
        if not self.sizes or not self.video_path:
            raise UserError(f"{root} has no videos, from which observations are read (features of dtype video)")
        table = _table(root, os.path.join("meta", "episodes"))
        data = _table(root, "data", [*(name for name in ("action", "observation.state", "next.reward", "next.done")
                                       if name in features), "index"])  # fmt: skip
        try:
            data = data.take(pa.array(np.argsort(data["index"].to_numpy(), kind="stable")))
            self.table = {name: table[name].to_pylist() for name in table.column_names if not name.startswith("stats")}
            self.columns = {name: _numbers(data[name]) for name in data.column_names}
            count = len(self.table["episode_index"])
            names = features.get("observation.state", {}).get("names")
            super().__init__(root, map(str, range(count)), self._found, fps, _names(names))
        except (KeyError, pa.ArrowException) as error:
            raise UserError(f"{root}: its tables lack {error}") from None

    def _found(self, path: str) -> Found:
        row = int(path)
        first, last = self.table["dataset_from_index"][row], self.table["dataset_to_index"][row]
        if not 0 <= first < last <= len(self.columns["index"]):
            raise Broken("whose rows are missing")
        rows = {name: values[first:last] for name, values in self.columns.items()}
        tasks = self.table.get("tasks", [None] * (row + 1))[row]
        label = tasks[0] if isinstance(tasks, list) and tasks else None
        seen = {key: (last - first, *size) for key, size in self.sizes.items()}
        given = [rows.get(key) for key in ("action", "next.reward", "next.done", "observation.state")]
        return Found(seen, given, label)

    def some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy with some of the episodes."""
        same = super().some(indices)
        same._made = None
        return same

    def _video(self, number: int, camera: str) -> tuple[bytes, int]:
        """Return the file of an episode's video, and the number of its first frame there."""
        row = int(self.paths[number])
        try:
            chunk, file, start = (
                self.table[f"videos/{camera}/{what}"][row] for what in ("chunk_index", "file_index", "from_timestamp")
            )
            name = self.video_path.format(video_key=camera, chunk_index=chunk, file_index=file)
        except (KeyError, IndexError, ValueError):
            raise Broken(f"without a video of {camera}") from None
        return os.fsencode(os.path.join(self.root, name)), round(start * self.fps)

    def seen(self, number: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3), or raise `Broken`."""
        video, first = self._video(number, camera)
        path = stored_path(video, self.fps, self.side, False)
        if not path.exists():
            store(video, path, self.fps, self.side, False)
        frames = open_frames(path)
        if first + int(numbers.max()) >= frames.length:
            raise Broken("its video lacks frames")
        return frames.read(first + numbers)

    def conform(self, spec: Spec) -> Self:
        """Return the same in the size of a spec; every video is decoded once. How many lack frames is said."""
        same = copy.copy(super().conform(spec))
        assert isinstance(spec, TrajectorySpec)
        made = self._made
        if made is not None and (made.side, made.cameras, made.labels) == (spec.size, same.cameras, self.labels):
            return made
        same.side, self._made = spec.size, same
        places = [(i, camera) for i in range(len(same)) for camera in same.cameras]
        files: dict[bytes, Path] = {}
        lacking = Counter[int]()
        for i, camera in places:
            try:
                video = same._video(int(same.numbers[i]), camera)[0]
            except Broken:
                lacking[i] += 1
            else:
                files[video] = stored_path(video, same.fps, same.side, False)
        missing = [video for video, path in files.items() if not path.exists()]
        if missing:
            side_by_side(
                f"decoding videos of {same.name}, once",
                lambda place: store(missing[place], files[missing[place]], same.fps, same.side, False),
                range(len(missing)),
            )
        for i, camera in places:
            try:
                video, first = same._video(int(same.numbers[i]), camera)
                lacking[i] += first + same.extent(i) > open_frames(files[video]).length
            except Broken:
                lacking[i] += 1
        if count := sum(some > 0 for some in lacking.values()):
            same.note(f"{count:,} of {len(same):,} episodes have videos that lack frames or cannot be read")
        return same


def _table(root: str, folder: str, columns: list[str] | None = None) -> pa.Table:
    """Return the tables below a folder, one after the other. Raises `UserError`."""
    below = os.path.join(root, folder)
    files = sorted(os.fsdecode(path) for path in find_files(below, [".parquet"]).to_pylist())
    if not files:
        raise UserError(f"no tables below {below!r}")
    try:
        return pa.concat_tables(
            [pq.read_table(os.path.join(below, file), columns=columns) for file in files], promote_options="default"
        )
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"tables below {below!r} cannot be read: {str(error).splitlines()[0]}") from None


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as an array, of lists with one row each."""
    values = column.combine_chunks()
    arrow_type = values.type
    if pa.types.is_list(arrow_type) or pa.types.is_fixed_size_list(arrow_type) or pa.types.is_large_list(arrow_type):
        flat = values.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(values), -1) if len(values) else flat.reshape(0, 0)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _size(feature: dict[str, Any]) -> tuple[int, int]:
    """Return height and width of a camera."""
    shape, names = feature.get("shape", [3, 0, 0]), [str(name)[:1] for name in feature.get("names") or "chw"]
    if len(shape) != 3 or sorted(names) != ["c", "h", "w"]:
        return int(shape[0]), int(shape[-2])
    return int(shape[names.index("h")]), int(shape[names.index("w")])


def _names(names: Any) -> tuple[str, ...] | None:
    """Return the names of the state's variables; None where they are not lists of names."""
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    return tuple(map(str, names)) if isinstance(names, list) else None
