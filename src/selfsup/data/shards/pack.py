"""Images into shards of a bounded size, as they are: deterministic bytes, resumed where it was killed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfsup.base.cache import cache_folder
from selfsup.base.progress import counting
from selfsup.base.writing import LOCK, only_here, part_name, whole_file, write_atomically
from selfsup.data.image import Files
from selfsup.data.image.decode import read_header
from selfsup.data.shards.index import SUFFIX, made_index, save_index
from selfsup.data.shards.lance import SUFFIX as LANCE
from selfsup.data.shards.objects import Absent, open_object_at, put
from selfsup.data.shards.open import FORMAT, MANIFEST, read_manifest
from selfsup.data.shards.parquet import NAMED
from selfsup.data.shards.tar import Member
from selfsup.errors import RunFailed, UserError, need
from selfsup.source import Broken

MEBI = 1 << 20
GROUP = 16 * MEBI  # bytes of a row group, about
NEXT = 64  # images that are fetched ahead, where they are far away
ROWS = 64  # of Lance that are written at a time
TO = ("tar", "parquet", "lance")


class Image(NamedTuple):
    """An image that is packed: its path, its name in a tar, its bytes and its class, -1 for none."""

    path: bytes
    name: str
    data: bytes
    label: int


class Packed(NamedTuple):
    """What `pack` wrote: `left` counts the images that cannot be read, by reason; `kept` shards were there before."""

    shards: int
    samples: int
    size: int
    left: dict[str, int]
    kept: int


def pack(source: Files, folder: Path | str, to: str = "tar", shard_mb: int = 256, quiet: bool = False) -> Packed:
    """Write images and their labels to shards of about so many MiB, and a manifest that names them.

    Each image keeps its bytes: nothing is decoded but its header. In a tar its name is its path, in which dots before
    the suffix are written %2E, since for WebDataset a name ends at the first dot; its class is a number in `.cls`, and
    the manifest has the names. A shard is written aside and renamed, then the manifest says so: a run that was killed
    goes on behind the last shard, to the same bytes. A `folder` that is text is the URL of one of an object store: each
    shard is sent there when it is whole, from the cache.

    Raises `UserError` where the folder holds shards of other data, or another process writes there; `RunFailed` where
    nothing can be read or written.
    """
    of = hashlib.blake2b(f"{source.fingerprint()} {to} {shard_mb}".encode(), digest_size=8).hexdigest()
    if to == "lance":
        if isinstance(folder, str):
            raise UserError(f"a Lance dataset is written to a folder here, not to {folder}: give another --out")
        return _lance(source, folder, quiet)
    with _room(folder) as room:
        about = _begun(folder, source, to, of)
        shards = about["shards"]
        kept, done = len(shards), sum(one["files"] for one in shards)
        left = Counter[str]()
        with counting("packing", len(source), quiet) as advance:
            advance(done)
            images = _images(source, done, left)
            pending = next(images, None)
            while pending is not None:
                name = f"images-{len(shards):06}.{to}"
                pending, entry = WRITERS[to](room / name, pending, images, shard_mb * MEBI, about["classes"])
                _send(room, folder)  # before the manifest says so
                files = (len(source) if pending is None else pending[0]) - done
                shards.append({"name": name, **entry, "files": files, "left": dict(left)})
                left.clear()
                done += files
                _write(room, folder, about)
                advance(files)
        if not shards:
            raise _unreadable(source, left)
        _write(room, folder, {**about, "complete": True})
    samples, size = (sum(one[key] for one in shards) for key in ("samples", "size"))
    return Packed(len(shards), samples, size, dict(sum((Counter(one["left"]) for one in shards), Counter[str]())), kept)


@contextmanager
def _room(folder: Path | str) -> Iterator[Path]:
    """Keep other processes out, and yield where files are written: there, or in the cache if they are then sent."""
    if isinstance(folder, Path):
        with only_here(folder):
            yield folder
        return
    room = cache_folder() / "packing" / hashlib.blake2b(folder.encode(), digest_size=8).hexdigest()
    with only_here(room):
        try:
            yield room
        finally:
            for path in room.glob("*"):
                if path.name != LOCK:  # which belongs to `only_here`
                    path.unlink()


def _send(room: Path, folder: Path | str) -> None:
    """Send what was written to a store, if it is to go there."""
    for path in sorted(room.glob("[!.]*")) if isinstance(folder, str) else ():
        put(path, f"{folder}/{path.name}")
        path.unlink()


def _unreadable(source: Files, left: Counter[str]) -> RunFailed:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left.most_common())
    return RunFailed(f"none of the {len(source):,} images of {source.name} can be read: {reasons}")


def _begun(folder: Path | str, source: Files, to: str, of: str) -> dict[str, Any]:
    """Return the manifest so far; shards that are not as it says, and those behind them, are written again."""
    new = {"format": FORMAT, "to": to, "of": of, "classes": _classes(source), "complete": False, "shards": []}
    try:
        about = read_manifest(f"{folder}/{MANIFEST}")
    except Absent:
        return new
    if about.get("of") != of:
        raise UserError(f"{folder} holds shards of other data, labels or sizes: give another --out, or remove it")
    whole = takewhile(lambda one: _size(f"{folder}/{one['name']}") == one["size"], about["shards"])
    return {**new, "shards": list(whole)}


def _size(name: str) -> int:
    try:
        return open_object_at(name).size
    except UserError:
        return -1


def _write(room: Path, folder: Path | str, about: dict[str, Any]) -> None:
    write_atomically(room / MANIFEST, json.dumps(about, indent=1).encode())
    _send(room, folder)


def _classes(source: Files) -> list[str]:
    return [] if source.labels is None else list(source.labels.classes)


def _images(source: Files, start: int, left: Counter[str]) -> Iterator[tuple[int, Image]]:
    """Yield the images from a number on, with their numbers; `left` counts by reason those that cannot be read."""
    names = _Names(source.paths)
    for index in range(start, len(source)):
        path = source.paths[index].as_py()
        if (index - start) % NEXT == 0:
            source.prefetch(np.arange(index, min(index + 2 * NEXT, len(source))))
        try:
            data = source.content(index)
            if not data:
                raise Broken("empty file")
            read_header(data)
        except Broken as error:
            left[str(error)] += 1
            continue
        label = -1 if source.labels is None else int(source.labels.ids[index])
        yield index, Image(path, names.of(path), data, label)


class _Names:
    """The names of images in a tar, of which no two have the same part up to the first dot."""

    def __init__(self, paths: pa.Array) -> None:
        stems = pc.replace_substring_regex(paths, pattern=r"\.[^./]*$", replacement="")
        counts = pc.value_counts(stems)
        self.several = set(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())

    def of(self, path: bytes) -> str:
        folder, base = os.path.split(os.fsdecode(path).lstrip("/"))
        stem, suffix = os.path.splitext(base)
        key = stem.replace("%", "%25").replace(".", "%2E")
        if os.path.splitext(path)[0] in self.several:
            key += f"%{suffix[1:]}"
        return os.path.join(folder, key + suffix)


Rest = Iterator[tuple[int, Image]]
Done = tuple[tuple[int, Image] | None, dict[str, Any]]


def _tar(path: Path, first: tuple[int, Image], rest: Rest, most: int, classes: list[str]) -> Done:
    """Write a tar and its index; return the first image of the next one, and what the manifest says of this one."""
    members: list[Member] = []
    pending: tuple[int, Image] | None = first
    with whole_file(path) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            while pending is not None and (not members or tar.offset + len(pending[1].data) <= most):
                image = pending[1]
                _add(tar, image.name, image.data)
                label = classes[image.label].encode() if image.label >= 0 else None
                start = tar.offset - _padded(len(image.data))
                members.append(Member(image.path, start, len(image.data), label, None, zlib.crc32(image.data)))
                if label is not None:
                    _add(tar, f"{os.path.splitext(image.name)[0]}.cls", str(image.label).encode())
                pending = next(rest, None)
        file.flush()
        size, digest = os.fstat(file.fileno()).st_size, _digest(path.with_name(part_name(path.name)))
    index = path.with_name(path.name + SUFFIX)
    aside = index.with_name(part_name(index.name))
    try:
        save_index(aside, made_index(members, Counter(), digest), size)
        os.replace(aside, index)
    except OSError as error:
        raise RunFailed(f"cannot write {index}: {error.strerror}") from None
    return pending, {"size": size, "samples": len(members), "blake2b": digest}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    tar.addfile(about, io.BytesIO(data))


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _parquet(path: Path, first: tuple[int, Image], rest: Rest, most: int, classes: list[str]) -> Done:
    """Write a Parquet file as Hugging Face lays it out; the same is returned as for a tar."""
    schema, samples = _schema(classes), 0
    pending: tuple[int, Image] | None = first
    with whole_file(path) as file:
        size = 0
        with pq.ParquetWriter(file, schema, compression="none") as writer:  # images are compressed already
            while pending is not None and (not size or size + len(pending[1].data) <= most):
                rows: list[dict[str, Any]] = []
                held = 0
                while pending is not None and held < GROUP and (not size or size + len(pending[1].data) <= most):
                    image = pending[1]
                    held, size = held + len(image.data), size + len(image.data)
                    rows.append(_row(image))
                    pending = next(rest, None)
                writer.write_table(pa.Table.from_pylist(rows, schema))
                samples += len(rows)
        file.flush()
        written, digest = os.fstat(file.fileno()).st_size, _digest(path.with_name(part_name(path.name)))
    return pending, {"size": written, "samples": samples, "blake2b": digest}


def _row(image: Image) -> dict[str, Any]:
    path = image.path.decode(errors="backslashreplace")
    return {"image": {"bytes": image.data, "path": path}, "label": None if image.label < 0 else image.label}


def _schema(classes: list[str]) -> pa.Schema:
    """Return the columns image and label, with the metadata from which Hugging Face reads what they are."""
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if classes:
        fields.append(pa.field("label", pa.int64()))
        features["label"] = {"names": classes, "_type": "ClassLabel"}
    return pa.schema(fields, metadata={NAMED: json.dumps({"info": {"features": features}})})


def _lance(source: Files, folder: Path, quiet: bool) -> Packed:
    """Write one Lance dataset with the columns image, path and label, in a folder whose name ends in .lance."""
    lance: Any = need("lance", "lance")
    if folder.suffix != LANCE or folder.exists():
        raise UserError(f"a Lance dataset is a new folder whose name ends in {LANCE}: give another --out than {folder}")
    left, count, size = Counter[str](), 0, 0
    schema = pa.schema([("image", pa.large_binary()), ("path", pa.string()), ("label", pa.string())])
    classes, aside = _classes(source), folder.with_name(part_name(folder.name))

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal count, size
        with counting("packing", len(source), quiet) as advance:
            images = _images(source, 0, left)
            while some := list(islice(images, ROWS)):
                count, size = count + len(some), size + sum(len(image.data) for _, image in some)
                yield pa.RecordBatch.from_pylist(
                    [
                        {"image": one.data, "path": one.path.decode(errors="backslashreplace"),
                         "label": classes[one.label] if one.label >= 0 else None}
                        for _, one in some
                    ],
                    schema,
                )  # fmt: skip
                advance(len(some))

    try:
        lance.write_dataset(batches(), str(aside), schema=schema, mode="overwrite")
        if not count:
            raise _unreadable(source, left)
        aside.rename(folder)
    except OSError as error:
        raise RunFailed(f"cannot write {folder}: {error}") from None
    return Packed(1, count, size, dict(left), 0)


WRITERS: dict[str, Callable[[Path, tuple[int, Image], Rest, int, list[str]], Done]] = {"tar": _tar, "parquet": _parquet}
