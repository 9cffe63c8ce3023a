"""Masks carried through a video by the similarity of features: what `video_colorization` is read by.

The mask of the first frame is known. Each place of a later frame takes the labels of the places that are most alike in
the first frame and in the frames just before, whose masks were carried there already (Vondrick et al., 2018, section
4; Jabri et al., 2020, appendix). Measured by J and F of DAVIS (Perazzi et al., 2016), beside leaving the mask where
it is.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

BEFORE, NEAREST, TEMPERATURE = 4, 5, 0.05
RADIUS = 0.25  # of a place's neighbourhood, as a fraction of the side
TOLERANCE = 0.008  # of F's boundaries, as a fraction of the diagonal


@torch.no_grad()
def carry(features: Tensor, first: Tensor) -> Tensor:
    """Return the probabilities of labels (T, K, h, w) in all frames.

    Args:
        features: (T, d, h, w) of the frames; compared by their cosine.
        first: (K, h, w) float, the labels of the first frame, which sum to 1 at each place.
    """
    times, _, high, wide = features.shape
    flat = F.normalize(features.flatten(2), dim=1)  # (T, d, n)
    y, x = torch.meshgrid(torch.arange(high) / high, torch.arange(wide) / wide, indexing="ij")
    places = torch.stack([y, x], -1).view(-1, 2)
    near = torch.cdist(places, places) <= RADIUS  # (n, n)
    labels = [first.flatten(1)]  # (K, n) each
    for time in range(1, times):
        known = sorted({0, *range(max(0, time - BEFORE), time)})
        similarity = torch.cat([flat[one].T @ flat[time] for one in known])  # (known · n, n)
        similarity.masked_fill_(~near.repeat(len(known), 1), -torch.inf)
        value, place = similarity.topk(min(NEAREST, len(similarity)), 0)  # (nearest, n)
        weight = (value / TEMPERATURE).softmax(0)
        there = torch.cat([labels[one] for one in known], 1)  # (K, known · n)
        labels.append((there[:, place] * weight).sum(1))
    return torch.stack(labels).view(times, -1, high, wide)


def region(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return J, the intersection over the union of two masks (H, W); 1 where both are empty."""
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def boundary(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return F, the harmonic mean of how much of each boundary lies near the other; 1 where both are empty."""
    edges = [mask & ~binary_erosion(mask, border_value=1) for mask in (found, truth)]
    if not any(edge.any() for edge in edges):
        return 1.0
    reach = max(1, round(TOLERANCE * float(np.hypot(*truth.shape))))
    wide = [binary_dilation(edge, iterations=reach) for edge in edges]
    precision, recall = (
        float((edge & other).sum() / edge.sum()) if edge.any() else 0.0
        for edge, other in zip(edges, wide[::-1], strict=True)
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score(labels: Tensor, truth: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the means of J and F over the frames after the first and over the objects of the first.

    Args:
        labels: (T, K, h, w) from `carry`, label 0 the background; resized to the size of the truth.
        truth: (T, H, W), 0 the background, k the object k.
    """
    whole = F.interpolate(labels, truth.shape[1:], mode="bilinear").argmax(1).numpy()
    objects = [k for k in range(1, labels.shape[1]) if (truth[0] == k).any()]
    pairs = [(found == k, mask == k) for found, mask in zip(whole[1:], truth[1:], strict=True) for k in objects]
    return tuple(float(np.mean([measure(*pair) for pair in pairs])) for measure in (region, boundary))  # type: ignore[return-value]


def one_hot(mask: NDArray[np.uint8], count: int, side: tuple[int, int]) -> Tensor:
    """Return a mask (H, W) as labels (count, h, w): how much of each place is of each object."""
    whole = F.one_hot(torch.from_numpy(mask).long(), count).permute(2, 0, 1).float()
    return F.adaptive_avg_pool2d(whole, side)
