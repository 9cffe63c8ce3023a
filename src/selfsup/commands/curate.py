"""`curate`: a balanced subset of a very large pool, without near copies. Imports torch only when it is called."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Embeddings, Target
from selfsup.errors import UserError

if TYPE_CHECKING:
    from selfsup.data.vectors import Vectors

CLUSTERS, PER_CLUSTER = 4096, 10  # by default at most so many, of at least so many rows
LINES = 1 << 16  # paths in memory


@dataclass(frozen=True, repr=False)
class Curated(Printable):
    """The list of `chosen` paths at `path`, of `rows`: after `copies` of `groups` others were removed.

    `before` and `after` are the sizes of the smallest and the largest cluster; `zeros` vectors had no direction,
    `lines` paths cannot stand in a list of paths.
    """

    path: Path
    rows: int
    copies: int
    groups: int
    zeros: int
    clusters: int
    before: tuple[int, int]
    after: tuple[int, int]
    chosen: int
    lines: int
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self) | {"path": str(self.path)}

    def __rich__(self) -> str:
        text = [
            f"{self.path}: {self.chosen:,} of {self.rows:,} samples, a path a line",
            f"{self.copies:,} near copies of {self.groups:,} others were left out",
            f"{self.clusters:,} clusters of {self.before[0]:,} to {self.before[1]:,} samples before, of "
            f"{self.after[0]:,} to {self.after[1]:,} after",
        ]
        text += [f"{self.zeros:,} samples whose vector is zero were left out"] if self.zeros else []
        text += [f"{self.lines:,} paths with a line break in them were left out"] if self.lines else []
        return "\n".join([*text, *([self.note] if self.note else [])])


def curate(
    embeddings: Embeddings,
    /,
    *,
    n: int,
    out: Target = "subset.txt",
    above: float = 0.96,
    clusters: int | None = None,
    data: str | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Curated:
    """Choose a balanced subset of a very large pool, without near copies, and write the list of its paths.

    Near copies are the samples whose vectors have a cosine above a threshold, and what such pairs connect; the first of
    each group stays. The others are clustered, and each cluster gives as evenly as it can (DINOv2; Vo et al., 2024).
    The list is data for every other command. See docs/scale.md.

    Args:
        embeddings: A file that `selfsup embed` wrote, a folder of such parts, or an index of them; of more than 200,000
            rows an approximate index.
        n: How many samples to choose.
        out: The list to write (.txt or .lst).
        above: Two samples whose vectors have at least this cosine are near copies; it depends on the encoder.
        clusters: How many clusters; by default one per 10 samples, at most 4,096.
        data: The folder of the samples; by default the data that the embeddings name.
        seed: Where the clustering starts, and which samples of a cluster are chosen.
        quiet: Hide progress.

    Raises:
        UserError: For embeddings that cannot be read, more samples or clusters than there are, or samples that are not
            there.
        RunFailed: If the list cannot be written.
    """
    import numpy as np

    from selfsup.base.progress import counting
    from selfsup.neighbours.balance import balanced
    from selfsup.neighbours.copies import near_copies
    from selfsup.neighbours.index import open_vectors

    check_numbers(n=n, above=above, clusters=clusters, seed=seed)
    path = user_path(out)
    if path.suffix.lower() not in (".txt", ".lst"):
        raise UserError(f"--out must end in .txt or .lst, not {path.name!r}: it is a list of paths")
    check_new_file(path)
    vectors, where = open_vectors(embeddings)
    root = _root(vectors, data)
    with counting("curating", 3 * len(vectors), quiet) as advance:
        empty = []
        for start, x in vectors.vectors():
            empty.append(start + np.flatnonzero(~x.any(1)))
            advance(len(x))
        zeros = np.concatenate(empty)
        copies = near_copies(vectors, where, above, advance)
        left_out = np.union1d(copies[:, 1], zeros)
        left = len(vectors) - len(left_out)
        if n > left:
            raise UserError(
                f"-n {n:,} is more than the {left:,} samples that are left of {len(vectors):,} without {len(copies):,} "
                f"near copies (--above {above:g}) and {len(zeros):,} zero vectors"
            )
        if clusters is not None and clusters > left:
            raise UserError(f"--clusters {clusters:,} is more than the {left:,} samples that are left")
        count = clusters or max(1, min(CLUSTERS, n // PER_CLUSTER))
        chosen = balanced(vectors, left_out, n, count, seed, path.parent, advance)
    lines = _write_list(path, vectors, chosen.rows, root)
    notes = []
    if 2 * len(copies) > len(vectors):
        notes.append("More than half are near copies: look at some, and raise --above if they are not alike.")
    if root is None:
        notes.append("The paths are as they stand in the embeddings, since these name no folder: give it with --data.")
    before, after = ((int(sizes.min()), int(sizes.max())) for sizes in (chosen.before, chosen.after))
    groups = len(np.unique(copies[:, 0]))
    return Curated(
        path, len(vectors), len(copies), groups, len(zeros), count, before, after, n - lines, lines, "\n".join(notes)
    )


def _root(vectors: Vectors, data: str | None) -> str | None:
    """Return the folder in which the paths are, None if none is known. Raises `UserError` if no path is there."""
    name = data or vectors.about.get("data", "")
    root = os.path.abspath(os.path.expanduser(name))
    if os.path.isfile(root) and root.lower().endswith((".txt", ".lst")):
        root = os.path.dirname(root)
    if not name or not os.path.isdir(root):
        if data is not None:
            raise UserError(f"no such folder: {data}; give the folder that was embedded as --data")
        return None
    some = [path for path, _ in vectors.names(range(min(16, len(vectors))))]
    if not any(os.path.exists(os.path.join(root, path)) for path in some):
        raise UserError(f"none of the samples is in {root}, for example {some[0]!r}: give their folder as --data")
    return root


def _write_list(path: Path, vectors: Vectors, rows: Any, root: str | None) -> int:
    """Write the paths, and return how many were left out."""
    from selfsup.base.writing import whole_file

    broken = 0
    with whole_file(path) as file:
        for start in range(0, len(rows), LINES):
            for name, _ in vectors.names(rows[start : start + LINES]):
                line = name if root is None else os.path.join(root, name)
                if "\n" in line or "\r" in line:
                    broken += 1
                else:
                    file.write(os.fsencode(line) + b"\n")
    return broken
