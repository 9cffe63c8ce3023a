"""pybullet without a window and without what its C++ code prints: a world, its bodies and cameras."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError, need


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let nothing that C or C++ prints meanwhile reach the terminal."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for number in (*kept, nowhere):
            os.close(number)


class Bullet:
    """A world of its own. `p` is the module; every call of it takes `physicsClientId=self.client`."""

    def __init__(self) -> None:
        with silent():
            self.p: Any = need("pybullet", "bullet")
            self.client = self.p.connect(self.p.DIRECT)

    def load(self, path: Path, **options: Any) -> int:
        """Return the number of the body of a URDF file."""
        with silent():
            body: int = self.p.loadURDF(str(path), physicsClientId=self.client, **options)
        return body

    def image(self, eye: Any, at: Any, up: Any, fov: float, size: int) -> Any:
        """Return what a camera sees, (size, size, 3) uint8, and which body (size, size) int64, -1 for none."""
        view = self.p.computeViewMatrix(eye, at, up)
        projection = self.p.computeProjectionMatrixFOV(fov, 1.0, 0.05, 20.0)
        _, _, pixels, _, bodies = self.p.getCameraImage(
            size, size, view, projection, shadow=0, lightDirection=[1.0, 2.0, 3.0],
            renderer=self.p.ER_TINY_RENDERER, physicsClientId=self.client,
        )  # fmt: skip
        colours: NDArray[np.uint8] = np.asarray(pixels, np.uint8).reshape(size, size, 4)[..., :3].copy()
        return colours, np.asarray(bodies, np.int64).reshape(size, size)

    def close(self) -> None:
        """End the world."""
        self.p.disconnect(self.client)


def data_folder() -> Path:
    """Return the folder of the models and motions that pybullet brings; `UserError` where it is not installed."""
    with silent():
        folder = Path(need("pybullet_data", "bullet").getDataPath())
    if not folder.is_dir():
        raise UserError(f"pybullet is installed without its data ({folder}): pip install --force-reinstall pybullet")
    return folder
