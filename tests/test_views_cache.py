"""A process that compiles the kernels makes the same pixels as one that loads them from numba's cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

# what is done to crops that were cut out of image files: change the colours and blur; and the steps that few views have
CODE = """
import hashlib
import numpy as np
from selfsup.views.image import kernel
from selfsup.views.image.crop import preset
from selfsup.views.image.draw import Noise, Turns, color_params, draws

x = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
crop = next(iter(preset("dino", 32).values()))
u = draws(0, 0, np.arange(64), crop.count)
colors, out = color_params(crop, u)[:, 0], np.empty(x.shape, np.float32)
kernel.paint(x, np.zeros(64, bool), np.ascontiguousarray(colors), np.ones(3, np.float32), np.zeros(3, np.float32), out)
for view, bent in zip(out, (np.zeros((2, 0, 0)), np.ones((2, 32, 32)))):
    kernel.warp(x[0], np.array([[0.7, 0.4, -3.1], [-0.5, 0.9, 4.2]]), bent, False, view)
one = out[None]
kernel.turn(one, Turns(np.ones((1, 64), bool), np.arange(64)[None] % 4))
noise = Noise(np.full((1, 64), 0.1, np.float32), np.arange(64)[None])
kernel.add_noise(one, noise, np.ones(3, np.float32), np.zeros(3, np.float32))
print(hashlib.sha256(out.tobytes()).hexdigest())
"""


def test_views_have_the_same_bits_compiled_and_from_the_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.check_output([sys.executable, "-c", CODE], env=environment, text=True) for _ in range(2)
    )
    assert all(any(tmp_path.rglob(f"*{name}*.nbc")) for name in ("_paint", "_warp", "_turn", "_add_noise"))
    assert compiled == loaded
