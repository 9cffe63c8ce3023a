"""`embed`: one row an item: path, label if any, vector. Imports torch only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file, check_new_folder
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, LabelsGiven, RunName, Target
from selfsup.errors import UserError
from selfsup.run import Run

if TYPE_CHECKING:
    from selfsup.evaluation.embedding import Embedded


def embed(
    run: RunName,
    data: Data,
    /,
    *,
    out: Target | None = None,
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    shard: str | None = None,
    unite: Target | None = None,
    ray: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Embedded:
    """Write the representation of every sample to a Parquet file: path, label (null for none), vector (float32).

    The file is written aside and renamed when it is complete. Rows are in the order of the data, and memory does not
    grow with their number.

    Many workers write parts: each gets a --shard of its own, 0/16 to 15/16, and the same folder. A part that exists is
    not made again, so a worker that was killed is simply started again; --unite then writes the parts into one file,
    with the very bytes that one worker would have written.

    Args:
        run: A run folder.
        data: A folder of images, a list file, an .npz file, a name or an array.
        out: The file to write, or of parts the folder; embeddings.parquet or embeddings by default.
        labels: 'folders', a CSV file (path,label) or an .npz file with y.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        shard: Write one part of the rows, i/n with i from 0 to n - 1, into a folder.
        unite: A folder with all parts, to be written into one file.
        ray: Write all parts into a folder on a Ray cluster: its address, auto for the one of this machine, or local to
            start one here. Data and folder are where all its machines find them under the same path.
        device: auto, cpu, cuda or mps.
        quiet: Hide progress.

    Raises:
        UserError: For a folder that is not a finished run, data that cannot be opened, or parts of another run or of
            other data.
        RunFailed: If the file cannot be written.
    """
    from selfsup.base.progress import counting
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.data.vectors import write_vectors
    from selfsup.evaluation import embedding, on_ray
    from selfsup.evaluation.features import feature_batches
    from selfsup.train.device import make_fabric

    if sum(one is not None for one in (shard, unite, ray)) > 1:
        raise UserError("--shard writes a part, --ray all of them, and --unite puts them together: give one of these")
    part = None if shard is None else embedding.Shard.read(shard)
    run = run if isinstance(run, Run) else Run(run)
    path = user_path(out if out is not None else "embeddings" if shard or ray else "embeddings.parquet")
    if not (shard or ray):
        check_new_file(path)
    elif path.suffix == ".parquet":
        raise UserError(f"parts are files of their own in a folder: give one as --out, not {path.name}")
    else:
        check_new_folder(path)
    encoder: Any = run.load()
    (labels,) = name_columns(columns, labels)
    source, dim = open_data(data, labels), int(encoder.dim)
    about, on = embedding.about_of(run, source), make_fabric(device, "float32").device
    with counting("embedding", len(part.rows(len(source)) if part else source), quiet) as advance:
        if ray is not None:
            return on_ray.embed_on_ray(ray, run, source, data, labels, path, dim, about, device, advance)
        if unite is not None:
            return embedding.unite(user_path(unite, "--unite"), path, dim, source, about, advance)
        if part is not None:
            return embedding.write_part(path, part, encoder, source, run, about, on, advance)
        batches = feature_batches(encoder, source, run.spec, device=on)
        rows = write_vectors(path, source, dim, batches, about, advance)
    return embedding.Embedded(path, rows, dim, len(source) - rows)
