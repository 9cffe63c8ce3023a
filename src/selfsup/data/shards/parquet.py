"""Images in a column of Parquet files, as Hugging Face lays them out: struct{bytes, path} or binary, in row groups."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.data.image import Files
from selfsup.data.label_values import read_labels
from selfsup.data.objects import IMAGE_COLUMNS, LABEL_COLUMNS
from selfsup.data.shards.objects import CHANGED, Object, open_object_at
from selfsup.errors import UserError
from selfsup.source import Broken, Labels

HELD = 1 << 30  # bytes of row groups in memory
DAMAGED = (pa.ArrowException, OSError, ValueError, LookupError)  # what pyarrow raises of a file that is damaged
NAMED = "huggingface"  # the entry of a schema's metadata in which classes have their names


class Columns(NamedTuple):
    """The columns of a table of images: `label` is empty where there is none; `names` are those of its classes."""

    image: str
    label: str = ""
    names: tuple[str, ...] = ()


def image_columns(schema: pa.Schema, image: str = "", label: str = "") -> Columns | None:
    """Return the columns of images and labels by their names and types; None for a table without images.

    `image`, `label`: what was asked for. Raises `UserError` for a label that is not there.
    """
    images = [field.name for field in schema if _holds_bytes(field.type)]
    known = [name for name in ((image,) if image else IMAGE_COLUMNS) if name in images]
    if not known:
        return None
    if label and label not in schema.names:
        raise UserError(f"no column {label!r} among {', '.join(map(repr, schema.names[:20]))}")
    label = label or next((name for name in LABEL_COLUMNS if name in schema.names), "")
    features: Any = {}
    try:
        features = json.loads((schema.metadata or {}).get(NAMED.encode(), b"{}"))["info"]["features"]
        names = tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        names = ()
    return Columns(known[0], label, names)


def _holds_bytes(arrow_type: pa.DataType) -> bool:
    if pa.types.is_struct(arrow_type):
        place = arrow_type.get_field_index("bytes")
        return place >= 0 and _holds_bytes(arrow_type.field(place).type)
    return pa.types.is_binary(arrow_type) or pa.types.is_large_binary(arrow_type)


def open_table_file(name: str) -> pq.ParquetFile:
    """Open a Parquet file here or at a URL. Raises `UserError` for what is not one."""
    found = open_object_at(name)
    try:
        return pq.ParquetFile(_file(found))
    except DAMAGED as error:
        raise UserError(f"{name} cannot be read: {_line(error)}") from None


def open_parquet(name: str, paths: Sequence[str], image: str = "", label: str = "") -> Files:
    """Return the images in the Parquet files at these paths, in their order, with labels where they have a column.

    Raises `UserError` for files without images, of other columns than the first, or of row groups beyond the memory.
    """
    store, labels, images = ParquetStore([open_object_at(path) for path in paths]), [], []
    columns: Columns | None = None
    for number, shard in enumerate(store.shards):
        try:
            with pq.ParquetFile(_file(shard)) as file:
                own = image_columns(file.schema_arrow, image, label)
                if own is None or (columns is not None and own != columns):
                    raise UserError(f"{shard.name} has not the columns of images and labels of the files before it")
                columns = own
                store.add(number, file, own)
                labels.append(_labels(file, own))
                images.append(_paths(file, own))
        except DAMAGED as error:
            raise UserError(f"{shard.name} cannot be read: {_line(error)}") from None
    if columns is None or not len(store):
        raise UserError(f"{name} holds no images")
    names = pa.concat_arrays(images)
    if names.null_count or pc.count_distinct(names).as_py() < len(names):  # the names say too little
        names = pa.array(np.arange(len(names)).astype("S"), pa.large_binary())
    given: Labels | None = read_labels([one for some in labels for one in some]) if columns.label else None
    files = Files.of_store(name, names, store, given if given is not None and given.classes else None)
    files.notes = (
        f"{name}: {len(store):,} images in {len(store.groups):,} row groups, which are read whole: the order is "
        f"shuffled in blocks of {store.block:,} images",
    )
    return files


class ParquetStore:
    """A `Store` of images in row groups, of which a few are in memory; any number of threads share them."""

    block = 1

    def __init__(self, shards: Sequence[Object]) -> None:
        self.shards = shards
        self.groups: list[tuple[int, int, str]] = []  # shard, number in it, column
        self.starts = np.zeros(1, np.int64)
        self._held: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "row groups")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def add(self, number: int, file: pq.ParquetFile, columns: Columns) -> None:
        """Add the row groups of the next shard. Raises `UserError` for one that would fill the memory."""
        rows: list[int] = []
        for group in range(file.metadata.num_row_groups):
            about = file.metadata.row_group(group)
            if about.total_byte_size > HELD:
                raise UserError(
                    f"{self.shards[number].name} has a row group of {about.total_byte_size / 2**30:.1f} GiB, which is "
                    "read whole for each of its images: write it with smaller row groups"
                )
            self.groups.append((number, group, columns.image))
            rows.append(about.num_rows)
        self.starts = np.concatenate([self.starts, self.starts[-1] + np.cumsum(rows, dtype=np.int64)])
        self.block = max(1, int(np.median(np.diff(self.starts)))) if self.groups else 1

    def read(self, place: int) -> bytes:
        """Return the bytes of an image, or raise `Broken`."""
        group = int(np.searchsorted(self.starts, place, "right")) - 1
        value = self._group(group)[place - int(self.starts[group])].as_py()
        if not isinstance(value, bytes):
            raise Broken("no bytes of an image in its row (a path alone is not followed)")
        return value

    def prefetch(self, places: NDArray[np.int64]) -> None:
        """Begin to read row groups that are not in memory."""
        for group in np.unique(np.searchsorted(self.starts, places, "right") - 1).tolist():
            with self._lock:
                held = group in self._held
            if not held:
                self._pool.submit(self._group, group)

    def _group(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            if group in self._held:
                self._held.move_to_end(group)
                return self._held[group]
        with self._turn:  # what several threads want is read once
            with self._lock:
                if group in self._held:
                    return self._held[group]
            found = self._read(*self.groups[group])
            with self._lock:
                self._held[group] = found
                while len(self._held) > 1 and sum(one.nbytes for one in self._held.values()) > HELD:
                    self._held.popitem(last=False)
        return found

    def _read(self, shard: int, group: int, column: str) -> pa.ChunkedArray:
        try:
            with pq.ParquetFile(_file(self.shards[shard])) as file:
                found = file.read_row_group(group, columns=[column]).column(0)
        except (*DAMAGED, UserError) as error:
            raise Broken(f"its row group cannot be read: {_line(error)}") from None
        return pc.struct_field(found, "bytes") if pa.types.is_struct(found.type) else found


def _file(shard: Object) -> Any:
    """Return what pyarrow reads a shard from; raise `Broken` for one here that has changed."""
    if shard.far:
        return pa.PythonFile(shard.open(), mode="r")
    if open_object_at(shard.name).state != shard.state:
        raise Broken(CHANGED)
    return shard.name


def _labels(file: pq.ParquetFile, columns: Columns) -> Iterable[Any]:
    """Return the labels of a file, by the names of their classes where it has them."""
    if not columns.label:
        return []
    values = file.read(columns=[columns.label]).column(0).to_pylist()
    if not columns.names:
        return values
    known = range(len(columns.names))
    return [columns.names[one] if isinstance(one, int) and one in known else None for one in values]


def _paths(file: pq.ParquetFile, columns: Columns) -> pa.Array:
    """Return the paths that a file has of its images, null where it has none."""
    rows = file.metadata.num_rows
    arrow_type = file.schema_arrow.field(columns.image).type
    if pa.types.is_struct(arrow_type) and arrow_type.get_field_index("path") >= 0:
        found = pc.struct_field(file.read(columns=[f"{columns.image}.path"]).column(0), "path")
        return (
            pa.chunked_array(found).cast(pa.large_binary()).combine_chunks() if rows else pa.array([], "large_binary")
        )
    return pa.nulls(rows, pa.large_binary())


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
