"""Fixtures that the test files share: folders of generated images, and one small finished run.

One thread a test process: on a machine that is busy, two threads that wait for each other are many times slower.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for those who give two: do not burn a processor while waiting
if "SELFSUP_TEST_GPU" not in os.environ:  # but for those of the GPU, which are named so: pytest -k gpu
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import selfsup
from selfsup.base import processes
from selfsup.encoders.image.convnet import ConvNet
from selfsup.evaluation import few_labels, linear, parts
from selfsup.train import recalibrate
from support.folders import MakeFolder, write_images

assert logging.lastResort is not None
logging.getLogger("selfsup").addHandler(logging.lastResort)  # as without pytest, whose handlers silence it


# Training from scratch beside every evaluation, doing all of it five times where labels are few, choosing among seven
# penalties, and a thousand samples for BatchNorm after two steps of training, would be most of the suite's time: they
# have tests of their own.
few_labels.STEPS = (20, 20)
parts.ENOUGH = 0
COPIES = processes._start
processes._start = lambda *_: {}  # copies of a process as large as this one take longer than what they do
linear.fit_probe = functools.partial(linear.fit_probe, penalties=(1.0, 0.1))  # type: ignore[assignment]
recalibrate.SAMPLES = 128
WIDE, NARROW = ConvNet.__init__.__defaults__, (32,)  # of `convnet`: narrow but where a test says how well it learns
ConvNet.__init__.__defaults__ = NARROW  # type: ignore[misc]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: a million objects, which stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Return a function that writes images of each class into a new folder, and returns it."""

    def make(name: str = "images", **options: Any) -> Path:
        return write_images(tmp_path / name, **options)

    return make


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest) -> None:
    """Draw the same numbers from the `RNG` of a module in each test, whatever ran before."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let copies of the process do the work, as for a user."""
    monkeypatch.setattr(processes, "_start", COPIES)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave `convnet` as it is."""
    monkeypatch.setattr(ConvNet.__init__, "__defaults__", WIDE)


@pytest.fixture
def images(make_folder: MakeFolder) -> Path:
    """Return a folder with cat/0.png … cat/3.png and dog/0.png … dog/3.png, 16 × 16."""
    return make_folder()


@pytest.fixture(scope="session")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run: rotation, convnet, two steps on digits; never to be written in."""
    folder = tmp_path_factory.mktemp("run") / "rotation"
    selfsup.pretrain("digits", encoder="convnet", steps=2, batch_size=16, out=folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    """Return a run that learned something: rotation, convnet, two epochs of digits; never to be written in.

    One for all test processes, whose folders lie side by side.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "digits.lock"):
        return selfsup.pretrain(
            "digits", encoder="convnet", epochs=2, pad=0, flip=0.0, out=shared / "digits", quiet=True
        )  # the second time it is there


@pytest.fixture
def finished_run(one_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of that folder."""
    return shutil.copytree(one_run, tmp_path_factory.mktemp("run") / "rotation")
