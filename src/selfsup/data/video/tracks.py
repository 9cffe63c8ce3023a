"""Tracks of what moves in a video, found without labels: where a patch is now, and some frames later.

As Wang and Gupta (2015, section 4) mine them, with OpenCV's Lucas-Kanade flow of corners in place of SURF points, dense
trajectories and the KCF tracker: the camera's motion is fitted and taken out, and a patch is where the most corners
move together.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import need

MOST = 4  # tracks of a window
SHARE = 0.3  # side of a patch, as a fraction of the shorter side of a frame
CORNERS, FEWEST = 300, 4  # corners of a frame, and how many move together in a patch
STILL = 0.75  # of the corners may move; more are the camera


class Tracks(NamedTuple):
    """Windows of time, and the patches that are followed through each of them."""

    frames: NDArray[np.int64]  # (W, 2), the first and the last frame of each window
    boxes: NDArray[np.float32]  # (W, K, 2, 3), top, left and side in pixels in these frames; nan where there is none

    def there(self) -> NDArray[np.bool_]:
        """Return where there is a track (W, K)."""
        found: NDArray[np.bool_] = np.all(np.isfinite(self.boxes), axis=(2, 3))
        return found

    def counts(self) -> NDArray[np.int64]:
        """Return how many tracks each window has (W,)."""
        return self.there().sum(1)


def find_tracks(read: Callable[[NDArray[np.int64]], NDArray[np.uint8]], length: int, gap: int) -> Tracks:
    """Return the tracks of windows of `gap` frames, begun every half window.

    Args:
        read: returns frames (T, H, W, 3) by their numbers; it is asked for one window at a time.
        length: frames of the video.
        gap: frames between the first and the last one of a track, at least 1.

    Raises `UserError` without OpenCV.
    """
    cv2 = need("cv2", "video")
    starts = np.arange(0, max(length - gap, 0), max(1, gap // 2))
    boxes = np.full((len(starts), MOST, 2, 3), np.nan, np.float32)
    for window, start in enumerate(starts.tolist()):
        frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in read(np.arange(start, start + gap + 1))]
        first, last = _followed(cv2, frames)
        found = _together(first, last, *_moving(cv2, first, last, min(frames[0].shape)), frames[0].shape)
        boxes[window, : len(found)] = found
    return Tracks(np.stack([starts, starts + gap], 1), boxes)


def _followed(cv2: Any, frames: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return corners of the first frame that are found in the last one and, going back, again: two times (N, 2)."""
    first = cv2.goodFeaturesToTrack(frames[0], CORNERS, 0.01, 3)
    if first is None:
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    there, alive = first, np.ones(len(first), bool)
    back: NDArray[np.float32] = first
    for way in (frames, frames[::-1]):
        for now, then in pairwise(way):
            back, status, _ = cv2.calcOpticalFlowPyrLK(now, then, back, None, winSize=(15, 15), maxLevel=2)
            alive &= status[:, 0] == 1
        there = back if way is frames else there
    alive &= np.linalg.norm((back - first)[:, 0], axis=1) < 1
    return first[alive, 0], there[alive, 0]


def _moving(
    cv2: Any, first: NDArray[np.float32], last: NDArray[np.float32], side: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return which corners move (N,), and how (N, 2), beyond what the motion of the camera explains."""
    camera = cv2.estimateAffinePartial2D(first, last, ransacReprojThreshold=1.5)[0] if len(first) > FEWEST else None
    if camera is None:
        return np.zeros(len(first), bool), np.zeros_like(first)
    own = (last - first @ camera[:, :2].T - camera[:, 2]).astype(np.float32)
    moving = np.linalg.norm(own, axis=1) > max(1.5, 0.03 * side)
    return moving & (moving.mean() <= STILL), own


def _together(
    first: NDArray[np.float32],
    last: NDArray[np.float32],
    moving: NDArray[np.bool_],
    own: NDArray[np.float32],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Return the boxes (K, 2, 3) with the most corners that move alike, none of them over another one."""
    side = SHARE * min(shape)
    first, last, own = first[moving], last[moving], own[moving]
    found: list[NDArray[np.float32]] = []
    while len(first) and len(found) < MOST:
        near = np.abs(first[:, None] - first).max(2) < side / 2
        alike = np.linalg.norm(own[:, None] - own, axis=2) < side / 4
        members = (near & alike)[(near & alike).sum(1).argmax()]
        if members.sum() < FEWEST:
            break
        centres = np.stack([first[members].mean(0), last[members].mean(0)])
        corner = (centres[:, ::-1] - side / 2).clip(0, np.array(shape[:2]) - side)  # x, y -> top, left
        apart = [np.abs(corner - box[:, :2]).max(1).min() > 0.7 * side for box in found]
        if all(apart):
            found.append(np.concatenate([corner, np.full((2, 1), side)], 1).astype(np.float32))
        first, last, own = first[~members], last[~members], own[~members]
    return np.array(found, np.float32).reshape(-1, 2, 3)
