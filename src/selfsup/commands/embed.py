"""`embed`: one row an item: path, label if any, vector. Imports torch only when it is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.run import Run

if TYPE_CHECKING:
    from selfsup.data.labels import LabelsGiven
    from selfsup.data.open import DataGiven

    RunName = str | os.PathLike[str] | Run
    Data = DataGiven
    Target = str | os.PathLike[str]
else:
    RunName = Data = Target = LabelsGiven = str  # what the command line can give


@dataclass(frozen=True)
class Embedded(Printable):
    """The file that `embed` wrote: `rows` vectors of `dim` numbers at `path`; `skipped` samples could not be read."""

    path: Path
    rows: int
    dim: int
    skipped: int

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "rows": self.rows, "dim": self.dim, "skipped": self.skipped}

    def __rich__(self) -> str:
        skipped = f"; {self.skipped:,} could not be read" if self.skipped else ""
        return f"{self.path}: {self.rows:,} rows of {self.dim} numbers{skipped}"


def embed(
    run: RunName,
    data: Data,
    /,
    *,
    out: Target = "embeddings.parquet",
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Embedded:
    """Write the representation of every sample to a Parquet file: path, label (null for none), vector (float32).

    The file is written aside and renamed when it is complete. Rows are in the order of the data, and memory does not
    grow with their number.

    Args:
        run: A run folder.
        data: A folder of images, a list file, an .npz file, a name or an array.
        out: The file to write.
        labels: 'folders', a CSV file (path,label) or an .npz file with y.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        device: auto, cpu, cuda or mps.
        quiet: Hide progress.

    Raises:
        UserError: For a folder that is not a finished run, or data that cannot be opened.
        RunFailed: If the file cannot be written.
    """
    from selfsup.base.progress import counting
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.data.vectors import write_vectors
    from selfsup.evaluation.features import feature_batches
    from selfsup.train.device import make_fabric

    run, path = run if isinstance(run, Run) else Run(run), user_path(out)
    check_new_file(path)
    encoder: Any = run.load()
    source, dim = open_data(data, *name_columns(columns, labels)), int(encoder.dim)
    about = {"run": str(run.folder), "task": run.task, "encoder": run.encoder_name, "data": source.name}
    batches = feature_batches(encoder, source, run.spec, device=make_fabric(device, "float32").device)
    with counting("embedding", len(source), quiet) as advance:
        rows = write_vectors(path, source, dim, batches, about, advance)
    return Embedded(path, rows, dim, len(source) - rows)
