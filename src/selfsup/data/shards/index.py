"""The side index of a tar: where each image is and its label. Built once, kept beside the shard or in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder, new_in_cache
from selfsup.data.index import read_batch, write_batch
from selfsup.data.shards.objects import Object, fetched, is_url
from selfsup.data.shards.tar import Member, read_members
from selfsup.errors import RunFailed

VERSION = b"selfsup shard index 1\n"
SUFFIX = ".index"  # of the index beside a shard
TYPES = {(name, "large_binary") for name in ("path", "label", "text")} | {("offset", "int64"), ("size", "int64")}


class Index(NamedTuple):
    """The images of a shard, in order: `paths` (n,) and `labels` (n,) Arrow binary, null for none.

    `offsets`, `sizes` (n,) int64: bytes from the beginning of the shard; `checksums` (n,) uint32, CRC-32 of each image,
    or None where the shard is not ours. `left` counts what is left out, by reason; `texts` (n,) are what .txt beside
    the images says where that may be labels; `of` is the digest of the whole shard, empty if nobody took it.
    """

    paths: pa.Array
    labels: pa.Array
    texts: pa.Array
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checksums: NDArray[np.uint32] | None
    left: Counter[str]
    of: str = ""


def index_of(shard: Object, digest: str = "") -> Index:
    """Return the index of a shard: the one beside it, the one in the cache, or one that is built now and kept there.

    `digest`: of the whole shard by its manifest, which the index beside it must name. Raises `UserError` for what is
    not a tar, or is truncated.
    """
    if digest and (beside := _load(_content(shard.name + SUFFIX), shard.size)) is not None and beside.of == digest:
        return beside
    place = _place(shard)
    if place is not None and (kept := _load(place, shard.size)) is not None:
        return kept
    with shard.open() as file:
        built = indexed(shard.name, file, shard.size)
    if place is not None:
        with contextlib.suppress(RunFailed), new_in_cache(place) as aside:  # without it the next start takes longer
            save_index(aside, built, shard.size)
    return built


def indexed(name: str, file: Any, size: int) -> Index:
    """Return the index of a tar that is read from end to end; see `read_members`."""
    left: Counter[str] = Counter()
    return made_index(list(read_members(name, file, size, left)), left)


def made_index(members: list[Member], left: Counter[str], of: str = "") -> Index:
    """Return the index of these images."""
    checksums = [one.checksum for one in members]
    return Index(
        pa.array([one.path for one in members], pa.large_binary()),
        pa.array([one.label for one in members], pa.large_binary()),
        pa.array([one.text for one in members], pa.large_binary()),
        np.array([one.offset for one in members], np.int64),
        np.array([one.size for one in members], np.int64),
        None if None in checksums else np.array(checksums, np.uint32),
        left,
        of,
    )


def save_index(path: Path, index: Index, size: int) -> None:
    """Write an index of a shard of so many bytes."""
    columns = {
        "path": index.paths, "label": index.labels, "text": index.texts,
        "offset": pa.array(index.offsets), "size": pa.array(index.sizes),
    }  # fmt: skip
    if index.checksums is not None:
        columns["checksum"] = pa.array(index.checksums)
    about = json.dumps({"size": size, "left": index.left, "of": index.of})
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    write_batch(path, batch.replace_schema_metadata({"selfsup": about}), VERSION)


def checked(data: bytes, checksum: int) -> bool:
    """Return whether the bytes of an image are those of which an index has the checksum."""
    return zlib.crc32(data) == checksum


def _place(shard: Object) -> Path | None:
    """Return where an index is kept in the cache; None where nothing would tell that the shard has changed."""
    if not shard.state:
        return None
    name = shard.name if is_url(shard.name) else str(Path(shard.name).resolve())
    try:
        folder = cache_folder() / "shards"
    except RunFailed:
        return None
    digest = hashlib.blake2b(f"{name}\0{shard.state}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return folder / digest[:2] / f"{digest}.arrow"


def _content(name: str) -> Path | pa.Buffer | None:
    if not is_url(name):
        return Path(name)
    found = fetched(name)
    return None if found is None else pa.py_buffer(found)


def _load(place: Path | pa.Buffer | None, size: int) -> Index | None:
    """Return a saved index; None if there is none, it is damaged, or that of a shard of another size."""
    batch = None if place is None else read_batch(place, VERSION)
    if batch is None:
        return None
    try:
        batch.validate(full=True)  # or what a stranger wrote might end the process
        if {field.name: str(field.type) for field in batch.schema}.items() - {("checksum", "uint32")} != TYPES:
            return None
        about = json.loads(batch.schema.metadata[b"selfsup"])
        checksums = batch["checksum"].to_numpy() if "checksum" in batch.schema.names else None
        offsets, sizes = batch["offset"].to_numpy(), batch["size"].to_numpy()
        left = Counter({str(reason): int(count) for reason, count in about["left"].items()})
        # an index from a stranger must not lead out of its shard
        inside = bool(((offsets >= 0) & (sizes > 0) & (offsets <= size - sizes)).all())
        if about["size"] != size or not inside or batch["path"].null_count:
            return None
        return Index(batch["path"], batch["label"], batch["text"], offsets, sizes, checksums, left, str(about["of"]))
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException):
        return None
