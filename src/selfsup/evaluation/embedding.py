"""Embeddings in parts: of N samples in n parts, part i is always the same rows, the same bytes, in a file of its own.

The parts are cut where batches end, so that a batch is of the same samples whatever n is, and its features round alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from selfsup.base.notes import say
from selfsup.base.printing import Printable
from selfsup.data.vectors import unite_vectors, write_vectors
from selfsup.errors import UserError
from selfsup.evaluation.features import BATCH, feature_batches
from selfsup.run import Run
from selfsup.source import Source

MOST = 100_000  # parts, whose numbers have five digits
SAME = ("weights", "fingerprint", "parts")  # what a part has to have in common with the others
_NAME = re.compile(r"embeddings-(\d{5})-of-(\d{5})\.parquet")


class Shard(NamedTuple):
    """Part `number` of `parts`, from 0 on."""

    number: int
    parts: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Return what `i/n` says; raise `UserError` for anything else."""
        number, slash, parts = text.partition("/")
        if slash and number.isdecimal() and parts.isdecimal() and int(number) < int(parts) <= MOST:
            return cls(int(number), int(parts))
        raise UserError(f"--shard is i/n, with i from 0 to n - 1 and n at most {MOST:,}, such as 3/16, not {text!r}")

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"embeddings-{self.number:05d}-of-{self.parts:05d}.parquet"

    def rows(self, count: int) -> range:
        """Return its rows of `count`: whole batches, but for the last one."""
        batches = -(-count // BATCH)
        first, last = (batches * i // self.parts * BATCH for i in (self.number, self.number + 1))
        return range(first, min(last, count))


@dataclass(frozen=True, repr=False)
class Embedded(Printable):
    """The file (or folder of parts) that `embed` wrote: `rows` vectors of `dim` numbers; `skipped` were unreadable."""

    path: Path
    rows: int
    dim: int
    skipped: int
    there: int = 0  # parts that were finished before

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {**vars(self), "path": str(self.path)}

    def __rich__(self) -> str:
        skipped = f"; {self.skipped:,} could not be read" if self.skipped else ""
        there = "; it was there" if self.there == 1 else f"; {self.there:,} parts were there" if self.there else ""
        return f"{self.path}: {self.rows:,} rows of {self.dim} numbers{skipped}{there}"


def about_of(run: Run, source: Source) -> dict[str, str]:
    """Return what a file of embeddings notes: where they come from, and hashes of the encoder and the data."""
    return {
        "run": str(run.folder), "task": run.task, "encoder": run.encoder_name, "data": source.name,
        "weights": run.weights_digest(), "fingerprint": source.fingerprint(),
    }  # fmt: skip


def write_part(
    folder: Path,
    shard: Shard,
    encoder: Any,
    source: Source,
    run: Run,
    about: Mapping[str, str],
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> Embedded:
    """Write one part into a folder, unless it is there already; several processes may write the same one.

    Raises `UserError` for a folder with parts of another run, of other data or of another number of parts.
    """
    there = finished(folder, shard, int(encoder.dim), source, about)
    if there is not None:
        return there
    path, about, wanted = folder / shard.name, {**about, "parts": str(shard.parts)}, shard.rows(len(source))
    batches = feature_batches(encoder, source, run.spec, device=device, rows=wanted)
    rows = write_vectors(path, source, int(encoder.dim), batches, about, advance, several=True)
    return Embedded(path, rows, int(encoder.dim), len(wanted) - rows)


def finished(folder: Path, shard: Shard, dim: int, source: Source, about: Mapping[str, str]) -> Embedded | None:
    """Return a part that is there; None if it is not. Raises `UserError` as `write_part` does."""
    path, about = folder / shard.name, {**about, "parts": str(shard.parts)}
    check_parts(folder, about)
    if not path.exists():
        return None
    rows = _checked(path, about).metadata.num_rows
    return Embedded(path, rows, dim, len(shard.rows(len(source))) - rows, 1)


def check_parts(folder: Path, about: Mapping[str, str]) -> None:
    """Raise `UserError` if a folder has parts of another number, or its first one is of another run or other data."""
    parts = parts_in(folder)
    other = next((shard for shard in parts if str(shard.parts) != about["parts"]), None)
    if other:
        raise UserError(
            f"{folder} holds parts of {other.parts}, not of {about['parts']}: give --shard i/{other.parts}, or another "
            "--out"
        )
    if parts:
        _checked(folder / parts[0].name, about)


def parts_in(folder: Path) -> list[Shard]:
    """Return the parts that are in a folder, in order."""
    if not folder.is_dir():
        return []
    found = filter(None, (_NAME.fullmatch(path.name) for path in folder.iterdir()))
    return sorted(Shard(int(match[1]), int(match[2])) for match in found)


def unite(
    folder: Path, path: Path, dim: int, source: Source, about: Mapping[str, str], advance: Callable[[int], None]
) -> Embedded:
    """Write all parts in a folder into one file, with the bytes that `embed` alone would have written.

    Raises `UserError` if a part is missing, damaged, or of another run or other data.
    """
    there = parts_in(folder)
    if not there:
        raise UserError(f"{folder} has no parts of embeddings; `selfsup embed … --shard i/n -o {folder}` writes them")
    parts = there[0].parts
    all_of = {**about, "parts": str(parts)}
    check_parts(folder, all_of)
    missing = sorted(set(range(parts)) - {shard.number for shard in there})
    if missing:
        few = ", ".join(f"{number}/{parts}" for number in missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError(f"{len(missing):,} of {parts:,} parts are missing in {folder}: --shard {few}")
    files = [folder / shard.name for shard in there]
    for file in files:
        _checked(file, all_of)
    rows = unite_vectors(path, files, dim, about, advance)
    return Embedded(path, rows, dim, len(source) - rows)


def _checked(path: Path, about: Mapping[str, str]) -> Any:
    """Return an open part; raise `UserError` if it is damaged, or of another run or other data."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        noted = {
            key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items() if key in _NOTED
        }
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged, remove it: {str(error).splitlines()[0]}") from None
    for key, what in zip(SAME, ("another encoder", "other data", "another number of parts"), strict=True):
        if noted.get(key) != about[key]:
            raise UserError(f"{path} is of {what} ({key} {noted.get(key)}, not {about[key]}); give another --out")
    if noted.get("data", about["data"]) != about["data"]:
        say(
            f"{path.parent} holds parts of {noted['data']}, which has the fingerprint of {about['data']}: they pass "
            "for the same data; of files that compares the paths, not what is in them"
        )
    return file


_NOTED = tuple(key.encode() for key in (*SAME, "data"))
