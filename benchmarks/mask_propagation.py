"""Masks carried through videos by features: J and F beside identity, optical flow, raw pixels, the untrained encoder.

    python benchmarks/mask_propagation.py                         # moving, trained here for --steps
    python benchmarks/mask_propagation.py --davis DIR             # DIR/images/NAME/*.jpg, DIR/masks/NAME/*.png
    python benchmarks/mask_propagation.py --davis DIR --run RUN   # a run of video_colorization

The encoder of `video_colorization` reads lightness, so all rows but raw pixels do. Features have a quarter of the
frames' lines; identity and flow (DIS of OpenCV, where it is installed) move masks of the size in which is measured. The
interval is over videos, the mean over seeds of pretraining.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import sem

import selfsup
from selfsup.data import open_data
from selfsup.data.video import Moving
from selfsup.encoders import build_encoder
from selfsup.evaluation.carry import carry, one_hot, score
from selfsup.nn.image import lab

FRAMES = 16  # of moving, in which sprites cross half of the frame
LINES = 240  # of DAVIS's masks, in which is measured


class Video(NamedTuple):
    """Frames (T, h, w, 3) uint8 for the encoder; frames (T, H, W, 3) and masks (T, H, W) in which is measured."""

    frames: NDArray[np.uint8]
    whole: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="what is trained on; by default 2,000 videos of moving")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--videos", type=int, default=50, help="of moving, none of which is trained on")
    parser.add_argument("--davis", type=Path, help="a folder of images/NAME and masks/NAME, of one object each")
    parser.add_argument("--lines", type=int, default=96, help="of DAVIS's frames for the encoder, a multiple of 4")
    parser.add_argument("--run", type=Path, help="a run of video_colorization, instead of training one")
    args = parser.parse_args()
    source = Moving("moving", 2000 + args.videos)
    train = open_data(args.data) if args.data else source.take(np.arange(2000))
    videos = davis(args.davis, args.lines) if args.davis else generated(source, args.videos, args.size)
    rows: dict[str, list[list[tuple[float, float]]]] = {"identity": [[still(video) for video in videos]]}
    if find_spec("cv2"):
        rows["optical flow"] = [[flow(video) for video in videos]]
    rows["raw pixels"] = [[measure(patches(video.frames), video) for video in videos]]
    spent = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            began = time.process_time()
            run = selfsup.Run(args.run) if args.run else selfsup.pretrain(
                train, task="video_colorization", encoder="convnet", size=args.size, steps=args.steps,
                batch_size=16, seed=seed, out=Path(scratch) / str(seed), recalibrate=False,  # its frames are grey
            )  # fmt: skip
            spent.append(time.process_time() - began)
            torch.manual_seed(seed)
            untrained = build_encoder(run.encoder_name, run.spec).train()
            with torch.no_grad():  # with BatchNorm statistics of the data
                untrained.frame_maps(torch.cat([grey(video.frames, run.spec)[::4] for video in videos[:16]])[None])
            for name, encoder in (("untrained", untrained.eval()), ("trained", run.load())):
                found = [measure(encoder.frame_maps(grey(x.frames, run.spec)[None])[0], x) for x in videos]
                rows.setdefault(name, []).append(found)
    first = videos[0]
    print(f"{len(videos)} videos, the first mask carried {len(first.masks) - 1} frames; {first.frames.shape[2]} × "
          f"{first.frames.shape[1]} for the encoder, measured at {first.masks.shape[2]} × {first.masks.shape[1]}; "
          f"{args.seeds} seeds, {np.mean(spent):.0f} CPU-s of pretraining each")  # fmt: skip
    means = {name: np.array(each).mean(0) for name, each in rows.items()}  # (videos, 2)
    means["gain"] = means["trained"] - means["untrained"]  # of training, video by video
    for name, x in means.items():
        mean, half = x.mean(0), 1.96 * sem(x, 0)
        print(f"{name:12} J {mean[0]:.3f} ±{half[0]:.3f}   F {mean[1]:.3f} ±{half[1]:.3f}")


def grey(frames: NDArray[np.uint8], spec: selfsup.spec.ClipSpec) -> torch.Tensor:
    """Return frames (T, H, W, 3) as the encoder of the task sees them."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (spec.mean, spec.std))
    light = lab.luminance(lab.to_light((x - mean) / std, spec.image))
    return lab.from_light(light, spec.image).expand(-1, 3, -1, -1)


def patches(frames: NDArray[np.uint8]) -> torch.Tensor:
    """Return the 7 × 7 pixels around every fourth place (T, 147, h / 4, w / 4)."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.5
    side = frames.shape[1] // 4, frames.shape[2] // 4
    return F.unfold(pixels, 7, padding=3, stride=4).unflatten(2, side)


def measure(features: torch.Tensor, video: Video) -> tuple[float, float]:
    first = one_hot(video.masks[0], objects(video), tuple(features.shape[2:]))
    return score(carry(features.detach(), first), video.masks)


def still(video: Video) -> tuple[float, float]:
    """Leave the mask where it is."""
    first = one_hot(video.masks[0], objects(video), video.masks.shape[1:])  # type: ignore[arg-type]
    return score(first[None].expand(len(video.masks), -1, -1, -1), video.masks)


def flow(video: Video) -> tuple[float, float]:
    """Take the mask along the dense flow from each frame back to the one before."""
    import cv2

    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    light = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video.whole]
    places = np.stack(np.meshgrid(*map(np.arange, light[0].shape[::-1])), -1).astype(np.float32)  # x, y
    labels = [one_hot(video.masks[0], objects(video), light[0].shape).numpy()]
    for before, now in pairwise(light):
        there = places + method.calc(now, before, None)
        labels.append(np.stack([cv2.remap(part, there, None, cv2.INTER_LINEAR) for part in labels[-1]]))
    return score(torch.from_numpy(np.stack(labels)), video.masks)


def objects(video: Video) -> int:
    return int(video.masks.max()) + 1


def generated(source: Moving, count: int, size: int) -> list[Video]:
    drawn = source.take(np.arange(2000, 2000 + count))
    drawn.side = size
    numbers, found = np.arange(FRAMES), []
    for index in range(count):
        frames = drawn.frames(index, numbers)
        found.append(Video(frames, frames, drawn.masks(index, numbers)))
    return found


def davis(folder: Path, lines: int) -> list[Video]:
    found = []
    for sequence in sorted((folder / "images").iterdir()):
        images = [Image.open(path).convert("RGB") for path in sorted(sequence.iterdir())]
        masks = [Image.open(path).convert("L") for path in sorted((folder / "masks" / sequence.name).iterdir())]
        ratio = images[0].width / images[0].height
        small, whole = (4 * round(lines * ratio / 4), lines), (round(LINES * ratio), LINES)
        if len(images) == len(masks) > 1:
            frames = [
                np.stack([image.resize(size, Image.Resampling.BOX) for image in images]) for size in (small, whole)
            ]
            truth = np.stack([mask.resize(whole, Image.Resampling.NEAREST) for mask in masks])
            found.append(Video(*frames, (truth > 127).astype(np.uint8)))
    return found


if __name__ == "__main__":
    main()
