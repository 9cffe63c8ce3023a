"""A process that compiles the kernels makes the same pixels as one that loads them from numba's cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

# what is done to crops that were cut out of image files: change the colours and blur
CODE = """
import hashlib
import numpy as np
from selfsup.views.image import kernel
from selfsup.views.image.crop import preset
from selfsup.views.image.draw import color_params, draws

x = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
crop = next(iter(preset("dino", 32).values()))
u = draws(0, 0, np.arange(64), crop.count)
colors, out = color_params(crop, u)[:, 0], np.empty(x.shape, np.float32)
kernel.paint(x, np.zeros(64, bool), np.ascontiguousarray(colors), np.ones(3, np.float32), np.zeros(3, np.float32), out)
print(hashlib.sha256(out.tobytes()).hexdigest())
"""


def test_views_have_the_same_bits_compiled_and_from_the_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.check_output([sys.executable, "-c", CODE], env=environment, text=True) for _ in range(2)
    )
    assert any(tmp_path.rglob("*_paint*.nbc"))
    assert compiled == loaded
