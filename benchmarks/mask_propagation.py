"""Masks carried through videos by features: J and F beside identity, raw pixels and the untrained encoder.

    python benchmarks/mask_propagation.py                         # moving, trained here for --steps
    python benchmarks/mask_propagation.py --run RUN --davis DIR   # DIR/images/NAME/*.jpg, DIR/masks/NAME/*.png

The encoder of `video_colorization` reads lightness, so all rows but raw pixels do. Three seeds of pretraining; the
interval is over videos, the mean over seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import sem

import selfsup
from selfsup.data.video import Moving
from selfsup.encoders import build_encoder
from selfsup.evaluation.carry import carry, one_hot, score
from selfsup.nn.image import lab

FRAMES = 16  # of moving, in which sprites cross half of the frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--videos", type=int, default=50, help="of moving, none of which is trained on")
    parser.add_argument("--davis", type=Path, help="a folder of images/NAME and masks/NAME, of one object each")
    parser.add_argument("--run", type=Path, help="a run of video_colorization, instead of training one")
    args = parser.parse_args()
    source = Moving("moving", 2000 + args.videos)
    spec = source.spec(size=args.size)
    clips = davis(args.davis, args.size) if args.davis else generated(source, args.videos, args.size)
    rows: dict[str, list[list[tuple[float, float]]]] = {
        "identity": [],
        "raw pixels": [],
        "untrained": [],
        "trained": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            run = selfsup.Run(args.run) if args.run else selfsup.pretrain(
                source.take(np.arange(2000)), task="video_colorization", size=args.size, steps=args.steps,
                batch_size=16, seed=seed, out=Path(scratch) / str(seed), recalibrate=False,  # its frames are grey
            )  # fmt: skip
            torch.manual_seed(seed)
            untrained = build_encoder(run.encoder_name, spec).train()
            with torch.no_grad():  # with BatchNorm statistics of the data
                untrained.frame_maps(torch.cat([grey(frames, spec)[::4] for frames, _ in clips[:16]])[None])
            for name, encoder in (("untrained", untrained.eval()), ("trained", run.load())):
                rows[name].append([measure(encoder.frame_maps(grey(x, spec)[None])[0], y) for x, y in clips])
    side = args.size // 4
    for frames, masks in clips:
        still = one_hot(masks[0], int(masks.max()) + 1, (side, side))
        rows["identity"].append([score(still[None].expand(len(masks), -1, -1, -1), masks)])
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.5
        small = torch.nn.functional.unfold(pixels, 7, padding=3, stride=4).unflatten(2, (side, side))
        rows["raw pixels"].append([measure(small, masks)])
    print(f"{len(clips)} videos of {len(clips[0][1])} frames or so, {args.size} × {args.size}, {args.seeds} seeds")
    for name, found in rows.items():
        x = (
            np.array(found).reshape(-1, len(clips), 2).mean(0)
            if name in ("trained", "untrained")
            else np.array(found)[:, 0]
        )
        mean, half = x.mean(0), 1.96 * sem(x, 0)
        print(f"{name:12} J {mean[0]:.3f} ±{half[0]:.3f}   F {mean[1]:.3f} ±{half[1]:.3f}")


def grey(frames: NDArray[np.uint8], spec: selfsup.spec.ClipSpec) -> torch.Tensor:
    """Return frames (T, H, W, 3) as the encoder of the task sees them."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (spec.mean, spec.std))
    light = lab.luminance(lab.to_light((x - mean) / std, spec.image))
    return lab.from_light(light, spec.image).expand(-1, 3, -1, -1)


def measure(features: torch.Tensor, masks: NDArray[np.uint8]) -> tuple[float, float]:
    first = one_hot(masks[0], int(masks.max()) + 1, tuple(features.shape[2:]))
    return score(carry(features.detach(), first), masks)


def generated(source: Moving, count: int, size: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    drawn = source.take(np.arange(2000, 2000 + count))
    drawn.side = size
    return [(drawn.frames(i, np.arange(FRAMES)), drawn.masks(i, np.arange(FRAMES))) for i in range(count)]


def davis(folder: Path, size: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    found = []
    for sequence in sorted((folder / "images").iterdir()):
        files = sorted(sequence.iterdir()), sorted((folder / "masks" / sequence.name).iterdir())
        images = [Image.open(path).convert("RGB").resize((size, size)) for path in files[0]]
        masks = [Image.open(path).convert("L").resize((size, size), 0) for path in files[1]]
        if len(images) == len(masks) > 1:
            found.append((np.stack(images), (np.stack(masks) > 127).astype(np.uint8)))
    return found


if __name__ == "__main__":
    main()
