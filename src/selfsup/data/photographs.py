"""Backgrounds of generated data: pieces of the photographs that scikit-learn brings."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHOTOGRAPHS = 2
ROOM = 200  # pixels a side of a piece


def piece(photograph: int, corner: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """Return a square piece of a photograph, at a corner (y, x) from 0 to 1, averaged down to (side, side, 3)."""
    whole = _photographs()[photograph]
    top, left = (corner * (np.array(whole.shape[:2]) - ROOM)).astype(int)
    found = Image.fromarray(whole[top : top + ROOM, left : left + ROOM])
    return np.asarray(found.resize((side, side), Image.Resampling.BOX))


@cache
def _photographs() -> list[NDArray[np.uint8]]:
    from sklearn.datasets import load_sample_images

    return [np.asarray(image) for image in load_sample_images().images]
