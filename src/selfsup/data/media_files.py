"""What sources of videos and of sounds share: files below a folder, with labels of each and inside of them."""

from __future__ import annotations

import copy
import os
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.source import Annotations, Labels, source_repr


class MediaFiles:
    """Files below `root`: raw paths in one Arrow array, with their labels; `frame_labels` are those inside."""

    __repr__ = source_repr

    def __init__(
        self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.root, self.paths, self.labels = os.fsencode(root), paths.cast(pa.large_binary()), labels
        self.name, self.notes = name or root, notes
        self.frame_labels: Annotations | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> bytes:
        """Return the whole path of a file."""
        return os.path.join(self.root, self.paths[index].as_py())

    def path(self, index: int) -> str:
        """Return the path relative to the root; other bytes as surrogate escapes."""
        return os.fsdecode(self.paths[index].as_py())

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Return some of the files."""
        taken = copy.copy(self)
        taken.paths = self.paths.take(pa.array(indices))
        taken.labels = self.labels and self.labels.take(indices)
        taken.frame_labels = self.frame_labels and self.frame_labels.take(indices)
        return taken

    @classmethod
    def of_query(cls, query: object, noun: str) -> Self:
        """Return the one file of that name; `UserError` for none. `noun`: what it is."""
        if not isinstance(query, str | os.PathLike):
            raise UserError(f"the query must be the path of a {noun}, not {type(query).__name__}")
        name = os.path.expanduser(os.fspath(query))
        if not os.path.exists(name):
            raise UserError(f"no such {noun}: {name!r}")
        folder, last = os.path.split(os.path.abspath(name))
        return cls(folder, pa.array([os.fsencode(last)], pa.large_binary()), name="query")
