"""A run of many steps: memory, open files and threads stay flat, and the files that it writes bounded.

cd tests && python -m torture.long --steps 20000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from torch import nn

from selfsup.spec import ImageSpec
from selfsup.tasks.image.rotation import Rotation
from selfsup.train import fit
from selfsup.train.device import make_fabric
from support.sources import noise

GROWTH = 8 << 20  # bytes of memory between the first tenth of the steps and the end


class Tiny(nn.Module):
    """An encoder of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.spec = 8, ImageSpec.of(8, 1)
        self.layer = nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


class Watched(Rotation):
    """Rotation that notes memory, open files and threads a hundred times in a run."""

    def __init__(self, steps: int) -> None:
        super().__init__(Tiny(), pad=1, hidden_dim=8)
        self.every, self.done, self.notes = max(1, steps // 100), 0, []

    def after_step(self) -> None:
        self.done += 1
        if self.done % self.every == 0:
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            self.notes.append((memory, len(os.listdir("/proc/self/fd")), threading.active_count()))


def watch(steps: int, workers: int, folder: Path) -> str:
    """Train, and return what was seen. Raises `AssertionError` for what grows."""
    fit.SAVE_SECONDS = 1.0
    task = Watched(steps)
    plan = fit.Plan(steps=steps, batch_size=8)
    folder.mkdir()
    views = task.views(ImageSpec.of(8, 1))
    fit.fit(task, noise(8), views, plan, make_fabric("cpu", "float32"), folder=folder, workers=workers, quiet=True)
    memory, files, threads = (list(values) for values in zip(*task.notes, strict=True))
    first = len(memory) // 10
    grown = max(memory[-first:]) - max(memory[:first])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    seen = (
        f"{steps:,} steps, {workers} workers: memory {max(memory) / 2**20:.0f} MiB, {grown / 2**20:+.1f} after the "
        f"first tenth; open files {min(files)} to {max(files)}; threads {min(threads)} to {max(threads)}; "
        f"{len(lines)} lines, {size / 2**10:.0f} KiB of logs"
    )
    assert grown < GROWTH, seen
    assert max(files[first:]) <= max(files[:first]) + 1, seen  # a checkpoint that is being written
    assert max(threads[first:]) <= max(threads[:first]), seen
    assert len(lines) <= 1000, seen
    assert [json.loads(line)["step"] for line in lines][-1] == steps, seen
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for workers in (0, 2):
            print(watch(asked.steps, workers, Path(folder) / str(workers)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
