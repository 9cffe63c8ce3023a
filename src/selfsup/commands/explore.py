"""`explore`: the map of an embedding file in a browser. Imports torch only when it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.printing import Printable
from selfsup.errors import RunFailed, UserError

if TYPE_CHECKING:
    from selfsup.data.vectors import VectorFile
    from selfsup.reports.items import Items

    Embeddings = str | os.PathLike[str]
    Target = str | os.PathLike[str]
else:
    Embeddings = Target = str  # what the command line can give


@dataclass(frozen=True)
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


def explore(
    embeddings: Embeddings, /, *, out: Target | None = None, data: str | None = None, seed: int = 0
) -> Explored | None:
    """Open the map of an embedding file in a browser.

    Where embedding-atlas is installed (the extra `explore`) it serves every row until it is stopped. Where it is not,
    or with -o, a page with a map of up to 2,000 rows is written, which needs no server and no network.

    Args:
        embeddings: A file that `selfsup embed` wrote.
        out: The page to write; explore.html where embedding-atlas is not installed.
        data: Where the samples are that the page shows; by default the data that the file names.
        seed: Which rows the page shows.

    Raises:
        UserError: For a file that is none of `embed`.
        RunFailed: If the page cannot be written, or embedding-atlas fails.
    """
    from selfsup.base.writing import write_atomically
    from selfsup.data.vectors import VectorFile
    from selfsup.reports.embedding_map import draw_map, layout
    from selfsup.reports.page import Section, join, page, tag

    check_numbers(seed=seed)
    file = VectorFile(embeddings)
    if out is None and find_spec("embedding_atlas") is not None:
        _serve(file.path)
        return None
    path = Path(out) if out is not None else Path("explore.html")
    check_new_file(path)
    items, missing = _items(file, data, seed)
    about = ", ".join(f"{key} {text}" for key, text in file.about.items())
    words = f"{len(items):,} of {len(file):,} rows of {file.path.name}, placed by t-SNE: near means alike. {about}"
    body = join([tag("p", missing) if missing else "", draw_map(items, layout(items.features, seed))])
    write_atomically(path, page(file.path.name, tag("p", words), [Section("map", "Map", body)], contents=False))
    note = "" if out is not None else "with every row, in embedding-atlas: pip install 'selfsup[explore]'"
    return Explored(path, len(items), len(file), "\n".join(filter(None, [missing, note])))


def _serve(path: Path) -> None:
    """Run embedding-atlas, which computes its own layout and prints the address, until it is stopped."""
    command = [sys.executable, "-m", "embedding_atlas.cli", str(path.absolute()), "--vector", "vector"]
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return
    if status > 0:
        raise RunFailed(
            f"embedding-atlas ended with status {status}; with -o explore.html a page is written without it"
        )


def _items(file: VectorFile, data: str | None, seed: int) -> tuple[Items, str]:
    """Return random rows with their samples, and what to say where there are none."""
    import numpy as np

    from selfsup.reports.finding import find_samples
    from selfsup.reports.items import MOST, SIDE, Items
    from selfsup.source import Labels

    rows = np.arange(len(file))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    paths, names = zip(*file.names(rows), strict=True)
    labels = Labels.of(list(names))
    where, missing = data or file.about.get("data"), ""
    found: list[Any] = [None] * len(rows)
    try:
        if where:
            found = find_samples(where, paths, SIDE)
    except UserError:
        if data is not None:
            raise
    if not any(found):
        if data is not None:
            raise UserError(f"none of the samples is in {data!r}: give --data with what was embedded")
        missing = "The samples were not found: give --data with what was embedded."
    images = [None if isinstance(sample, str) else sample for sample in found]
    words = [sample if isinstance(sample, str) else "" for sample in found]
    return Items(file.take(rows), images, words, list(paths), labels.ids, labels.classes, len(file)), missing
