"""What the scripts share: the data, and the error for a promise that was not kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


class Broken(Exception):
    """A promise that was not kept."""


def make_pictures(folder: Path) -> None:
    """Write 60 images of two classes, and a broken one."""
    generator = np.random.default_rng(0)
    for number in range(60):
        label = folder / ("dark" if number % 2 else "light")
        label.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (16, 16, 3)) + (0 if number % 2 else 100)
        Image.fromarray(pixels.astype(np.uint8)).save(label / f"{number:02d}.png")
    (folder / "dark" / "broken.png").write_bytes(b"no image")
