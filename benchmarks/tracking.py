"""`tracking` on generated videos: is a thing found again, in all videos and among the things of its own video?

    python benchmarks/tracking.py --steps 2000 --seeds 3
    python benchmarks/tracking.py --steps 2000 --flow         # tracks found by Lucas-Kanade flow, not known ones
    python benchmarks/tracking.py --results tracking.jsonl    # a line of JSON a seed

Videos 0 to 999 of `moving` are learned from, 1,000 to 1,999 are searched. A query is the first patch of a thing, and
what is searched are 1,000 patches of different things `gap` frames later (R@1; chance 0.001), or only those of the same
video (chance: one in the number of things there). Control: the same patches with the thing painted grey, which leaves
its outline and its background.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import selfsup
from results import Record, grouped, markdown, over_runs, record, write
from selfsup.data.video import Moving
from selfsup.data.video.tracks import Tracks, find_tracks
from selfsup.train.recalibrate import recalibrate
from selfsup.views.image import Crop
from selfsup.views.video import PatchViews

VIDEOS, SEARCHED = 1000, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--gap", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--flow", action="store_true", help="learn from tracks that are found")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a seed is added")
    args = parser.parse_args()
    everything = Moving("moving", 2 * VIDEOS)
    train = (Found if args.flow else Moving)("moving", VIDEOS)
    measured: list[Record] = []
    for seed in range(args.seeds):
        measured.append(one_seed(seed, args, train, everything))
        print(f"seed {seed}: {measured[-1]['found']}", flush=True)
        write(args.results, measured[-1])
    print(table(measured))


def one_seed(seed: int, args: argparse.Namespace, train: Moving, everything: Moving) -> Record:
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = selfsup.pretrain(
            train, task="tracking", encoder=args.encoder, size=args.size, steps=args.steps, seed=seed, gap=args.gap,
            batch_size=args.batch_size, workers=0, device="cpu", out=Path(folder) / "run", quiet=True,
        )  # fmt: skip
        took = round(time.process_time() - began, 1)
        task, _ = run.load_task()
        patches, backs, video = things(everything, run.spec, args.gap)
        torch.manual_seed(seed)
        untrained = run.fresh_encoder()
        recalibrate(untrained, train, run.spec, seed=seed, device="cpu")
        rows: dict[str, list[float]] = {}
        for name, embed in {
            "raw pixels": lambda x: x.flatten(1),
            "untrained": lambda x: features(untrained, x),
            "tracking": lambda x: features(task.encoder.eval(), x),
            "tracking, with its head": lambda x: task.eval().embed(x),
        }.items():
            for what, x in (("", patches), (", background alone", backs)):
                first, last = (F.normalize(standard(embed(x[:, end])), dim=1) for end in (0, 1))
                rows[name + what] = [round(share, 4) for share in found(first, last, video)]
        several = [count for count in np.unique(video, return_counts=True)[1] if count > 1]
        chance = [round(1 / len(video), 4), round(len(several) / sum(several), 4)]
        name = "tracking" + " --flow" * args.flow
        return record(run, None, "moving", name, cpu_s=took, things=len(video), chance=chance, found=rows)


def table(measured: list[Record]) -> str:
    """Return the table: how often a thing is found again, among all and in its video."""
    rows = []
    for mine in grouped(measured, "name", "encoder", "steps"):
        first = mine[0]
        for name in first["found"]:
            told = name.replace("tracking", f"`{first['name']}`")
            shares = [over_runs([one["found"][name][k] for one in mine]) for k in (0, 1)]
            rows.append([told, f"{first['encoder']}, {first['steps']:,} steps", *shares])
        rows.append(["chance", "", *(f"{100 * share:.1f}" for share in first["chance"])])
    return markdown(["found again, %", "", "among 1,000 things", "among those of its video"], rows)


class Found(Moving):
    """The same videos, whose tracks are found in their frames."""

    kept: ClassVar[dict[tuple[int, int], Tracks]] = {}

    def tracks(self, index: int, gap: int) -> Tracks:
        key = int(self.numbers[index]), self.side
        if key not in self.kept:
            self.kept[key] = find_tracks(lambda numbers: self.frames(index, numbers), self.extent(index), gap)
        return self.kept[key]


def things(source: Moving, spec: object, gap: int) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
    """Return patches (N, 2, C, S, S) of things, the same with the things painted over, and their videos (N,)."""
    side = max(16, round(spec.size / 3))
    views = PatchViews(spec, Crop(side), gap, tracks=1)
    source = source.conform(spec)
    patches, backs, video = [], [], []
    for index in range(VIDEOS, 2 * VIDEOS):
        tracks = source.tracks(index, gap)
        window = int(tracks.counts().argmax())
        frames, masks = (read(index, tracks.frames[window]) for read in (source.frames, source.masks))
        for k in np.flatnonzero(np.isfinite(tracks.boxes[window]).all((1, 2))).tolist():
            u = np.full((1, 2, 17), 0.5)
            for seen, into in ((frames, patches), (painted(frames, masks == k + 1), backs)):
                out = np.empty((2, side, side, 3), np.float32)
                views.for_device("cpu")._cut(seen, tracks.boxes[window, k].astype(np.float64), u, out)
                into.append(torch.from_numpy(out).permute(0, 3, 1, 2))
            video.append(index)
        if len(video) >= SEARCHED:
            break
    return torch.stack(patches), torch.stack(backs), np.array(video)


def painted(frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return frames with what the mask shows in grey."""
    done = frames.copy()
    done[mask] = 128
    return done


def features(encoder: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval().frames(x[:, None])[:, 0]


def standard(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6)


def found(first: torch.Tensor, last: torch.Tensor, video: NDArray[np.int64]) -> list[float]:
    """Return how often the nearest patch is that of the same thing: among all, and among those of the same video."""
    cosine = (first @ last.T).detach().numpy()
    own = np.arange(len(cosine))
    several = np.isin(video, [v for v, n in zip(*np.unique(video, return_counts=True), strict=True) if n > 1])
    inside = np.where(video[:, None] == video, cosine, -2)
    return [float((cosine.argmax(1) == own).mean()), float((inside.argmax(1) == own)[several].mean())]


if __name__ == "__main__":
    main()
