"""Colours for what is said of places: patch features by their principal components, classes by number."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.evaluation.rows import principal_components

TAIL = 0.02  # of the values of a component, at either end, that get its darkest or brightest colour
UNLABELLED = (255, 255, 255)


def pca_colours(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return patch features (n, d, h, w) as colours (n, h, w, 3): their first three principal components, over all n.

    Alike colours are alike features, in one image and across images. Components that are not there are grey.
    """
    count, dim, *sides = maps.shape
    x = torch.from_numpy(maps).transpose(0, 1).reshape(dim, -1).T.float()
    centred = x - x.mean(0)
    axes, _ = principal_components(centred, 3)  # the largest comes last or first: each is stretched on its own
    z = (centred @ axes).numpy()
    z = z * np.where((z**3).sum(0) < 0, -1, 1)  # the sign of a component means nothing
    low, high = (np.quantile(z, q, axis=0) for q in (TAIL, 1 - TAIL))
    levels = np.full((len(z), 3), 0.5)
    levels[:, : z.shape[1]] = (z - low) / np.maximum(high - low, 1e-12)
    return (255 * levels.clip(0, 1)).round().astype(np.uint8).reshape(count, *sides, 3)


def class_colours(mask: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """Return a mask (h, w) of `count` classes as colours (h, w, 3): the first class is dark, no label (-1) white."""
    hues = [colorsys.hsv_to_rgb(0.13 + 0.618 * k % 1, 0.75 if k % 2 else 0.95, 0.95) for k in range(count - 1)]
    colours = [(0.15, 0.15, 0.18), *hues, tuple(one / 255 for one in UNLABELLED)]
    return (255 * np.array(colours)).round().astype(np.uint8)[mask]
