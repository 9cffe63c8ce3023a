"""The nearest items of an embedding file: the query, the answer, and the contact sheet that shows it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from selfsup.base.notes import say
from selfsup.base.printing import Printable
from selfsup.data.kinds import open_query
from selfsup.data.vectors import Vectors
from selfsup.errors import UserError
from selfsup.evaluation.features import extract
from selfsup.neighbours.index import Index, nearest
from selfsup.reports.finding import Sample, find_samples, read_sample
from selfsup.reports.sheets import SIDE, save_sheet
from selfsup.run import Run
from selfsup.train.device import make_fabric

COLUMNS = 6  # of the contact sheet


@dataclass(frozen=True)
class Neighbour:
    """A row of the embedding file and its cosine similarity to the query."""

    row: int
    path: str
    label: str | None
    similarity: float


@dataclass(frozen=True, repr=False)
class Found(Printable):
    """The nearest items of a query, nearest first; `sheet` is the contact sheet, if one was written."""

    query: str
    neighbours: tuple[Neighbour, ...]
    sheet: Path | None = None
    missing: int = 0  # images that the sheet could not show

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self) | {"sheet": None if self.sheet is None else str(self.sheet)}

    def __rich__(self) -> Table:
        table = Table(title=Text(f"nearest to {self.query}"), title_justify="left")
        table.add_column("row", justify="right")
        table.add_column("path", overflow="fold")
        table.add_column("label")
        table.add_column("similarity", justify="right")
        for item in self.neighbours:
            table.add_row(str(item.row), Text(item.path), Text(item.label or ""), f"{item.similarity:.4f}")
        if self.sheet:
            absent = f"; {self.missing} of the images could not be found" if self.missing else ""
            table.caption = Text(f"{self.sheet}{absent}")
        return table


def find_nearest(
    file: Vectors, where: Vectors | Index, query: Any, k: int, run: str | os.PathLike[str] | Run | None, device: str
) -> Found:
    """Return the rows of a file, or of its index, nearest to a query: a row number, a path, or what the encoder takes.

    Raises `UserError` for a query that is not there or not readable, and for a run that does not fit the file.
    """
    row = find_row(file, query)
    vector = file.take([row])[0] if row is not None else _embed(file, query, run, device)
    rows, similarities = nearest(where, vector, k, row)
    if len(rows) < min(k, len(file) - (row is not None)):
        say(f"the index found {len(rows):,} of {k:,}; the embeddings themselves find all")
    neighbours = tuple(
        Neighbour(int(number), path, label, float(similarity))
        for number, similarity, (path, label) in zip(rows, similarities, file.names(rows), strict=True)
    )
    return Found(_short(query) if row is None else f"row {row}: {file.names([row])[0][0]}", neighbours)


def _short(query: Any) -> str:
    """Return a query in one line of a title."""
    text = query if isinstance(query, str) else f"the {type(query).__name__}"
    line = " ".join(text.split())
    return line if len(line) <= 80 or os.path.isfile(text) else line[:80] + " …"


def find_row(file: Vectors, query: Any) -> int | None:
    """Return the row that a query names, None for a sample of its own."""
    if not isinstance(query, str):
        return None
    if query.isdecimal():
        if int(query) >= len(file):
            raise UserError(f"{file.path} has the rows 0 to {len(file) - 1}, not row {query}")
        return int(query)
    return file.find(query)


def _embed(file: Vectors, query: Any, run: str | os.PathLike[str] | Run | None, device: str) -> NDArray[np.float32]:
    if run is None and "run" not in file.about:
        raise UserError(
            f"{_short(query)!r} is neither a row number nor a path in {file.path}, which does not say which run wrote "
            "it: give --run RUN to embed something new"
        )
    try:
        run = run if isinstance(run, Run) else Run(file.about["run"] if run is None else run)
        encoder: Any = run.load()
    except UserError as error:
        raise UserError(f"{error}; give the run that embeds {_short(query)!r} with --run") from None
    if int(encoder.dim) != file.dim:
        raise UserError(f"{run.folder} gives vectors of {encoder.dim} numbers, {file.path} holds vectors of {file.dim}")
    if file.about.get("weights", run.weights_digest()) != run.weights_digest():
        raise UserError(
            f"{file.path} holds vectors of another encoder than that of {run.folder}, which cannot be compared: give "
            "--run of the one that wrote it, or embed the data again"
        )
    source = open_query(run.spec.kind, query)
    return extract(encoder, source, run.spec, make_fabric(device, "float32").device)[1][0]


def write_sheet(path: Path, file: Vectors, query: Any, found: Found, data: str | None) -> Found:
    """Write the contact sheet, of images or texts: the query, then what was found."""
    row, neighbours = find_row(file, query), found.neighbours
    where = data or file.about.get("data")
    if where is None:
        raise UserError(f"{file.path} does not say where the images are: give --data")
    try:
        shown_query: list[Sample | None] = []
        wanted = [item.path for item in neighbours]
        if row is not None:
            wanted.insert(0, file.names([row])[0][0])
        elif not isinstance(query, str):
            shown_query = [read_sample(open_query("image", query), 0, SIDE)]
        elif os.path.isfile(query):
            folder, name = os.path.split(os.path.abspath(query))
            shown_query = find_samples(folder, [name], SIDE)
        else:
            shown_query = [query]
        samples = shown_query + find_samples(where, wanted, SIDE)
    except UserError as error:
        raise UserError(f"{error}; give --data with what was embedded") from None
    if not any(samples[1:]):
        raise UserError(f"none of the samples is in {where!r}: give --data with what was embedded")
    captions = ["query", *(f"{item.similarity:.3f} {item.label or item.path}" for item in neighbours)]
    save_sheet(list(zip(samples, captions, strict=True)), path, COLUMNS, "(not found)")
    return replace(found, sheet=path, missing=samples.count(None))
