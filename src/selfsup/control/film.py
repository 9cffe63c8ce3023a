"""What an agent did, to look at: an animation, and images one below the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.base.writing import write_atomically

SIDE = 144  # pixels of a scene, at least
FRAMES = 250  # of an animation, at most


def tiled(clips: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return clips (T, H, W, 3) as one (T, H, n · W, 3); the last frame of a shorter one stays."""
    longest = max(len(clip) for clip in clips)
    padded = [np.concatenate([clip, clip[-1:].repeat(longest - len(clip), 0)]) for clip in clips]
    return np.concatenate(padded, 2)


def save_clip(path: Path, frames: NDArray[np.uint8], fps: float, side: int) -> None:
    """Write frames (T, H, W, 3) as an animated WebP of 250 of them at most; scenes of `side` pixels are enlarged."""
    every = -(-len(frames) // FRAMES)
    first, *others = [_enlarged(frame, side) for frame in frames[::every]]
    _save(path, first, save_all=True, append_images=others, duration=round(1000 * every / fps), loop=0, method=2)


def save_sheet(path: Path, image: NDArray[np.uint8], side: int) -> None:
    """Write an image (H, W, 3) of scenes of `side` pixels."""
    _save(path, _enlarged(image, side), lossless=True)


def _save(path: Path, image: Image.Image, **options: Any) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    write_atomically(path, buffer.getvalue())


def _enlarged(image: NDArray[np.uint8], side: int) -> Image.Image:
    factor = max(1, -(-SIDE // side))
    return Image.fromarray(image.repeat(factor, 0).repeat(factor, 1))
