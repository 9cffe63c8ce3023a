"""Images in a column of a Lance dataset (extra `lance`): rows are taken by number, many in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data.image import Files
from selfsup.data.label_values import read_labels
from selfsup.data.shards.ahead import Ahead
from selfsup.data.shards.parquet import image_columns
from selfsup.errors import RunFailed, UserError, need
from selfsup.source import Broken

SUFFIX = ".lance"
ROWS, THREADS = 32, 4  # that are taken in one batch; batches at a time


def open_lance(name: str) -> Files:
    """Return the images of a Lance dataset, with the labels in its column `label`.

    Raises `UserError` for what is not one, and for one without images.
    """
    lance: Any = need("lance", "lance")
    try:
        found = lance.dataset(name)
        columns = image_columns(found.schema)
        rows = found.count_rows()
        if columns is None or not rows:
            raise UserError(f"{name} holds no images: give a column `image` of the bytes of their files")
        labels = read_labels(found.to_table(columns=[columns.label]).column(0).to_pylist()) if columns.label else None
        named = "path" in found.schema.names
        paths = found.to_table(columns=["path"]).column(0).cast(pa.large_binary()).combine_chunks() if named else None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{name} is not a Lance dataset that can be read: {_line(error)}") from None
    if paths is None or paths.null_count:
        paths = pa.array(np.arange(rows).astype("S"), pa.large_binary())
    store = LanceStore(found, columns.image)
    return Files.of_store(name, paths, store, labels if labels is not None and labels.classes else None)


class LanceStore:
    """A `Store` of images in the version of a Lance dataset that was opened. Lance has threads, so nothing may fork."""

    block = 1

    def __init__(self, found: Any, column: str) -> None:
        self.found, self.column = found, column
        some = [len(one) for one in self._taken(range(min(8, found.count_rows()))) if one is not None]
        mean = sum(some) // max(len(some), 1)
        self._ahead = Ahead(self._several, lambda place: mean, THREADS)

    def read(self, place: int) -> bytes:
        """Return the bytes of an image, which was taken ahead or is taken now; or raise `Broken`."""
        data = self._ahead.take(place)
        if data is None:
            data = self._several([place])[place]
        if data is None:
            raise Broken("no bytes of an image in its row")
        return data

    def prefetch(self, places: NDArray[np.int64]) -> None:
        """Begin to take rows, in batches, and return at once."""
        self._ahead.begin(places.tolist(), _batches)

    def _several(self, places: Sequence[int]) -> dict[int, bytes]:
        return dict(zip(places, self._taken(places), strict=True))

    def _taken(self, places: Sequence[int]) -> list[Any]:
        try:
            column = self.found.take(list(places), columns=[self.column]).column(0)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise RunFailed(f"{self.found.uri} cannot be read: {_line(error)}; start again to resume") from None
        values = column.to_pylist()
        return [value["bytes"] if isinstance(value, dict) else value for value in values]


def _batches(places: list[int]) -> Iterator[list[int]]:
    places = sorted(places)
    for start in range(0, len(places), ROWS):
        yield places[start : start + ROWS]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
