"""From the name of shards, here or at a URL, to their images: tars, Parquet files or a Lance dataset."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfsup.base.progress import counting
from selfsup.data.image import Files
from selfsup.data.index import look_below
from selfsup.data.label_values import read_labels
from selfsup.data.labels import PARTS
from selfsup.data.shards.index import Index, index_of
from selfsup.data.shards.lance import SUFFIX as LANCE
from selfsup.data.shards.lance import open_lance
from selfsup.data.shards.objects import Absent, is_url, listed, open_object_at
from selfsup.data.shards.parquet import DAMAGED, image_columns, open_parquet, open_table_file
from selfsup.data.shards.store import TarStore
from selfsup.data.shards.tar import CAPTIONS, NO_END
from selfsup.data.text.open import row_file
from selfsup.errors import UserError
from selfsup.source import Labels

T = TypeVar("T")
U = TypeVar("U")
TAR, PARQUET = ".tar", ".parquet"
MANIFEST, FORMAT = "shards.json", "selfsup shards 1"
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # name-{000..012}.tar
MOST = 1_000_000  # shards
OPENING = 32  # of them at a time, where they are far away


def open_shards(name: str) -> Files | None:
    """Return the images in shards that a name means; None if it means something else.

    `NAME.tar`, `NAME-{000..012}.tar` (and `.parquet`), a folder that `selfsup pack` wrote, `NAME.lance`, and URLs of
    these. Raises `UserError` for shards that are missing, damaged or without images, one line with what to do.
    """
    bare = name.rstrip("/")
    if bare.endswith(LANCE) and (is_url(name) or os.path.isdir(name)):
        return open_lance(bare)
    if name.lower().endswith((TAR, PARQUET)) and (is_url(name) or not os.path.isdir(name)):
        paths = [name] if os.path.exists(name) else expanded_range(name)
        if is_url(name) or len(paths) > 1 or (name.lower().endswith(TAR) and os.path.exists(name)):
            return open_files(name, paths)
        return None
    if is_url(name):
        return _far_folder(bare)
    if os.path.isfile(os.path.join(name, MANIFEST)):
        return open_packed(name, read_manifest(os.path.join(name, MANIFEST)))
    return None


def open_files(name: str, paths: Sequence[str]) -> Files:
    """Return the images in these tars, or in these Parquet files."""
    if not paths[0].lower().endswith(TAR):
        return open_parquet(name, paths)
    folder = paths[0][: len(paths[0]) - len(os.path.basename(paths[0]))]
    about = None
    with contextlib.suppress(UserError):  # shards of somebody else have none
        about = read_manifest(folder + MANIFEST)
    return open_tars(name, paths, about)


def holds_images(path: str) -> bool:
    """Return whether a Parquet file has a column of images."""
    with open_table_file(path) as file:
        return image_columns(file.schema_arrow) is not None


def image_table(data: str) -> Files | None:
    """Return the images of `FILE.parquet[:COLUMN[:LABELS]]`; None for a table of texts, or anything else.

    Without COLUMN those are images that have no column `text`.
    """
    path, column, label = row_file(data) or ("", "", "")
    if not path.lower().endswith(PARQUET):
        return None
    try:
        schema = pq.read_schema(path)
    except DAMAGED:
        return None  # which the reader of texts explains
    if (not column and "text" in schema.names) or image_columns(schema, column) is None:
        return None
    return open_parquet(data, [path], column, label)


def shards_below(root: str, follow_links: bool = False) -> Files | None:
    """Return the images in the tars, else in the Parquet files below a folder; None if there are none of these."""
    for suffix in (TAR, PARQUET):
        found = [
            os.path.join(root, os.fsdecode(one)) for one in look_below(root, [suffix], follow_links).files.to_pylist()
        ]
        if not found or (suffix == PARQUET and not holds_images(found[0])):
            continue
        files = open_files(root, found)
        parts = {part for path in found for part in PARTS if re.search(rf"(^|[/_-]){part}[_.-]", path[len(root) :])}
        if len(parts) > 1:
            files.notes = (*files.notes, f"{root}: its parts {', '.join(sorted(parts))} are read together")
        return files
    return None


def expanded_range(name: str) -> list[str]:
    """Return the names that a pattern with {000..012} stands for, or the name alone."""
    parts = RANGE.split(name)
    if len(parts) == 1:
        return [name]
    ends = list(zip(parts[1::3], parts[2::3], strict=True))
    counts = [max(int(last) - int(first) + 1, 0) for first, last in ends]
    if not 0 < np.prod(counts, dtype=float) <= MOST:
        raise UserError(f"{name} stands for {np.prod(counts, dtype=float):,.0f} shards: 1 to {MOST:,} can be read")
    numbers = [[f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)] for first, last in ends]
    between = [*parts[::3]]
    return ["".join(itertools.chain(*zip(between, (*some, ""), strict=True))) for some in itertools.product(*numbers)]


def open_packed(name: str, about: dict[str, Any]) -> Files:
    """Return the images in the shards that a manifest lists, in the folder where it is."""
    if not about.get("complete"):
        raise UserError(f"{name} is not finished: run the same `selfsup pack` again, which resumes")
    if not about["shards"]:
        raise UserError(f"{name} holds no shards: run `selfsup pack` again")
    paths = [os.path.join(name, one["name"]) for one in about["shards"]]
    if not is_url(name) and (missing := [path for path in paths if not os.path.exists(path)]):
        raise UserError(
            f"{len(missing):,} of the {len(paths):,} shards of {name} are missing, for example {missing[0]}: copy "
            "them again, or run the same `selfsup pack` again"
        )
    if about["to"] == "parquet":
        return open_parquet(name, paths)
    return open_tars(name, paths, about)


def read_manifest(path: str) -> dict[str, Any]:
    """Return the manifest at a path or URL. Raises `UserError` if it is none of ours, or damaged."""
    found = open_object_at(path)
    try:
        about = json.loads(found.read(0, found.size))
        shards = about["shards"]
        names = [one["name"] for one in shards]
        whole = all(isinstance(one["size"], int) and isinstance(one["blake2b"], str) for one in shards)
        whole &= all(isinstance(name, str) for name in (*names, *about.get("classes", ())))
        known = about["format"] == FORMAT and about["to"] in ("tar", "parquet")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged: run `selfsup pack` again") from None
    if not known or not whole or any(name != os.path.basename(name) or name in ("", "..") for name in names):
        raise UserError(f"{path} is not a manifest of `selfsup pack`, or of another version: run it again")
    return about


def open_tars(name: str, paths: Sequence[str], manifest: dict[str, Any] | None = None) -> Files:
    """Return the images in these tars, in their order. `manifest`: what was written of them where they were packed."""
    threads = OPENING if is_url(paths[0]) else 1
    shards = _each(open_object_at, paths, "opening shards", threads)
    known = {one["name"]: one for one in manifest["shards"]} if manifest else {}
    about = [known.get(os.path.basename(path)) for path in paths]
    for shard, entry in zip(shards, about, strict=True):
        if entry is not None and shard.size != entry["size"]:
            raise UserError(
                f"{shard.name} has {shard.size:,} bytes instead of {entry['size']:,}: it is truncated, or was changed; "
                "copy it again, or remove it and run `selfsup pack` again"
            )
    digests = ["" if entry is None else entry["blake2b"] for entry in about]
    numbers = range(len(shards))
    indexes = _each(lambda number: index_of(shards[number], digests[number]), numbers, "indexing shards", threads)
    counts = [len(index.paths) for index in indexes]
    left = sum((index.left for index in indexes), Counter[str]())
    if not sum(counts):
        raise UserError(f"no images in {name}{_told(left)}")
    which = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    none = [np.full(count, -1, np.int64) for count in counts]
    checksums = [none[n] if one.checksums is None else one.checksums.astype(np.int64) for n, one in enumerate(indexes)]
    store = TarStore(
        shards, which, np.concatenate([one.offsets for one in indexes]),
        np.concatenate([one.sizes for one in indexes]), np.concatenate(checksums),
    )  # fmt: skip
    labels, notes = _labels(indexes, left, (manifest or {}).get("classes"))
    files = Files.of_store(name, _paths(paths, indexes), store, labels)
    files.notes = tuple(f"{name}: {note}" for note in (*notes, *_notes(left)))
    return files


def _paths(paths: Sequence[str], indexes: Sequence[Index]) -> pa.Array:
    """Return the paths of all images: their names in the tars, behind that of the shard where they are not unique."""
    found = pa.concat_arrays([index.paths for index in indexes])
    if len(indexes) == 1 or pc.count_distinct(found).as_py() == len(found):
        return found
    names = [os.fsencode(os.path.basename(path)) for path in paths]
    slash = pa.scalar(b"/", pa.large_binary())
    return pa.concat_arrays(
        [
            pc.binary_join_element_wise(pa.scalar(own, pa.large_binary()), index.paths, slash)
            .cast(pa.large_binary())
            for own, index in zip(names, indexes, strict=True)
        ]
    )  # fmt: skip


def _labels(
    indexes: Sequence[Index], left: Counter[str], classes: Sequence[str] | None
) -> tuple[Labels | None, list[str]]:
    """Return the labels beside the images, and what was taken for them."""
    labels = pa.concat_arrays([_named(index, classes) for index in indexes])
    if labels.null_count < len(labels):
        return _known(labels), []
    texts = pa.concat_arrays([index.texts for index in indexes])
    there = len(texts) - texts.null_count
    if not there or left[CAPTIONS] or 2 * pc.count_distinct(texts).as_py() > there:
        left[CAPTIONS] += there
        return None, []
    found = _known(texts)
    return found, [f"the .txt beside the images are their labels ({len(found.classes) if found else 0:,} classes)"]


def _known(values: pa.Array) -> Labels | None:
    found = read_labels(values)
    return found if found.classes else None


def _named(index: Index, classes: Sequence[str] | None) -> pa.Array:
    """Return the labels of a shard: numbers in a tar of ours whose index is gone are those of classes."""
    if index.of or not classes:
        return index.labels
    names = [name.encode() for name in classes]
    numbers = [int(one) if one and one.isdigit() else -1 for one in index.labels.to_pylist()]
    return pa.array([names[n] if 0 <= n < len(names) else None for n in numbers], pa.large_binary())


def _notes(left: Counter[str]) -> list[str]:
    notes = []
    if told := _told(left):
        notes.append(told.removeprefix(": "))
    if left[CAPTIONS]:
        notes.append(f"{left[CAPTIONS]:,} .txt beside the images are captions, which are not read")
    if left[NO_END]:
        notes.append(f"{left[NO_END]:,} of the tars have no end mark: they may be truncated between two members")
    return notes


def _told(left: Counter[str]) -> str:
    """Return how many members are left out, by reason; nothing where none is."""
    out = {reason: count for reason, count in left.items() if count and reason not in (CAPTIONS, NO_END)}
    parts = [f"{count:,} {reason}" for reason, count in Counter(out).most_common(8)]
    return f": {sum(out.values()):,} members are left out: {', '.join(parts)}" if parts else ""


def _far_folder(name: str) -> Files:
    """Return the shards in a folder of a store: by its manifest, else the tars or Parquet files that are listed."""
    try:
        about = read_manifest(f"{name}/{MANIFEST}")
    except Absent as error:
        for suffix in (TAR, PARQUET):
            if paths := listed(name, suffix):
                return open_files(name, paths)
        raise UserError(f"{error}; without it, name the shards: {name}/NAME-{{000..012}}.tar") from None
    return open_packed(name, about)


def _each(do: Callable[[T], U], todo: Sequence[T], what: str, threads: int) -> list[U]:
    """Return what `do` returns for each, several at a time."""
    found = []
    with counting(what, len(todo), quiet=len(todo) < 2) as advance, ThreadPoolExecutor(threads) as pool:
        for one in pool.map(do, todo):
            found.append(one)
            advance(1)
    return found
