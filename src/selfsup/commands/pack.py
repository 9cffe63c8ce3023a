"""`pack`: a folder of images into shards of a bounded size, which every command reads as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup.base.checks import check_new_folder, check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Data, LabelsGiven, Target
from selfsup.errors import UserError, unknown


@dataclass(frozen=True, repr=False)
class PackedShards(Printable):
    """The folder that `pack` wrote: `shards` with `samples` images of `size` bytes in all, of which `kept` were there.

    `left` counts the images that cannot be read and are left out, by reason.
    """

    path: Path | str
    shards: int
    samples: int
    size: int
    left: Mapping[str, int]
    kept: int

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {**vars(self), "path": str(self.path), "left": dict(self.left)}

    def __rich__(self) -> str:
        kept = f", {self.kept:,} of them from before" if self.kept else ""
        shards = f"{self.shards:,} shard{'s' * (self.shards != 1)}"
        lines = [f"{self.path}: {self.samples:,} images in {shards}{kept}, {self.size / 2**20:,.1f} MiB"]
        lines += [f"{count:,} left out: {reason}" for reason, count in self.left.items()]
        return "\n".join(lines)


def pack(
    data: Data,
    /,
    *,
    out: Target = "shards",
    to: str = "tar",
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    shard_mb: int = 256,
    quiet: bool = False,
) -> PackedShards:
    """Pack a folder of images into shards, which every command reads as data, here or from an object store.

    The images keep their bytes. Shards of tar are WebDataset's (an image and its .cls), each with an index beside it;
    shards.json names them with their sizes and BLAKE2b digests. The same data give the same bytes, and a run that was
    killed is resumed by the same command. See docs/scale.md.

    Args:
        data: A folder of images, a list file, or shards to pack anew.
        out: The folder to write, here or of an object store (s3://BUCKET/NAME, gs://BUCKET/NAME); for Lance one here
            whose name ends in .lance.
        to: tar, parquet (as Hugging Face lays out images) or lance (which is not resumed).
        labels: 'folders', a CSV file (path,label) or an .npz file with y; those that shards have are kept.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        shard_mb: Approximate size of a shard in MiB, at least 1.
        quiet: Hide progress.

    Raises:
        UserError: For data that are not image files, and a folder that holds other shards.
        RunFailed: If no image can be read, or the folder cannot be written.
    """
    from selfsup.data.image import Files
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.data.shards.objects import is_url, without_file
    from selfsup.data.shards.pack import TO
    from selfsup.data.shards.pack import pack as write

    if to not in TO:
        raise unknown("--to", to, TO)
    check_numbers(shard_mb=shard_mb)
    folder: Path | str = user_path(out)
    if isinstance(out, str) and is_url(out):
        folder = user_path(without_file(out)) if out.lower().startswith("file") else out.rstrip("/")
        if out.lower().startswith("http"):
            raise UserError(f"shards are written to a folder, s3:// or gs://, not to {out}: give another --out")
    source = open_data(data, *name_columns(columns, labels))
    if not isinstance(source, Files) or source.pages is not None:
        raise UserError(f"{source.name}: image files are packed as they are, and nothing else; give a folder of them")
    if isinstance(folder, Path):
        check_new_folder(folder)
    packed = write(source, folder, to, shard_mb, quiet)
    return PackedShards(folder, *packed)
