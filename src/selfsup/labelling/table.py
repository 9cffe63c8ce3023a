"""The CSV files of labelling: columns path, label and others, which `--labels` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfsup.base.writing import whole_file


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file whole, with the bytes of paths that are not UTF-8 as they are. Raises `RunFailed`."""
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        text.flush()
        text.detach()
