"""The files below a folder: walked once, cached, and listed again only in folders that changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder, new_in_cache
from selfsup.errors import RunFailed, UserError
from selfsup.source import Annotations, Labels, Masks

BLOCK = 65_536  # paths that are Python objects at a time
WORTH = 20_000  # files: fewer are walked as quickly as their index is read
SETTLED = 2_000_000_000  # ns: a folder that has just changed may change again without another time
VERSION = b"selfsup index 3\n"
# what is left out: folders, and files of a suffix that is taken; other files count by their suffix
HIDDEN, LINKS, LOOPS, HIDDEN_FILES = "hidden", "links", "loops", "hidden files"

Stamp = tuple[int, int, int]  # of a folder: inode, times of modification and of change; 0 where they say too little


class _Index(NamedTuple):
    """The files of folder i, in the order of the walk, are files[starts[i] : starts[i + 1]]; left[i] was left out."""

    folders: pa.Array
    stamps: NDArray[np.int64]
    starts: NDArray[np.int64]
    files: pa.Array
    left: pa.Array  # as JSON: suffix or one of the words above -> how many


class Found(NamedTuple):
    """The paths of the files below a folder, and how many others were left out: by suffix or by such a word."""

    files: pa.Array
    left: Counter[str]


def find_files(root: str, endings: Iterable[str]) -> pa.Array:
    """Return the paths of the files of `look_below` alone."""
    return look_below(root, endings).files


def look_below(root: str, endings: Iterable[str], follow_links: bool = False) -> Found:
    """Return the paths, relative to the root, of all files below it with one of these endings, as Arrow binary.

    Folder by folder, sorted, so that a sample keeps its number; names that begin with a dot are left out, and links to
    folders are not followed unless that is asked for: then a link to a folder around it is a loop, and left out. The
    paths of many files are stored in the cache folder and mapped from there, shared by
    all processes: later starts check only the folders, and list those again whose inode or times differ.

    Raises `UserError` for a folder that cannot be listed.
    """
    suffixes = tuple(sorted(os.fsencode(ending) for ending in endings))
    top = os.path.realpath(os.fsencode(root))
    name = hashlib.blake2b(b"\0".join((top, *suffixes, *[b"links"] * follow_links)), digest_size=16).hexdigest()
    path = _place(name)
    known = _load(path) if path else None
    if known is not None and _unchanged(top, known):
        return Found(known.files, _total(known.left.to_pylist()))
    folders: list[bytes] = []
    left: list[bytes] = []
    stamps: list[Stamp] = []
    starts = [0]

    def paths() -> Iterator[bytes]:
        for folder, stamp, files, others in _walk(top, suffixes, known, follow_links):
            folders.append(folder)
            left.append(others)
            stamps.append(stamp)
            starts.append(starts[-1] + len(files))
            yield from files

    found = pack(paths())
    if path and len(found) >= WORTH:
        _save(path, _Index(pack(folders), np.array(stamps, np.int64), np.array(starts, np.int64), found, pack(left)))
        if (kept := _load(path)) is not None and len(kept.files) == len(found):
            del found
            pa.default_memory_pool().release_unused()
            return Found(
                kept.files, _total(left)
            )  # mapped: memory that other processes share, and that the system can take back
    return Found(found, _total(left))


def _place(name: str) -> Path | None:
    """Return where an index is kept, or None without a cache folder: then the folder is listed at every start."""
    try:
        return cache_folder() / "index" / f"{name}.arrow"
    except RunFailed:
        return None


def _total(left: Iterable[bytes]) -> Counter[str]:
    total: Counter[str] = Counter()
    for others in left:
        if others:
            total.update(json.loads(others))
    return total


def pack(paths: Iterable[bytes]) -> pa.Array:
    """Return paths as one Arrow array, of which only a block is Python objects at a time."""
    rest = iter(paths)
    blocks = [pa.array([], pa.large_binary())]
    while block := list(islice(rest, BLOCK)):
        blocks.append(pa.array(block, pa.large_binary()))
    return pa.concat_arrays(blocks)


def fingerprint(paths: pa.Array, *labels: Labels | Annotations | Masks | None, more: bytes = b"") -> str:
    """Return a hash of the paths of samples in order, of `more` that tells them apart, and of their labels."""
    digest = hashlib.blake2b(digest_size=8)
    for start in range(0, len(paths), BLOCK):
        digest.update(b"\0".join([*paths[start : start + BLOCK].to_pylist(), b""]))
    for one in (more, *(given.digest() for given in labels if given is not None)):
        digest.update(one)
    return digest.hexdigest()


def fingerprint_of_generated(
    name: str, numbers: NDArray[np.int64], *labels: Labels | Annotations | Masks | None
) -> str:
    """Return a hash of the name of generated samples, of their numbers and of their labels."""
    digest = hashlib.blake2b(name.encode() + numbers.tobytes(), digest_size=8)
    for given in labels:
        if given is not None:
            digest.update(given.digest())
    return digest.hexdigest()


def _unchanged(top: bytes, known: _Index) -> bool:
    for folder, stamp in zip(known.folders.to_pylist(), known.stamps.tolist(), strict=True):
        try:
            about = os.stat(os.path.join(top, folder))
        except OSError:
            return False
        if [about.st_ino, about.st_mtime_ns, about.st_ctime_ns] != stamp:
            return False
    return True


def _walk(
    top: bytes, suffixes: tuple[bytes, ...], known: _Index | None, follow_links: bool
) -> Iterator[tuple[bytes, Stamp, list[bytes], bytes]]:
    """Yield each folder with its stamp, its files and what is left out; an unchanged one from the index."""
    folders: list[bytes] = known.folders.to_pylist() if known is not None else []
    number = {folder: i for i, folder in enumerate(folders)}
    inside: dict[bytes, list[bytes]] = {}
    for folder in folders[1:]:
        inside.setdefault(os.path.dirname(folder), []).append(folder)
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            about, now = os.stat(os.path.join(top, folder)), time.time_ns()
            stamp = about.st_ino, about.st_mtime_ns, about.st_ctime_ns
            i = number.get(folder)
            if known is not None and i is not None and tuple(known.stamps[i].tolist()) == stamp:
                below, files = inside.get(folder, []), known.files[known.starts[i] : known.starts[i + 1]].to_pylist()
                others: bytes = known.left[i].as_py()
            else:
                below, files, others = _list(top, folder, suffixes, follow_links)
        except OSError as error:
            raise UserError(
                f"cannot read the folder {os.fsdecode(os.path.join(top, folder))!r}: {error.strerror}; a list file can "
                "leave it out"
            ) from None
        waiting += reversed(below)
        yield folder, stamp if now - max(stamp[1:]) > SETTLED else (0, 0, 0), files, others


def _list(
    top: bytes, folder: bytes, suffixes: tuple[bytes, ...], follow_links: bool
) -> tuple[list[bytes], list[bytes], bytes]:
    """Return the paths of the folders and of the files in a folder, each sorted, and what is left out, as JSON."""
    below, files = [], []
    left: Counter[str] = Counter()
    with os.scandir(os.path.join(top, folder)) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(b"."):
                if entry.is_dir(follow_symlinks=False):
                    left[HIDDEN] += 1
                elif name.lower().endswith(suffixes):
                    left[HIDDEN_FILES] += 1
            elif entry.is_dir(follow_symlinks=False):
                below.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                if not follow_links:
                    left[LINKS] += 1
                elif _is_around(entry.path, top, folder):
                    left[LOOPS] += 1
                else:
                    below.append(name)
            elif name.lower().endswith(suffixes):
                files.append(name)
            else:
                left[os.fsdecode(os.path.splitext(name)[1].lower()).encode(errors="replace").decode()] += 1
    prefix = os.path.join(folder, b"") if folder else b""
    others = json.dumps(left).encode() if left else b""
    return [prefix + name for name in sorted(below)], [prefix + name for name in sorted(files)], others


def _is_around(link: bytes, top: bytes, folder: bytes) -> bool:
    """Return whether a link leads to a folder through which the walk came to it, or to one around such a folder."""
    outer = os.path.realpath(link)
    parts = folder.split(b"/") if folder else []
    way = [os.path.realpath(os.path.join(top, *parts[:depth])) for depth in range(len(parts) + 1)]
    return any(inner == outer or inner.startswith(os.path.join(outer, b"")) for inner in way)


def _save(path: Path, index: _Index) -> None:
    """Save an index: an Arrow file with one row, and a digest of it that reveals damage."""
    lists = {
        "folders": index.folders,
        "stamps": pa.array(index.stamps.reshape(-1)),
        "starts": pa.array(index.starts),
        "files": index.files,
        "left": index.left,
    }
    row = [pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values) for values in lists.values()]
    batch = pa.record_batch(row, names=list(lists))
    # without it the next start takes longer, and nothing else
    with contextlib.suppress(RunFailed), new_in_cache(path) as aside:
        write_batch(aside, batch, VERSION)


def _load(path: Path) -> _Index | None:
    """Return a saved index, mapped into memory; None if there is none, or it is damaged."""
    batch = read_batch(path, VERSION)
    if batch is None:
        return None
    folders, stamps, starts, files, left = (batch[name].values for name in _Index._fields)
    return _Index(folders, stamps.to_numpy().reshape(-1, 3), starts.to_numpy(), files, left)


def write_batch(path: Path, batch: pa.RecordBatch, version: bytes) -> None:
    """Write one batch to an Arrow file, with a digest of it that reveals damage, and the version of its contents."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    with open(path, "r+b") as file:
        digest = hashlib.file_digest(file, "blake2b").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest + version)


def read_batch(path: Path | pa.Buffer, version: bytes) -> pa.RecordBatch | None:
    """Return what `write_batch` wrote, mapped into memory; None for another version, and if it is damaged or absent."""
    try:
        if isinstance(path, pa.Buffer):
            whole = path
        else:
            with pa.memory_map(str(path)) as file:
                whole = file.read_buffer()
        end = len(whole) - len(version) - hashlib.blake2b().digest_size
        content, trailer = whole[: max(end, 0)], whole[max(end, 0) :].to_pybytes()
        if trailer != hashlib.blake2b(content).digest() + version:
            return None
        return pa.ipc.open_file(content).get_batch(0)
    except (OSError, pa.ArrowException):
        return None
