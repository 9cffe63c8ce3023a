"""How an index is made: planned and trained once, parts coded by any number of processes, merged by the last one.

Every step is one file that is written aside and renamed, so that a killed build resumes; a part is one file of the
embeddings. The plan fixes what all do: the embeddings, how many lists, and the seed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from selfsup.base.notes import say
from selfsup.base.writing import InUse, in_turn, whole_file, write_atomically
from selfsup.data.npz import read_npy
from selfsup.data.vectors import Vectors
from selfsup.errors import RunFailed, UserError, need
from selfsup.neighbours.exact import by_row, nearest_in_blocks
from selfsup.neighbours.index import (
    ABOUT,
    LISTS,
    PLAN,
    STORE,
    TRAINED,
    VERSION,
    Index,
    draw,
    file_digest,
    unit_rows,
)
from selfsup.neighbours.ivf import PROBE, Coder, num_lists, sample_size, train

EXACT = 10**7  # vectors up to which every one is compared
FEWEST = 20_000  # vectors for which lists are worth it
HELD_OUT = 200  # rows on which recall is measured; they are not trained on
NEIGHBOURS = 10  # of recall@10
RECALL, DOUBLED = 0.95, 4  # recall@10 for which more is read, and how often that is doubled
SAME = 1e-6  # difference of cosines that is rounding
LOCK = ".turn"
BLOCK = 1 << 16  # rows that are merged at a time


def plan(vectors: Vectors, folder: Path, approximate: bool, seed: int) -> dict[str, Any]:
    """Make the plan of an index, or return the one that is there.

    Raises `UserError` if that one is of other embeddings or options, and for too few vectors.
    """
    n, approximate = len(vectors), approximate or len(vectors) > EXACT
    if approximate and n < FEWEST:
        raise UserError(f"{n:,} vectors are too few for lists, and compared in no time: leave --approximate out")
    if approximate:
        need("faiss", "faiss")
    sizes = [path.stat().st_size for path in vectors.files]
    counts = np.diff(vectors.starts).tolist()
    names = [path.name for path in vectors.files]
    parts = [{"name": name, "size": size, "rows": rows} for name, size, rows in zip(names, sizes, counts, strict=True)]
    new = {
        "version": VERSION, "rows": n, "dim": vectors.dim, "approximate": approximate,
        "lists": num_lists(n) if approximate else 0, "seed": seed, "parts": parts,
    }  # fmt: skip
    path = folder / PLAN
    folder.mkdir(parents=True, exist_ok=True)
    with in_turn(folder / LOCK):
        if not path.exists():
            write_atomically(path, json.dumps(new, indent=1).encode())
    try:
        there = json.loads(path.read_bytes())
    except ValueError:
        there = None
    if there != new:
        raise UserError(
            f"{folder} was made or begun from other embeddings, or with other options: give another --out, or remove it"
        )
    return new


def build(vectors: Vectors, folder: Path, about: dict[str, Any], done: Callable[[int], None]) -> Index | None:
    """Make what is missing of a planned index; return it, or None while other processes are adding parts.

    `done` is called with the number of rows of each block. Raises `UserError` for embeddings that are not sound or have
    changed, `RunFailed` if the folder cannot be written.
    """
    if (folder / ABOUT).exists():
        return Index(folder)
    if about["approximate"]:
        with in_turn(folder / LOCK):  # one trains, the others wait
            if not (folder / TRAINED).exists():
                write_atomically(folder / TRAINED, save(_train(vectors, about)))
    trained = load((folder / TRAINED).read_bytes()) if about["approximate"] else {}
    digest = file_digest(folder / TRAINED) if trained else ""
    coder, todo = (Coder(trained) if trained else None), list(range(len(vectors.files)))
    for _ in range(2):  # again those that others had: these may have been killed
        busy = []
        for number in todo:
            if (folder / ABOUT).exists():  # another process has merged, and removed the parts
                return Index(folder)
            try:
                if _record(folder, number, digest) is None:
                    _add(vectors, number, folder, coder, trained, digest, done)
                else:
                    done(int(vectors.starts[number + 1] - vectors.starts[number]))
            except InUse:
                busy.append(number)
        todo = busy
    if any(_record(folder, number, digest) is None for number in todo) and not (folder / ABOUT).exists():
        return None
    with in_turn(folder / LOCK):  # the last ones of several processes come here together
        if not (folder / ABOUT).exists():
            _merge(vectors, folder, about, coder, trained, digest)
    return Index(folder)


def _train(vectors: Vectors, about: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return what is trained on a sample of the rows, with `held` rows beside it that it has not seen."""
    n, rng = len(vectors), np.random.default_rng(about["seed"])
    drawn = draw(n, sample_size(n) + HELD_OUT, rng)
    x = unit_rows(vectors.take(drawn))
    sound = np.flatnonzero(x.any(1))  # a vector of zeros has no neighbours
    if len(sound) < 2 * HELD_OUT:
        raise UserError(f"only {len(sound):,} of {len(x):,} vectors drawn are not zero; the encoder may have collapsed")
    held = np.sort(rng.permutation(sound)[:HELD_OUT])
    arrays: dict[str, NDArray[Any]] = dict(train(x[np.setdiff1d(sound, held)], about["lists"], about["seed"]))
    return arrays | {"held": x[held], "held_rows": drawn[held]}


def _layout(dim: int, trained: dict[str, NDArray[Any]]) -> np.dtype[Any]:
    """Return how a row of a part is stored."""
    if not trained:
        return np.dtype([("vector", "<f4", dim)])
    words = len(trained["words"])
    return np.dtype([("list", "<i4"), ("code", "u1", words), ("vector", "<f2", dim)])


def _names(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"part-{number:05d}.bin", folder / f"part-{number:05d}.json"


def _record(folder: Path, number: int, digest: str) -> dict[str, Any] | None:
    """Return what is noted of a finished part, None if it is not, or was made with what another process trained."""
    path, note = _names(folder, number)
    try:
        record: dict[str, Any] = json.loads(note.read_bytes())
        return record if record["trained"] == digest and path.is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _add(
    vectors: Vectors, number: int, folder: Path, coder: Coder | None, trained: dict[str, NDArray[Any]], digest: str,
    done: Callable[[int], None],
) -> None:  # fmt: skip
    """Write the rows of one part, with the exact neighbours of the held-out rows among them."""
    source, (path, note) = vectors.files[number], _names(folder, number)
    before, layout, zeros = source.stat(), _layout(vectors.dim, trained), 0
    held, near = torch.from_numpy(trained["held"]) if trained else torch.zeros(0, vectors.dim), NEIGHBOURS + 1

    def blocks(file: Digested) -> Iterator[tuple[int, torch.Tensor]]:
        nonlocal zeros
        for start, x in vectors.part(number).vectors():
            unit, rows = unit_rows(x), np.empty(len(x), layout)
            zeros += int((~x.any(1)).sum())
            rows["vector"] = unit
            if coder is not None:
                rows["list"], rows["code"] = coder.encode(unit)
            file.write(rows.tobytes())
            done(len(x))
            yield start, torch.from_numpy(unit)

    with whole_file(path) as file:
        out = Digested(file)
        found, cosines = nearest_in_blocks(held, blocks(out), near)
        whole = file_digest(source)
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(f"{source} changed while it was read; give the same command again once it is complete")
    record = {
        "trained": digest, "zeros": zeros, "digest": whole, "changed": before.st_mtime_ns, "size": before.st_size,
        "written": out.hexdigest(), "near": found.tolist(), "cosines": cosines.tolist(),
    }  # fmt: skip
    write_atomically(note, json.dumps(record).encode())


class Digested:
    """A file with the digest of what is written into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> None:
        """Write."""
        self.digest.update(data)
        self.file.write(data)

    def hexdigest(self) -> str:
        """Return the digest of all so far."""
        return self.digest.hexdigest()


def _merge(
    vectors: Vectors, folder: Path, about: dict[str, Any], coder: Coder | None, trained: dict[str, NDArray[Any]],
    digest: str,
) -> None:  # fmt: skip
    """Put the parts together, measure recall@10, and write index.json; the parts are removed then."""
    n, layout, starts = len(vectors), _layout(vectors.dim, trained), vectors.starts.tolist()
    records = [_record(folder, number, digest) for number in range(len(vectors.files))]
    lists = np.empty(n if coder else 0, np.int32)
    codes = np.empty((len(lists), layout["code"].shape[0] if coder else 0), np.uint8)
    files: dict[str, tuple[int, str]] = {}
    with whole_file(folder / STORE) as file:
        out = Digested(file)
        dtype = layout["vector"].base
        np.lib.format.write_array_header_1_0(
            out, {"descr": dtype.str, "fortran_order": False, "shape": (n, vectors.dim)}
        )
        for number, record in enumerate(records):
            path, note = _names(folder, number)
            assert record is not None
            if path.stat().st_size != (starts[number + 1] - starts[number]) * layout.itemsize or (
                file_digest(path) != record["written"]
            ):
                note.unlink()
                raise RunFailed(f"{path} is damaged; give the same command again, which makes it again")
            rows = np.memmap(path, layout, "r")
            for start in range(0, len(rows), BLOCK):
                some = np.array(rows[start : start + BLOCK])
                out.write(np.ascontiguousarray(some["vector"]).tobytes())
                if coder is not None:
                    at = slice(starts[number] + start, starts[number] + start + len(some))
                    lists[at], codes[at] = some["list"], some["code"]
    files[STORE] = (folder / STORE).stat().st_size, out.hexdigest()
    told: dict[str, Any] = {"probe": 0, "recall_at_10": 1.0, "bytes_in_memory": 0.0}
    if coder is not None:
        order = np.argsort(lists, kind="stable")
        sizes = np.bincount(lists, minlength=about["lists"])
        codes = codes[order]
        lists_of: tuple[NDArray[Any], ...] = (sizes, codes, order)
        for name, array in zip(LISTS, lists_of, strict=True):
            with whole_file(folder / name) as plain:
                np.save(plain, array, allow_pickle=False)
        for name in (TRAINED, *LISTS):
            files[name] = (folder / name).stat().st_size, file_digest(folder / name)
        kept: list[NDArray[Any]] = [
            sizes,
            codes,
            order,
            *(array for name, array in trained.items() if not name.startswith("held")),
        ]
        told["bytes_in_memory"] = round(sum(array.nbytes for array in kept) / n, 1)
    parts = [
        {**part, **{key: record[key] for key in ("size", "changed", "digest")}}
        for part, record in zip(about["parts"], records, strict=True)
        if record is not None
    ]
    zeros = sum(record["zeros"] for record in records if record is not None)
    whole = {
        **about, **told, "zeros": zeros, "bytes_on_disk": round(files[STORE][0] / n, 1), "files": files, "parts": parts,
        "embeddings": str(vectors.path.absolute()), "beside": os.path.relpath(vectors.path, folder),
    }  # fmt: skip
    if coder is not None:
        coder.fill(sizes, codes, order)
        whole |= _measured(coder, read_npy(str(folder / STORE)), trained, [r for r in records if r], starts)
    write_atomically(folder / ABOUT, json.dumps(whole, indent=1).encode())
    for number in range(len(records)):
        for path in _names(folder, number):
            path.unlink(missing_ok=True)


def _measured(
    coder: Coder,
    store: NDArray[Any],
    trained: dict[str, NDArray[Any]],
    records: list[dict[str, Any]],
    starts: list[int],
) -> dict[str, Any]:
    """Return recall@10 on the held-out rows, and how many lists are read for it.

    A row that is found counts if its cosine is not below that of the tenth row of an exact search: copies are as good.
    """
    held, own = trained["held"], trained["held_rows"][:, None]
    near = [np.array(record["near"]) for record in records]
    rows = np.concatenate([x + np.where(x < 0, 0, start) for x, start in zip(near, starts, strict=False)], 1)
    cosines = np.concatenate([np.array(record["cosines"], np.float32) for record in records], 1)
    rows, cosines = by_row(rows, np.where((rows == own) | (rows < 0), -2, cosines))
    exact = rows[:, :NEIGHBOURS]
    tenth = np.einsum("md,mrd->mr", held, store[exact].astype(np.float32)).min(1, keepdims=True)
    told: dict[str, Any] = {}
    for probe in (PROBE << times for times in range(DOUBLED + 1)):
        rows, cosines = coder.ranked(store, held, NEIGHBOURS + 1, probe)
        found = np.sort(np.where(rows == own, -2, cosines), 1)[:, 1:]
        recall = float((found >= tenth - SAME).mean())
        told = {"probe": probe, "recall_at_10": round(recall, 4), "held_out": len(held)}
        if recall >= RECALL:
            return told
    say(
        f"recall@10 is {recall:.3f}, below {RECALL}: these vectors have hardly any structure that lists could follow; "
        "search the embeddings themselves where that matters"
    )
    return told
