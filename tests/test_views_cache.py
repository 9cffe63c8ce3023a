"""A process that compiles the kernels makes the same pixels as one that loads them from numba's cache."""

import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from support.kills import PROCESSES

pytest.importorskip("numba")


# what is done to crops that were cut out of image files: change the colours and blur; and the steps that few views have
def elsewhere(work: Callable[..., None], *given: str) -> Any:
    """Return what a process tells that has compiled nothing."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=work, args=(*given, there))
    process.start()
    there.close()
    told = here.recv()
    process.join()
    return told


def digest(cache: str, told: Connection) -> None:
    """Tell the digest of what kernels make that are compiled into a cache, or loaded from it.

    That is what is done to crops that were cut out of image files, and the steps that few views have.
    """
    from numba.core import config

    config.CACHE_DIR = cache
    for name in ("kernel", "color_ops", "optional_ops"):  # which were imported with another cache, but never run
        sys.modules.pop(f"selfsup.views.image.{name}", None)

    import hashlib
    import importlib

    import numpy as np

    from selfsup.views.image.crop import preset
    from selfsup.views.image.draw import Noise, Rotations, color_params, draws

    kernel = importlib.import_module("selfsup.views.image.kernel")
    x = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    crop = next(iter(preset("dino", 32).values()))
    u = draws(0, 0, np.arange(64), crop.count)
    colors, out = np.ascontiguousarray(color_params(crop, u)[:, 0]), np.empty(x.shape, np.float32)
    kernel.paint(x, np.zeros(64, bool), colors, np.ones(3, np.float32), np.zeros(3, np.float32), out)
    for view, bent in zip(out, (np.zeros((2, 0, 0)), np.ones((2, 32, 32))), strict=False):
        kernel.warp(x[0], np.array([[0.7, 0.4, -3.1], [-0.5, 0.9, 4.2]]), bent, False, view)
    one = out[None]
    kernel.rotate(one, Rotations(np.ones((1, 64), bool), np.arange(64)[None] % 4))
    noise = Noise(np.full((1, 64), 0.1, np.float32), np.arange(64)[None])
    kernel.add_noise(one, noise, np.ones(3, np.float32), np.zeros(3, np.float32))
    told.send(hashlib.sha256(out.tobytes()).hexdigest())


def test_views_have_the_same_bits_compiled_and_from_the_cache(tmp_path: Path) -> None:
    digests, files = [], []
    for _ in range(2):
        digests.append(elsewhere(digest, str(tmp_path)))
        files.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")})
    assert all(any(name in path.name for path in files[0]) for name in ("_paint", "_warp", "_rotate", "_add_noise"))
    assert files[0] == files[1], "the second one compiles nothing"
    assert digests[0] == digests[1]


CLOSURES = """
from functools import partial
import numpy as np
from selfsup.views.image.color_ops import compiled
entry = partial(compiled, inline=False)  # what Python calls

def shift(step):
    @compiled
    def shifted(x, out):
        for i in range(out.shape[0]):
            out[i] = x[i + step]
    return shifted

shift0, shift5 = shift(0), shift(5)

@entry
def one(x, out):
    shift0(x, out[0])

@entry
def both(x, out):
    shift0(x, out[0])
    shift5(x, out[1])
"""


def closure(folder: str, name: str, told: Connection) -> None:
    """Run one of the entry points of closures.py, compiled into a cache or loaded from it, and tell what it made."""
    import importlib

    import numpy as np
    from numba.core import config

    config.CACHE_DIR = folder
    sys.path.insert(0, folder)
    out = np.zeros((2, 3))
    getattr(importlib.import_module("closures"), name)(np.arange(9.0), out)
    told.send(out[1].tolist())


def test_closures_of_one_name_keep_their_own_code_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "closures.py").write_text(CLOSURES)
    for name, wanted in (("one", [0.0, 0.0, 0.0]), ("both", [5.0, 6.0, 7.0])):
        assert elsewhere(closure, str(tmp_path), name) == wanted
    assert len(list(tmp_path.rglob("*shifted*.nbc"))) == 2
