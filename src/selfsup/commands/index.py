"""`index`: what finds the nearest of very many embeddings. Imports torch only when it is called."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfsup.base.checks import check_new_folder, check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Embeddings, Target


@dataclass(frozen=True, repr=False)
class Indexed(Printable):
    """The index at `path`; `finished` is false while other processes are adding parts.

    `recall_at_10` is that of `held_out` rows against exact search (1 for an exact index), with `probe` of `lists` lists
    read; `zeros` vectors are zero and near to nothing.
    """

    path: Path
    rows: int
    dim: int
    finished: bool
    approximate: bool
    lists: int = 0
    probe: int = 0
    recall_at_10: float | None = None
    held_out: int = 0
    bytes_in_memory: float = 0.0
    bytes_on_disk: float = 0.0
    zeros: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self) | {"path": str(self.path)}

    def __rich__(self) -> str:
        text = f"{self.path}: {self.rows:,} rows of {self.dim} numbers, "
        if not self.finished:
            return (
                f"{text}not finished: other processes are adding the rest, and the last one finishes; if one of them "
                "was killed, give the same command again"
            )
        if self.approximate:
            text += (
                f"{min(self.probe, self.lists):,} of {self.lists:,} lists read for a query: recall@10 "
                f"{self.recall_at_10:.3f} on {self.held_out} held-out rows; bytes a vector: {self.bytes_in_memory:g} "
                f"in memory, {self.bytes_on_disk:g} on the disk"
            )
        else:
            text += f"searched exactly; bytes a vector: {self.bytes_on_disk:g} on the disk"
        return text + (f"\n{self.zeros:,} vectors are zero, and near to nothing" if self.zeros else "")


def index(
    embeddings: Embeddings,
    /,
    *,
    out: Target = "index",
    approximate: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> Indexed:
    """Make an index of embeddings, which `search`, `explore` and `curate` take in their place.

    Up to 10 million vectors are searched exactly. Beyond that, an inverted file with product quantization finds
    candidates (faiss, the extra `faiss`), which are ranked by their own vectors; recall@10 is measured on held-out
    rows. Any number of machines that share the folder may give the same command: one trains, each adds parts that
    nobody else has begun, and the last one merges. A killed one is replaced by giving the command again.

    Args:
        embeddings: A file that `selfsup embed` wrote, or a folder of such parts.
        out: The folder to write.
        approximate: Make an approximate index also of fewer vectors, from 20,000 on.
        seed: Draws the rows to train with and to measure recall.
        quiet: Hide progress.

    Raises:
        UserError: For embeddings that cannot be read or have changed, or a folder that holds another index.
        RunFailed: If the folder cannot be written.
    """
    from selfsup.base.progress import counting
    from selfsup.data.vectors import Vectors
    from selfsup.neighbours.build import build, plan

    check_numbers(seed=seed)
    folder = user_path(out)
    check_new_folder(folder)
    vectors = Vectors(embeddings)
    planned = plan(vectors, folder, approximate, seed)
    with counting("indexing", len(vectors), quiet) as advance:
        made = build(vectors, folder, planned, advance)
    about = planned if made is None else made.about
    told = {key: about[key] for key in Indexed.__dataclass_fields__ if key in about}
    return Indexed(path=folder, finished=made is not None, **told)
