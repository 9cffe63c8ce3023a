"""Folders of generated images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MakeFolder = Callable[..., Path]  # the fixture of conftest.py


def write_images(root: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 4, size: int = 16) -> Path:
    """Write `count` images of each class below `root`, every second class brighter, and return `root`."""
    generator = np.random.default_rng(0)
    for number, label in enumerate(classes):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = generator.integers(0, 128, (size, size, 3)) + 100 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


def write_images_and_a_broken_one(root: Path) -> None:
    """Write 60 images of two classes, and a broken one."""
    write_images(root, ("dark", "light"), 30)
    (root / "dark" / "broken.png").write_bytes(b"no image")
