"""The CSV files of labelling: columns path, label and others, which `--labels` reads."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfsup.base.writing import whole_file
from selfsup.errors import UserError


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file whole, with the bytes of paths that are not UTF-8 as they are. Raises `RunFailed`."""
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        text.detach()


def check_nothing_lost(path: Path, labels: str | None) -> None:
    """Raise `UserError` if a file that would be written over holds labels by hand, and is not the one in `labels`.

    What `label` wrote has a column `status`, and can be written again.
    """
    if not path.exists() or (labels is not None and os.path.exists(labels) and os.path.samefile(path, labels)):
        return
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            rows = csv.DictReader(file)
            filled = "status" not in (rows.fieldnames or ()) and any(row.get("label") for row in rows)
        except csv.Error:
            filled = False
    if filled:
        raise UserError(f"{path} holds labels that would be lost: give it as --labels, or give another --out")


def printable(path: str) -> str:
    """Return a path as text that can be encoded: bytes that are not UTF-8 are shown as \\x and two digits."""
    return os.fsencode(path).decode(errors="backslashreplace")
