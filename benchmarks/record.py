"""Frames a second: recorded from environments, and read again from our store.

    python benchmarks/record.py                     # 100,000 frames of 64 × 64 are written and read

Recording: Reacher-v5 by two cameras and Pong, with random actions, everything included that `selfsup record` does;
beside it, what Gymnasium's own rendering of Reacher takes at the same size. Reading: single frames at random places
and spans of 16 of a recording whose frames are kept as bytes or as JPEG. One thread, CPU seconds, medians of three
interleaved rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np

from selfsup.base.quiet import quiet_libraries
from selfsup.commands.doctor import processor
from selfsup.control.environments import Environment
from selfsup.control.record import record
from selfsup.data.trajectory import About, Episode, Trajectories, write_shards

ROUNDS, LENGTH, READ = 3, 1000, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=100_000, help="that are written and read")
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, quiet_libraries():
        recording(Path(scratch), args.size)
        reading(Path(scratch), args.frames, args.size)
    names = ("gymnasium", "mujoco", "ale-py", "pyarrow", "simplejpeg", "numpy")
    print(f"{', '.join(f'{name} {version(name)}' for name in names)}, {processor()}, {os.cpu_count()} cores")


def recording(scratch: Path, size: int) -> None:
    cameras = ("left=55:-55:0.65", "right=125:-55:0.65")
    count = [0]

    def played(name: str, episodes: int, **options: object) -> Callable[[], int]:
        def run() -> int:
            count[0] += 1
            folder = scratch / str(count[0])
            record(folder, lambda: Environment(name, size=size, **options), episodes, 0, {}, quiet=True)
            return int(Trajectories(folder).extents.sum())

        return run

    def gymnasium_renders() -> int:
        env = gymnasium.make("Reacher-v5", render_mode="rgb_array", width=size, height=size)
        env.reset(seed=0)
        for _ in range(50):
            env.step(env.action_space.sample())
            env.render()
        env.close()
        return 50

    rates = rounds(
        {
            "Reacher-v5, two cameras": played("Reacher-v5", 16, cameras=cameras),
            "Reacher-v5, rendered by Gymnasium, one camera, not stored": gymnasium_renders,
            "ALE/Pong-v5": played("ALE/Pong-v5", 2, steps=500),
        }
    )
    for name, rate in rates.items():
        print(f"recorded: {name:60} {rate:8,.0f} observations/s")


def reading(scratch: Path, frames: int, size: int) -> None:
    generator = np.random.default_rng(0)
    base = generator.integers(0, 256, (size // 8, size // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)

    def episode(k: int) -> Episode:
        seen = np.stack([np.roll(base, (k + t) % size, 1) for t in range(LENGTH)])
        return Episode({"camera": seen}, state=np.zeros((LENGTH, 2), np.float32))

    sources, about = {}, About(("camera",), states=("x", "y"))
    for jpeg in (False, True):
        folder = scratch / f"jpeg-{jpeg}"
        began = time.process_time()
        write_shards(folder, about, episode, max(1, frames // LENGTH), jpeg=jpeg)
        kept = "JPEG" if jpeg else "bytes"
        written = sum(path.stat().st_size for path in folder.rglob("*.arrow")) / 2**20
        print(f"written:  {kept:60} {frames / (time.process_time() - began):8,.0f} frames/s, {written:,.0f} MiB")
        sources[kept] = Trajectories(folder)
    todo: dict[str, Callable[[], int]] = {}
    for kept, source in sources.items():
        for length, name in ((1, "single frames"), (16, "spans of 16")):

            def run(source: Trajectories = source, length: int = length) -> int:
                places = np.random.default_rng(1).integers(0, [[len(source), LENGTH - length]], (READ // length, 2))
                for index, start in places.tolist():
                    source.frames(index, np.arange(start, start + length), "camera")
                return READ // length * length

            todo[f"{kept}, {name}"] = run
    for name, rate in rounds(todo).items():
        print(f"read:     {name:60} {rate:8,.0f} frames/s")


def rounds(todo: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return the median rate of each by CPU seconds, whose rounds are interleaved."""
    rates: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(ROUNDS):
        for name, run in todo.items():
            began = time.process_time()
            done = run()
            rates[name].append(done / (time.process_time() - began))
    return {name: statistics.median(found) for name, found in rates.items()}


if __name__ == "__main__":
    main()
