"""The index of a set of embeddings: a folder of arrays and JSON, opened and searched.

    index.json           what it is made of: rows, parts and their digests, recall@10; written last
    vectors.npy          unit vectors (n, dim), in the order of the embeddings: float32, or float16 if approximate
    trained.safetensors  approximate only: `selfsup.neighbours.ivf.train`, and the held-out rows
    sizes.npy  codes.npy  rows.npy      likewise: vectors of each list, codes (n, w) and rows (n,) in their order

An approximate index finds candidates by their codes, which are in memory, and ranks them by their own vectors, which
are mapped from the disk. Nothing in it is code or read by a parser of faiss; every file is held to the digest in
index.json, vectors.npy to its size alone, for that would be read in full.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from selfsup.base.paths import user_path
from selfsup.data.npz import read_npy
from selfsup.data.vectors import Vectors
from selfsup.errors import UserError
from selfsup.neighbours.exact import Found, Rows, by_row, nearest_in_blocks, search_rows
from selfsup.neighbours.ivf import Coder

ABOUT, PLAN, TRAINED, STORE = "index.json", "plan.json", "trained.safetensors", "vectors.npy"
LISTS = ("sizes.npy", "codes.npy", "rows.npy")
VERSION = 1
AT_ONCE = 64  # queries whose candidates are in memory
BLOCK = 1 << 16  # rows of an exact search at a time


class Index:
    """An index that `build` has finished; `vectors` are the embeddings, `about` is index.json.

    Raises `UserError` for a folder that is no index, is not finished, is damaged, or whose embeddings are gone or have
    changed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = user_path(folder, "an index")
        self.about = read_about(self.folder)
        for name, (size, digest) in self.about["files"].items():
            self._check(name, size, None if name == STORE else digest)
        self.vectors = open_unchanged(self.folder, self.about)
        try:
            self.store = read_npy(str(self.folder / STORE))
            if self.store.shape != (len(self), self.vectors.dim) or self.store.dtype.kind != "f":
                raise ValueError(f"vectors.npy has the shape {self.store.shape}")
            self.coder = self._coder() if self.approximate else None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(f"{self.folder} is damaged ({error}); {_again(self.folder)}") from None

    def __len__(self) -> int:
        return int(self.about["rows"])

    @property
    def approximate(self) -> bool:
        """Whether rows are found by their codes."""
        return bool(self.about["approximate"])

    def _check(self, name: str, size: int, digest: str | None) -> None:
        path = self.folder / os.path.basename(name)
        if not path.is_file():
            raise UserError(f"{path} is missing; {_again(self.folder)}")
        if path.stat().st_size != size or (digest and file_digest(path) != digest):
            raise UserError(f"{path} is damaged: it is not what was written; {_again(self.folder)}")

    def _coder(self) -> Coder:
        coder = Coder(load((self.folder / TRAINED).read_bytes()))
        sizes, codes, rows = (read_npy(str(self.folder / name)) for name in LISTS)
        n = len(self)
        whole = sizes.sum() == n and sizes.min() >= 0 and rows.min() >= 0 and rows.max() < n
        if not whole or rows.shape != (n,) or codes.shape != (n, coder.index.code_size):
            raise ValueError("its lists do not hold every row once")
        coder.fill(sizes, codes, rows)
        return coder

    def search(self, queries: NDArray[np.float32], k: int, probe: int | None = None) -> Found:
        """Return the rows (m, k) nearest to each query (m, dim), and the cosines; -1 and -2 where there are no more.

        `probe`: lists that are read, of an approximate index; by default as many as its recall was measured with.
        """
        if self.coder is None:
            blocks = ((start, torch.from_numpy(x)) for start, x in self._blocks())
            found = nearest_in_blocks(torch.from_numpy(queries), blocks, min(k, len(self)))
            return by_row(found[0].numpy(), found[1].numpy())
        unit = unit_rows(queries)
        probe = max(int(self.about["probe"]) if probe is None else probe, 2 * k * self.coder.index.nlist // len(self))
        at_once = (unit[i : i + AT_ONCE] for i in range(0, len(unit), AT_ONCE))
        parts = [self.coder.ranked(self.store, some, min(k, len(self)), probe) for some in at_once]
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([cosines for _, cosines in parts])

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, len(self), BLOCK):
            yield start, np.array(self.store[start : start + BLOCK], np.float32)


def nearest(where: Rows | Index, vector: NDArray[np.float32], k: int, without: int | None = None) -> Found:
    """Return the rows (k,) whose vectors have the largest cosine with `vector` (dim,), and the cosines (k,).

    Equal ones are in the order of their rows; `without` is left out. Raises `UserError` for a query vector without a
    direction.
    """
    norm = np.linalg.norm(vector)
    if not (np.isfinite(norm) and norm > 0):
        raise UserError(
            "the query's vector is zero or not finite, so nothing is near it; the encoder may have diverged"
        )
    query, wanted = np.asarray(vector, np.float32)[None], k + (without is not None)
    found = where.search(query, wanted) if isinstance(where, Index) else search_rows(where, query, wanted)
    rows, cosines = found[0][0], found[1][0]
    kept = (rows >= 0) & (rows != (-1 if without is None else without))
    return rows[kept][:k], cosines[kept][:k]


def open_vectors(path: str | os.PathLike[str]) -> tuple[Vectors, Vectors | Index]:
    """Return the embeddings that a path names, and what to search in: its index where it is one, else themselves."""
    folder = user_path(path, "embeddings")
    if (folder / ABOUT).is_file() or (folder / PLAN).is_file():
        index = Index(folder)
        return index.vectors, index
    vectors = Vectors(folder)
    return vectors, vectors


def read_about(folder: Path) -> dict[str, Any]:
    """Return index.json. Raises `UserError` if there is none, or it is not ours."""
    if not (folder / ABOUT).is_file():
        begun = (folder / PLAN).is_file()
        raise UserError(
            f"{folder} is an index that is not finished: give the same `selfsup index` again" if begun
            else f"{folder} is not an index; `selfsup index EMBEDDINGS -o {folder}` writes one"
        )  # fmt: skip
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        wanted: dict[str, Any] = {
            "rows": int,
            "dim": int,
            "approximate": bool,
            "probe": int,
            "parts": list,
            "files": dict,
        }
        sound = about["version"] == VERSION and all(type(about[key]) is kind for key, kind in wanted.items())
        sound = sound and {STORE, *([TRAINED, *LISTS] if about["approximate"] else [])} == set(about["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise UserError(f"{folder / ABOUT} cannot be read, or another version of selfsup wrote it; {_again(folder)}")
    return dict(about)


def open_unchanged(folder: Path, about: dict[str, Any]) -> Vectors:
    """Return the embeddings of an index. Raises `UserError` if a part is missing, new or not what it was."""
    try:
        where = Path(about["embeddings"])
        where = where if where.exists() else folder / about["beside"]
        known = {str(part["name"]): part for part in about["parts"]}
        if not where.exists():
            raise UserError(f"the embeddings {about['embeddings']} of {folder} are missing: move them back")
        if where.is_dir():
            for name in known:
                if not (where / os.path.basename(name)).is_file():
                    raise UserError(
                        f"{where / name} is missing, which is in {folder}: move it back, or {_again(folder)}"
                    )
        vectors = Vectors(where)
        for path in vectors.files:
            if path.name not in known:
                raise UserError(f"{path} is not in {folder}; {_again(folder)}")
            part, state = known[path.name], path.stat()
            if (state.st_size, state.st_mtime_ns) == (part["size"], part["changed"]):
                continue
            if state.st_size != part["size"] or file_digest(path) != part["digest"]:
                raise UserError(f"{path} has changed since {folder} was made of it; {_again(folder)}")
        if (len(vectors), vectors.dim) != (about["rows"], about["dim"]):
            raise UserError(f"{where} has other rows than {folder}; {_again(folder)}")
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{folder / ABOUT} is damaged; {_again(folder)}") from None
    return vectors


def unit_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length 1; zeros stay."""
    unit: NDArray[np.float32] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def draw(rows: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return about `count` random numbers below `rows`, ascending, each once, and all where there are no more."""
    if count >= rows:
        return np.arange(rows)
    drawn: NDArray[np.int64] = rng.integers(rows, size=count) if count < rows // 4 else rng.permutation(rows)[:count]
    return np.unique(drawn)


def file_digest(path: Path) -> str:
    """Return BLAKE2b of a file, 16 bytes in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _again(folder: Path) -> str:
    return f"remove {folder} and give `selfsup index` again"
