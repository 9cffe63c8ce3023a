"""`search`: the nearest items of an embedding file. Imports torch only when it is called."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.printing import Printable
from selfsup.errors import RunFailed, UserError
from selfsup.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup.data.vectors import VectorFile

    Embeddings = str | os.PathLike[str]
    Query = str | os.PathLike[str] | int
    RunName = str | os.PathLike[str] | Run
    Target = str | os.PathLike[str]
else:
    Embeddings = Query = RunName = Target = str  # what the command line can give

COLUMNS = 6  # of the contact sheet


@dataclass(frozen=True)
class Neighbour:
    """A row of the embedding file and its cosine similarity to the query."""

    row: int
    path: str
    label: str | None
    similarity: float


@dataclass(frozen=True)
class Found(Printable):
    """The nearest items of a query, nearest first; `sheet` is the image that shows them, if one was asked for."""

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


def search(
    embeddings: Embeddings,
    query: Query,
    /,
    *,
    k: int = 10,
    run: RunName | None = None,
    data: str | None = None,
    out: Target | None = None,
    device: str = "auto",
) -> Found:
    """Find the items that are nearest to a query, by cosine similarity.

    The file is read in batches, so memory does not grow with it; every item is compared.

    Args:
        embeddings: A file that `selfsup embed` wrote.
        query: The number of a row, a path in the file (both without the item itself in the answer), or what the encoder
            takes: an image file; of texts a sentence or a .txt file.
        k: How many items.
        run: The run folder that embeds the image; by default the one that the file names.
        data: Where the images of the contact sheet are; by default the data that the file names.
        out: A contact sheet to write (.png, .jpg or .webp): the query, then the items.
        device: auto, cpu, cuda or mps; for embedding the image.

    Raises:
        UserError: For a file that is none of `embed`, a query that is not there or not readable, a run that does not
            fit the file.
        RunFailed: If the contact sheet cannot be written.
    """
    from selfsup.data.vectors import VectorFile

    check_numbers(k=k)
    path = None if out is None else _sheet_path(Path(out))
    file = VectorFile(embeddings)
    name = os.fspath(query) if not isinstance(query, int) else str(query)
    row = _row(file, name)
    vector = file.take([row])[0] if row is not None else _embed(file, name, run, device)
    rows, similarities = nearest(file, vector, k, row)
    found = tuple(
        Neighbour(int(number), item, label, float(similarity))
        for number, similarity, (item, label) in zip(rows, similarities, file.names(rows), strict=True)
    )
    shown = _short(name) if row is None else f"row {row}: {file.names([row])[0][0]}"
    if path is None:
        return Found(shown, found)
    return Found(shown, found, path, _draw(path, file, name, row, found, data))


def nearest(
    file: VectorFile, vector: NDArray[np.float32], k: int, without: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows (k,) whose vectors have the largest cosine with `vector` (dim,), and the cosines (k,).

    Ties go to the smaller row; `without` is left out. Raises `UserError` for a query vector without a direction.
    """
    import numpy as np

    norm = np.linalg.norm(vector)
    if not (np.isfinite(norm) and norm > 0):
        raise UserError(
            "the query's vector is zero or not finite, so nothing is near it; the encoder may have diverged"
        )
    best_rows, best = np.empty(0, np.int64), np.empty(0, np.float32)
    for start, x in file.vectors():
        cosine = (x @ (vector / norm)) / np.maximum(np.linalg.norm(x, axis=1), 1e-12)
        if without is not None and start <= without < start + len(x):
            cosine[without - start] = -np.inf
        rows = np.concatenate([best_rows, np.arange(start, start + len(x))])
        cosine = np.concatenate([best, cosine])
        order = np.argsort(-cosine, kind="stable")[: min(k, len(file) - (without is not None))]
        best_rows, best = rows[order], cosine[order]
    return best_rows, best


def _short(text: str) -> str:
    """Return a query in one line of a title."""
    line = " ".join(text.split())
    return line if len(line) <= 80 or os.path.isfile(text) else line[:80] + " …"


def _row(file: VectorFile, query: str) -> int | None:
    """Return the row that a query names, None for a sample of its own."""
    if query.isdecimal():
        if int(query) >= len(file):
            raise UserError(f"{file.path} has the rows 0 to {len(file) - 1}, no row {query}")
        return int(query)
    return file.find(query)


def _embed(file: VectorFile, image: str, run: str | os.PathLike[str] | Run | None, device: str) -> NDArray[np.float32]:
    from selfsup.data import open_query
    from selfsup.evaluation.features import extract
    from selfsup.train.device import make_fabric

    if run is None and "run" not in file.about:
        raise UserError(
            f"{image!r} is no row number, no path in {file.path}, and that does not say which run wrote it: give "
            "--run RUN to embed something new"
        )
    try:
        run = run if isinstance(run, Run) else Run(file.about["run"] if run is None else run)
        encoder: Any = run.load()
    except UserError as error:
        raise UserError(f"{error}; give the run that embeds {image!r} with --run") from None
    if int(encoder.dim) != file.dim:
        raise UserError(f"{run.folder} gives vectors of {encoder.dim} numbers, {file.path} holds vectors of {file.dim}")
    source = open_query(run.spec.kind, image)
    return extract(encoder, source, run.spec, make_fabric(device, "float32").device)[1][0]


def _sheet_path(path: Path) -> Path:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--out must end in .png, .jpg or .webp, not {path.name!r}")
    check_new_file(path)
    return path


def _draw(
    path: Path, file: VectorFile, query: str, row: int | None, found: tuple[Neighbour, ...], data: str | None
) -> int:
    """Write the contact sheet, of images or texts, and return how many are missing on it."""
    from PIL import Image

    from selfsup.reports.finding import find_samples
    from selfsup.reports.sheets import SIDE, draw_panels, draw_sheet
    from selfsup.task import Panel

    where = data or file.about.get("data")
    if where is None:
        raise UserError(f"{file.path} does not say where the images are: give --data")
    try:
        asked: list[Image.Image | str | None] = []
        wanted = [item.path for item in found]
        if row is not None:
            wanted.insert(0, file.names([row])[0][0])
        elif os.path.isfile(query):
            folder, name = os.path.split(os.path.abspath(query))
            asked = find_samples(folder, [name], SIDE)
        else:
            asked = [query]
        samples = asked + find_samples(where, wanted, SIDE)
    except UserError as error:
        raise UserError(f"{error}; give --data with what was embedded") from None
    if not any(samples[1:]):
        raise UserError(f"none of the samples is in {where!r}: give --data with what was embedded")
    captions = ["query", *(f"{item.similarity:.3f} {item.label or item.path}" for item in found)]
    shown = list(zip(samples, captions, strict=True))
    if any(isinstance(sample, str) for sample in samples):
        sheet = draw_panels([[Panel(str(sample or "(not found)"), caption)] for sample, caption in shown], None)
    else:
        blank = Image.new("RGB", (SIDE, SIDE), "lightgrey")
        cells = [(sample if isinstance(sample, Image.Image) else blank, caption) for sample, caption in shown]
        sheet = draw_sheet([cells[at : at + COLUMNS] for at in range(0, len(cells), COLUMNS)])
    try:
        sheet.save(path)
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror}") from error
    return samples.count(None)
