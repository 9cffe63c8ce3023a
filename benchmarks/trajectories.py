"""How many frames a second are read from a recording: OMP_NUM_THREADS=1 python benchmarks/trajectories.py."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from selfsup.data.trajectory import About, Episode, Trajectories, transitions, write_shards
from selfsup.views.loader import batches
from selfsup.views.trajectory import TransitionViews

EPISODES, LENGTH = 1000, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--jpeg", action="store_true")
    given = parser.parse_args()
    scene = np.random.default_rng(0).integers(0, 255, (LENGTH, given.size // 4, given.size // 4, 3), np.uint8)
    frames = np.kron(scene, np.ones((1, 4, 4, 1), np.uint8))

    def make(k: int) -> Episode:
        return Episode({"camera": np.roll(frames, k, 1)}, np.zeros((LENGTH - 1, 2)), np.zeros(LENGTH - 1))

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_shards(Path(folder) / "r", About(("camera",), ("box", 2)), make, EPISODES, jpeg=given.jpeg)
        print(f"written: {EPISODES * LENGTH / (time.perf_counter() - start):,.0f} frames/s")
        start = time.perf_counter()
        source = Trajectories(Path(folder) / "r")
        print(f"opened: {time.perf_counter() - start:.3f} s for {len(source):,} episodes")
        for what in ("first", "second"):
            start = time.perf_counter()
            for index in range(len(source)):
                source.read(index)
            print(f"read in order, {what} time: {EPISODES * LENGTH / (time.perf_counter() - start):,.0f} frames/s")
        rng, start = np.random.default_rng(0), time.perf_counter()
        for index in rng.integers(len(source), size=20_000).tolist():
            source.frames(index, rng.integers(LENGTH, size=1), "camera")
        print(f"single frames anywhere: {20_000 / (time.perf_counter() - start):,.0f} frames/s")
        steps, views = transitions(source), TransitionViews(source.spec()).for_device("cpu")
        start = time.perf_counter()
        for _ in batches(steps, views, batch_size=64, seed=0, start=0, steps=200, workers=0):
            pass
        print(f"batches of steps: {200 * 64 / (time.perf_counter() - start):,.0f} steps/s")


if __name__ == "__main__":
    main()
