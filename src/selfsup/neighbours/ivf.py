"""An inverted file with product quantization (IVF-PQ) in faiss, built from plain arrays and taken apart into them.

Jégou et al., "Product Quantization for Nearest Neighbor Search", 2011. A vector is assigned to the list of its nearest
centroid, and what remains is coded in at most 16 bytes. The number of lists grows with that of the vectors, and
centroids are found in two steps, so that a query reads about as many codes in a small set as in a large one. faiss
keeps indexes in a binary format of its own; here only arrays are written and read, and no parser of faiss sees a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from selfsup.errors import need
from selfsup.neighbours.exact import Found, by_row
from selfsup.nn.kmeans import nearest, spherical_kmeans

Arrays = Mapping[str, NDArray[Any]]

PER_LIST = 1000  # vectors of a list, on average
TRAINING = 40  # vectors of the sample for a list
MOST, LEAST = 1 << 22, 1 << 16  # vectors of the sample
DIMS = 128  # principal directions that are coded, at most
CODE = 16  # bytes of a code, at most
PROBE, RERANK = 32, 300  # lists that are read, and candidates whose own vectors are looked at; more of both for recall
COARSE = 32  # groups of centroids that are looked into


def num_lists(rows: int) -> int:
    """Return how many lists `rows` vectors are put into."""
    return max(1, round(rows / PER_LIST))


def sample_size(rows: int) -> int:
    """Return how many of `rows` vectors are enough to train with."""
    return min(rows, MOST, max(LEAST, TRAINING * num_lists(rows)))


def train(x: NDArray[np.float32], lists: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return what is trained on a sample (n, d) of unit vectors.

    Returns:
        `rotation` (d, r), r ≤ 128: the principal directions in a random rotation, which spreads the variance evenly;
        `groups` (about √lists, r) and `centroids` (lists, r), of unit length; `words` (r / 8, 256, 8), the codebooks.
    """
    faiss: Any = need("faiss", "faiss")
    rotation = _rotation(x, seed)
    z = F.normalize(torch.from_numpy(x @ rotation))
    few = z[:: max(1, len(z) // (256 * max(1, round(lists**0.5))))]
    groups, _ = spherical_kmeans(few, max(1, round(lists**0.5)), seed)
    group = nearest(z, groups, spherical=True)
    sizes = torch.bincount(group, minlength=len(groups))
    parts = [
        spherical_kmeans(z[group == i], count, seed + i)[0]
        for i, count in enumerate(_divided(sizes.numpy(), lists))
        if count
    ]
    arrays = {"turn": rotation, "groups": groups.numpy(), "centroids": torch.cat(parts).numpy()}
    words = -(-rotation.shape[1] // -(-rotation.shape[1] // CODE))
    index = _index(faiss, arrays, words)
    index.pq.cp.min_points_per_centroid = 1  # or faiss prints a warning of its own for few
    index.train(z[:: max(1, len(z) // LEAST)].numpy())
    return arrays | {"words": faiss.vector_to_array(index.pq.centroids).reshape(words, 256, -1)}


def _rotation(x: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    some = x[:: max(1, len(x) // LEAST)]
    axes = np.linalg.eigh((some.T @ some).astype(np.float64))[1][:, ::-1][:, :DIMS]
    word = -(-axes.shape[1] // CODE)
    out = -(-axes.shape[1] // word) * word
    mixed = np.linalg.qr(np.random.default_rng(seed).normal(size=(out, out)))[0]
    rotation: NDArray[np.float32] = np.ascontiguousarray(axes @ mixed[: axes.shape[1]], np.float32)
    return rotation


def _divided(sizes: NDArray[np.int64], total: int) -> list[int]:
    """Return how many of `total` lists each group gets: at least one if it has members, else in proportion to them."""
    counts = np.minimum(sizes, 1)
    share = (total - counts.sum()) * sizes / sizes.sum()
    counts = counts + np.floor(share).astype(np.int64)
    largest = np.argsort(-(share - np.floor(share)), kind="stable")
    counts[largest[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def _index(faiss: Any, arrays: Arrays, words: int) -> Any:
    """Return an empty index of faiss with trained arrays, but for the codebooks."""
    groups, centroids = arrays["groups"], arrays["centroids"]
    dim = centroids.shape[1]
    top = faiss.IndexFlatIP(dim)
    top.add(groups)
    coarse = faiss.IndexIVFFlat(top, dim, len(groups), faiss.METRIC_INNER_PRODUCT)
    coarse.add(centroids)
    coarse.make_direct_map()  # residuals need the centroid of a number
    coarse.nprobe = min(COARSE, len(groups))
    return faiss.IndexIVFPQ(coarse, dim, len(centroids), words, 8, faiss.METRIC_INNER_PRODUCT)


class Coder:
    """A trained index without or with vectors in it."""

    def __init__(self, arrays: Arrays) -> None:
        self.faiss: Any = need("faiss", "faiss")
        self.rotation, self.groups = arrays["turn"], len(arrays["groups"])
        self.index = _index(self.faiss, arrays, len(arrays["words"]))
        self.faiss.copy_array_to_vector(arrays["words"].reshape(-1), self.index.pq.centroids)
        self.index.is_trained = True

    def rotated(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return unit vectors (n, d) in the directions that are coded, (n, r), of unit length too."""
        z: NDArray[np.float32] = x @ self.rotation
        return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)

    def encode(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return the list (n,) and the code (n, w) of unit vectors (n, d)."""
        coded = self.index.sa_encode(self.rotated(x))
        head = self.index.coarse_code_size()
        number = np.zeros((len(x), 4), np.uint8)
        number[:, :head] = coded[:, :head]  # little-endian
        return number.view("<i4").reshape(-1).astype(np.int32), coded[:, head:]

    def fill(self, sizes: NDArray[np.int64], codes: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Add codes and row numbers, in the order of the lists, of which each has so many."""
        ends = np.cumsum(sizes)
        lists = self.index.invlists
        for number, (start, end) in enumerate(zip((ends - sizes).tolist(), ends.tolist(), strict=True)):
            if end > start:
                ids, code = np.ascontiguousarray(rows[start:end]), np.ascontiguousarray(codes[start:end])
                lists.add_entries(number, end - start, self.faiss.swig_ptr(ids), self.faiss.swig_ptr(code))
        self.index.ntotal = int(sizes.sum())

    def candidates(self, x: NDArray[np.float32], count: int, probe: int) -> NDArray[np.int64]:
        """Return rows (m, count) that are probably near to unit vectors (m, d), -1 where there are no more."""
        lists, groups = self.index.nlist, self.groups
        coarse = self.faiss.SearchParametersIVF(nprobe=min(groups, max(COARSE, 4 * probe * groups // lists)))
        read = self.faiss.SearchParametersIVF(nprobe=min(probe, lists), quantizer_params=coarse)
        found: NDArray[np.int64] = self.index.search(self.rotated(x), count, params=read)[1]
        return found

    def ranked(self, store: NDArray[Any], unit: NDArray[np.float32], k: int, probe: int) -> Found:
        """Return the best (m, k) of the candidates by the cosine of their own vectors, in `store`; then -1 and -2."""
        rows = self.candidates(unit, min(len(store), max(RERANK * probe // PROBE, k)), probe)
        cosines = np.einsum("md,mrd->mr", unit, store[np.maximum(rows, 0)].astype(np.float32))
        rows, cosines = by_row(rows, np.where(rows < 0, np.float32(-2), cosines.clip(-1, 1)))
        return rows[:, :k], cosines[:, :k]
