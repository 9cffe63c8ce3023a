"""The map of an embedding file: as one page, or served by embedding-atlas."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.base.printing import Printable
from selfsup.base.writing import write_atomically
from selfsup.data.vectors import Vectors
from selfsup.errors import RunFailed, UserError
from selfsup.reports import items as sampling
from selfsup.reports.embedding_map import TILE, draw_map, layout
from selfsup.reports.finding import find_samples
from selfsup.reports.items import CLIP_FRAMES, Items
from selfsup.reports.media import spectrogram
from selfsup.reports.page import Section, join, page, tag
from selfsup.source import Labels
from selfsup.spec import Waveform


@dataclass(frozen=True, repr=False)
class Explored(Printable):
    """The page that was written, with how many of the file's rows."""

    path: Path
    shown: int
    rows: int
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "shown": self.shown, "rows": self.rows, "note": self.note}

    def __rich__(self) -> str:
        some = "all" if self.shown == self.rows else f"{self.shown:,} random ones of"
        return f"{self.path}: a map of {some} {self.rows:,} rows, opens in any browser\n{self.note}".rstrip()


def write_map(file: Vectors, path: Path, data: str | None, seed: int) -> Explored:
    """Write the page with the map of up to 2,000 rows of a file."""
    items, missing = _items(file, data, seed)
    about = ", ".join(f"{key} {text}" for key, text in file.about.items())
    words = (
        f"{len(items):,} of {len(file):,} rows of {file.path.name}, placed by t-SNE: similar ones are close. {about}"
    )
    body = join([tag("p", missing) if missing else "", draw_map(items, layout(items.features, seed))])
    write_atomically(path, page(file.path.name, tag("p", words), [Section("map", "Map", body)], contents=False))
    return Explored(path, len(items), len(file), missing)


def serve_map(file: Vectors) -> None:
    """Run embedding-atlas, which computes its own layout and prints the address, until it is stopped."""
    command = [
        sys.executable,
        "-m",
        "embedding_atlas.cli",
        *(str(path.absolute()) for path in file.files),
        "--vector",
        "vector",
    ]
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return
    if status > 0:
        raise RunFailed(
            f"embedding-atlas ended with status {status}; with -o explore.html a page is written without it"
        )


def _items(file: Vectors, data: str | None, seed: int) -> tuple[Items, str]:
    """Return random rows with their samples, and a note if there are none."""
    rows = np.arange(len(file))
    if len(rows) > sampling.MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, sampling.MOST, replace=False))
    paths, names = zip(*file.names(rows), strict=True)
    labels = Labels.of(list(names))
    where, missing = data or file.about.get("data"), ""
    found: list[Any] = [None] * len(rows)
    try:
        if where:
            found = find_samples(where, paths, TILE, CLIP_FRAMES)
    except UserError:
        if data is not None:
            raise
    if not any(found):
        if data is not None:
            raise UserError(f"none of the samples is in {data!r}: give --data with what was embedded")
        missing = "The samples were not found: give --data with what was embedded."
    seen = [spectrogram(sample) if isinstance(sample, Waveform) else sample for sample in found]
    images = [None if isinstance(sample, str) else sample for sample in seen]
    words = [sample if isinstance(sample, str) else "" for sample in found]
    return Items(file.take(rows), images, words, list(paths), labels.ids, labels.classes, len(file)), missing
