"""Test items that are also among the training items: each one inflates every result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import imagehash
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup.evaluation.knn import neighbours
from selfsup.evaluation.rows import Features, as_matrix

Item = bytes | NDArray[np.generic]

CANDIDATES = 10  # training images that a test image may be a copy of
GREY, COLOUR = 0.08, 0.12  # largest difference of a copy, as a fraction of the contrast
BLUR, BY_FAR = 3, 0.3  # times that at most, and of the difference to the next image
ALIKE = 0.9999  # cosine from which on two items count as the same
FLAT = 0.01  # contrast, in standard deviations of a data set, below which an image shows nothing


def same_bytes(train: Iterable[Item], test: Iterable[Item]) -> NDArray[np.int64]:
    """Find the test items whose raw bytes (and, of an array, shape) some training item also has.

    Only exact copies are found; an image that was saved again differs in its bytes. Each item is read once, and 16
    bytes of it are kept.

    Returns:
        Pairs (p, 2) of test number and first such training number; p is the number of test items concerned.
    """
    first: dict[bytes, int] = {}
    for i, item in enumerate(train):
        first.setdefault(digest_of(item), i)
    pairs = [(i, first[digest]) for i, digest in enumerate(map(digest_of, test)) if digest in first]
    return np.array(pairs, np.int64).reshape(-1, 2)


def near_copies(train: NDArray[np.float32], test: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the test images that are a training image saved again: compressed, resized or in another format.

    The 10 training images whose perceptual hash (the difference hash of `imagehash`, 64 bits) is nearest are
    candidates, and compared in at most 16 × 16 pixels, for a hash alone confuses digits. The nearest is a copy if the
    difference is below 8% of the contrast in grey and 12% in colour; or below three times that and a third of the
    difference to the next one, for blur changes small images much, but makes no other one the nearest by far. Images
    cropped otherwise, rotated or mirrored are not found, nor are those without contrast.

    Measured (`docs/evaluation.md`): of the 10,000 test digits of MNIST it calls none a copy of one of the 60,000
    others; of small photographs it finds all that are saved as JPEG of quality 75 and 97.5% of those halved and back.

    Args:
        train: (n, C, H, W), averaged down already.
        test: (m, C, H, W).

    Returns:
        Pairs (p, 2) of test number and training number, one for each test image concerned.
    """
    candidates = neighbours(_hashes(test), _hashes(train), min(CANDIDATES, len(train)))[0].cpu()
    ours, theirs = (_averaged(torch.from_numpy(x).float(), 16) for x in (train, test))
    grey = theirs.mean(1, keepdim=True)
    apart = torch.full((len(theirs), max(2, candidates.shape[1])), torch.inf)
    for column in range(candidates.shape[1]):
        other = ours[candidates[:, column]]
        in_grey = _difference(other.mean(1, keepdim=True), grey) / GREY
        apart[:, column] = torch.maximum(in_grey, _difference(other, theirs) / COLOUR)
    sorted_apart, places = apart.sort(1)
    nearest, next_one, place = sorted_apart[:, 0], sorted_apart[:, 1], places[:, 0]
    tests = torch.nonzero((nearest < 1) | ((nearest < BLUR) & (nearest < BY_FAR * next_one))).flatten()
    pairs: NDArray[np.int64] = torch.stack([tests, candidates[tests, place[tests]]], 1).numpy()
    return pairs


def _hashes(images: NDArray[np.float32]) -> Tensor:
    """Return perceptual hashes of images (n, C, H, W) as signs (n, 64): their cosine counts equal bits."""
    grey = images.mean(1)
    low, high = grey.min((1, 2), keepdims=True), grey.max((1, 2), keepdims=True)
    pixels = (255 * (grey - low) / np.maximum(high - low, 1e-12)).round().astype(np.uint8)
    bits = np.stack([imagehash.dhash(Image.fromarray(x)).hash.ravel() for x in pixels])
    return torch.from_numpy(bits).float() * 2 - 1


def _averaged(x: Tensor, side: int) -> Tensor:
    """Return images averaged down to at most so many pixels a side."""
    return F.adaptive_avg_pool2d(x, min(side, *x.shape[2:]))


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the root mean square of the difference (n,) as a fraction of the smaller contrast, inf without any."""
    contrast = torch.minimum(*(x.sub(x.mean((2, 3), keepdim=True)).square().flatten(1).mean(1).sqrt() for x in (a, b)))
    apart = (a - b).square().flatten(1).mean(1).sqrt()
    return torch.where(contrast > FLAT, apart / contrast, torch.inf)


def same_features(train: Features, test: Features) -> NDArray[np.int64]:
    """Find the test items whose features are almost those of some training item.

    By cosine after the training mean is subtracted, without which all features with a large common mean look the
    same. It also finds copies that were saved again, cropped or rotated, as far as the encoder ignores that: they are
    candidates to look at, not a proof. If most items are found, the encoder has collapsed.

    Args:
        train: (n, d).
        test: (m, d).

    Returns:
        Pairs (p, 2) of test number and most similar training number.
    """
    gallery = as_matrix(train, "the training features")
    mean = gallery.mean(0)
    index, similarity = neighbours(as_matrix(test, "the test features") - mean, gallery - mean, 1)
    found = (similarity[:, 0] >= ALIKE).cpu().numpy()
    pairs: NDArray[np.int64] = np.stack([np.flatnonzero(found), index[:, 0].cpu().numpy()[found]], 1)
    return pairs


def digest_of(item: Item) -> bytes:
    """Return 16 bytes that tell an item from others by its bytes and, of an array, its shape."""
    if isinstance(item, bytes):
        return hashlib.blake2b(item, digest_size=16).digest()
    head = f"{item.dtype}{item.shape}".encode()
    return hashlib.blake2b(head + item.tobytes(), digest_size=16).digest()
