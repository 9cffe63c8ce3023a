"""Our own recordings: a folder of immutable shards, each written aside and renamed.

    trajectories.json             version, cameras, action, states, fps, origin
    shard-00000/shard.json        which episodes (first, until), what was dropped, the digests of the other files
    shard-00000/episodes.parquet  a row an episode: number, length, truncated, label
    shard-00000/steps.parquet     a row an observation: action, reward, terminated, state
    shard-00000/camera-0.arrow    a row an observation: its frame, as `selfsup.data.video.store` keeps them

Episode k is a function of k alone: a recording that was killed keeps its whole shards and makes the others again, with
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.base.writing import only_here, write_atomically
from selfsup.data.trajectory.episodes import Steps, no_steps
from selfsup.data.video.store import FrameWriter
from selfsup.errors import RunFailed, UserError
from selfsup.source import Broken

VERSION = 1
ABOUT, SHARD = "trajectories.json", "shard.json"
PER_SHARD = 64


@dataclass(frozen=True)
class About:
    """What all episodes of a recording share; see `selfsup.data.trajectory.episodes.Episodes`.

    `origin`: where they come from, as plain values of JSON; a recording goes on only with the same.
    """

    cameras: tuple[str, ...]
    action: tuple[str, int] = ("none", 0)
    states: tuple[str, ...] = ()
    fps: float = 1.0
    origin: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "version": VERSION, "cameras": list(self.cameras), "action": list(self.action),
            "states": list(self.states), "fps": self.fps, "origin": dict(self.origin),
        }  # fmt: skip


class Episode(NamedTuple):
    """One episode of n observations, as it is written.

    `frames`: for each camera (n, H, W, 3) uint8. `action` (n, d) or (n,), `reward` (n,) and `terminated` (n,) may lack
    the last row; None: not known. `truncated`: whether it was cut off. `state` (n, S) or None. `label`: a class.
    """

    frames: Mapping[str, NDArray[np.uint8]]
    action: NDArray[Any] | None = None
    reward: NDArray[Any] | None = None
    terminated: NDArray[Any] | None = None
    truncated: bool = False
    state: NDArray[Any] | None = None
    label: str | None = None

    def steps(self, about: About) -> Steps:
        """Return the rows, with nan or -1 where nothing is known. Raises `Broken` for other shapes than `about` has."""
        count = len(next(iter(self.frames.values())))
        rows = no_steps(count, about.action, len(about.states))
        given = (self.action, self.reward, self.terminated, self.state)
        for name, out, values in zip(Steps._fields, rows, given, strict=True):
            if values is None:
                continue
            values = np.asarray(values)
            if values.shape[1:] != out.shape[1:] or len(values) not in (count, count - 1):
                raise Broken(f"{name} of the shape {values.shape} for {count} observations")
            out[: len(values)] = values
        return rows


def write_shards(
    folder: Path,
    about: About,
    make: Callable[[int], Episode],
    count: int,
    per_shard: int = PER_SHARD,
    jpeg: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> Counter[str]:
    """Write episodes 0 to `count` - 1 into a folder; those of whole shards that are there already are kept.

    `make(k)` returns episode k, or raises `Broken`: then it is dropped, and counted under that reason. `jpeg`: frames
    are kept as JPEG of quality 95, in place of their bytes. `advance` is called with how many episodes were done.

    Returns how many were dropped for what reason, those of earlier starts among them. Raises `UserError` for a folder
    that holds another recording or that another process writes in, and `RunFailed` where it cannot be written.
    """
    with only_here(folder):
        return Shards(folder, about).extend(make, count, per_shard, jpeg, advance)


class Shards:
    """The shards of a recording that goes on; those that are there are read once.

    `found`: what each whole shard says of itself, in order, see `read_shards`. Raises as `write_shards`; that no other
    process writes in the folder is up to the caller.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.folder, self.about, given = folder, about, about.to_json()
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if (known := read_about(folder)) is None:
                write_atomically(folder / ABOUT, json.dumps(given, indent=1).encode())
            elif known != json.loads(json.dumps(given)):
                raise UserError(f"{folder} holds another recording; give another folder, or the options of that one")
            self.found = read_shards(folder)

    def extend(
        self,
        make: Callable[[int], Episode],
        count: int,
        per_shard: int = PER_SHARD,
        jpeg: bool = False,
        advance: Callable[[int], None] = lambda done: None,
    ) -> Counter[str]:
        """Write what is missing of episodes 0 to `count` - 1; as `write_shards`."""
        dropped = Counter[str]()
        for shard in self.found:
            dropped.update(shard["dropped"])
        done = self.found[-1]["until"] if self.found else 0
        advance(min(done, count))
        with _writing(self.folder):
            while done < count:
                part, path = (done, min(done + per_shard, count)), self.folder / f"shard-{len(self.found):05}"
                self.found.append(_write_shard(path, self.about, make, part, jpeg, advance))
                dropped.update(self.found[-1]["dropped"])
                done = part[1]
        return dropped


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFailed(f"cannot write in {folder}: {error.strerror or error}") from error


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return what `trajectories.json` says, None where there is none. Raises `UserError` for a damaged one."""
    try:
        values = json.loads((folder / ABOUT).read_bytes())
        if values["version"] != VERSION:
            raise UserError(f"{folder} was recorded by another version of selfsup (format {values['version']})")
        return dict(values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / ABOUT} cannot be read") from None


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """Return what each whole shard says of itself, in order. Raises `UserError` where one is missing or damaged."""
    found: list[dict[str, Any]] = []
    names = sorted(name for name in os.listdir(folder) if name.startswith("shard-"))
    for place, name in enumerate(names):
        try:
            values = json.loads((folder / name / SHARD).read_bytes())
            sound = name == f"shard-{place:05}" and values["first"] == (found[-1]["until"] if found else 0)
        except (OSError, ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise UserError(f"{folder}: {name} is damaged, or the one before it is missing: remove it and those after")
        found.append(values)
    return found


def _write_shard(
    path: Path, about: About, make: Callable[[int], Episode], part: tuple[int, int], jpeg: bool,
    advance: Callable[[int], None],
) -> dict[str, Any]:  # fmt: skip
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    rows: list[Steps] = []
    table: list[tuple[int, int, bool, str | None]] = []
    dropped, shapes = Counter[str](), [[0, 0, 3]]
    with ExitStack() as stack:
        writers: list[FrameWriter] = []
        for k in range(*part):
            try:
                episode = make(k)
                steps, frames = episode.steps(about), checked_frames(episode, about)
                if writers and [list(seen.shape[1:]) for seen in frames] != shapes:
                    raise Broken("frames of another size than those before")
            except Broken as error:
                dropped[str(error)] += 1
            else:
                if not writers:
                    shapes = [list(seen.shape[1:]) for seen in frames]
                    for camera, shape in enumerate(shapes):
                        writer = FrameWriter(aside / f"camera-{camera}.arrow", {"shape": shape, "jpeg": jpeg})
                        writers.append(stack.enter_context(writer))
                for writer, seen in zip(writers, frames, strict=True):
                    for frame in seen:
                        writer.add(frame)
                rows.append(steps)
                table.append((k, len(frames[0]), episode.truncated, episode.label))
            advance(1)
    rows.append(no_steps(0, about.action, len(about.states)))
    pq.write_table(_steps_table(Steps.joined(rows)), aside / "steps.parquet")
    columns = zip(*table, strict=True) if table else ((), (), (), ())
    types = pa.int64(), pa.int64(), pa.bool_(), pa.string()
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    pq.write_table(pa.table(arrays, names=["number", "length", "truncated", "label"]), aside / "episodes.parquet")
    digests = {file.name: _digest(file) for file in sorted(aside.iterdir())}
    values: dict[str, Any] = {
        "first": part[0], "until": part[1], "episodes": len(table), "observations": sum(row[1] for row in table),
        "shape": shapes[0][:2], "dropped": dict(dropped), "digests": digests,
    }  # fmt: skip
    write_atomically(aside / SHARD, json.dumps(values, indent=1).encode())
    os.replace(aside, path)
    return values


def checked_frames(episode: Episode, about: About) -> Sequence[NDArray[np.uint8]]:
    """Return the frames of each camera. Raises `Broken` where they are not of the same moments, or no images."""
    if set(episode.frames) != set(about.cameras):
        raise Broken(f"frames of {', '.join(episode.frames) or 'no camera'} in place of {', '.join(about.cameras)}")
    found = [np.asarray(episode.frames[camera]) for camera in about.cameras]
    for frames in found:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise Broken(f"frames of the shape {frames.shape} and {frames.dtype}, not (n, H, W, 3) uint8")
    if len({len(frames) for frames in found}) > 1:
        raise Broken("cameras of different length")
    return found


def _steps_table(steps: Steps) -> pa.Table:
    """Return the columns of `steps.parquet`."""
    columns = {}
    for name, values in zip(Steps._fields, steps, strict=True):
        if values.ndim == 1:
            columns[name] = pa.array(values)
        elif values.shape[1]:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.table(columns)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
