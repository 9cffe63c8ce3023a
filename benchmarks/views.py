"""Views per second, beside the peers: `pip install selfsup[bench]`, then `python benchmarks/views.py [--rounds 9]`.

Every pipeline goes from the same files (or arrays) to the same filled batch, in one process, taking turns in each
round; a ratio is the median over the rounds of the ratios within a round. One thread for torch, OpenCV and numba,
except where workers are compared. Probabilities, strengths, scales and interpolation are the same. Compilation and
warm-up are not timed; the time of the first compilation is printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import lightly.transforms as L
import numpy as np
import pyarrow as pa
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from selfsup.base.cache import cache_folder
from selfsup.commands.doctor import processor
from selfsup.data.image import Arrays, Files
from selfsup.data.image.cache import Decoded
from selfsup.spec import ImageSpec
from selfsup.spec.image import FAMILIES
from selfsup.views.image import Crop, ImageViews, draw, preset
from selfsup.views.image.family import in_family
from selfsup.views.loader import batches

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import views_chain

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Run = Callable[[np.ndarray], Any]


# --- the corpus


def corpus(count: int = 600) -> tuple[Path, str]:
    """Return a folder of JPEG files of 500×375 pixels, made once, and their origin."""
    folder = cache_folder() / "views-benchmark"
    note = folder / "origin.txt"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                images = _photographs(Path(scratch))
                origin = f"parts of {len(images)} sample photographs of Debian's opencv-doc"
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"no photographs available ({error}); making a synthetic corpus (1/f noise)", file=sys.stderr)
                images, origin = [], "synthetic, 1/f noise"
            rng = np.random.default_rng(0)
            for number in range(count):
                image = images[number % len(images)] if images else _noise(rng)
                side = rng.uniform(0.6, 1)  # a different part of a photograph each time
                wide, high = int(image.width * side), int(image.height * side)
                left, top = rng.integers(0, image.width - wide + 1), rng.integers(0, image.height - high + 1)
                image = image.crop((left, top, left + wide, top + high))
                image = ImageOps.fit(image, (500, 375), Image.Resampling.BICUBIC)
                image.save(folder / f"{number:04}.jpg", quality=int(rng.integers(90, 98)), subsampling="4:2:0")
        note.write_text(origin)
    return folder, note.read_text()


def _photographs(scratch: Path) -> list[Image.Image]:
    """Return the colour sample images of the package that are no smaller than the corpus."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise OSError("no apt-get here")
    subprocess.run(["apt-get", "download", "opencv-doc"], cwd=scratch, check=True, capture_output=True)
    package = next(scratch.glob("*.deb"))
    subprocess.run(["dpkg", "-x", package, scratch / "doc"], check=True, capture_output=True)
    files = sorted(path for path in (scratch / "doc").rglob("*.jpg") if "examples" in path.parts)
    images = [Image.open(path) for path in files]
    return [image.copy() for image in images if image.mode == "RGB" and image.width * image.height >= 500 * 375]


def _noise(rng: np.random.Generator) -> Image.Image:
    """Return an image with the spectrum of natural ones: amplitude 1/f, correlated channels."""
    f = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None]) + 1 / 500
    mix = np.array([[1, 0.3, 0.1], [1, 0, -0.1], [1, -0.3, 0.1]])
    planes = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(3, 375, 500))) / f, s=(375, 500))
    pixels = np.tensordot(mix, planes / planes.std((1, 2), keepdims=True), 1).transpose(1, 2, 0)
    return Image.fromarray((128 + 45 * pixels).clip(0, 255).astype(np.uint8))


# --- the peers


class Images(Dataset):
    """Files or arrays through a peer's transform, as its own data set does it: Pillow for lightly, otherwise OpenCV."""

    def __init__(self, items: Any, transform: Any, albumentations: int = 0) -> None:
        self.items, self.transform, self.views = items, transform, albumentations

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        item = self.items[index]
        if self.views:
            pixels = cv2.cvtColor(cv2.imread(item), cv2.COLOR_BGR2RGB) if isinstance(item, str) else item
            kinds = self.transform if isinstance(self.transform, list) else [self.transform] * self.views
            return [kind(image=pixels)["image"] for kind in kinds]
        return list(self.transform(Image.open(item).convert("RGB") if isinstance(item, str) else Image.fromarray(item)))


def collate(samples: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.stack(view) for view in zip(*samples, strict=True)]


def one_by_one(data: Images) -> Run:
    return lambda indices: collate([data[int(i)] for i in indices])


def albumentation(crop: Crop, view: int = 0, whole: bool = False) -> A.Compose:
    """Return a view of a group by albumentations; `whole`: uint8 out."""
    b, c, s, h = crop.jitter or (0, 0, 0, 0)
    ranges = {
        "brightness_range": (max(0, 1 - b), 1 + b),
        "contrast_range": (max(0, 1 - c), 1 + c),
        "saturation_range": (max(0, 1 - s), 1 + s),
        "hue_range": (-h, h),
    }
    assert crop.scale is not None
    return A.Compose(
        [
            A.RandomResizedCrop((crop.size, crop.size), scale=crop.scale, interpolation=cv2.INTER_LINEAR),
            A.HorizontalFlip(p=crop.flip),
            A.ColorJitter(**ranges, p=crop.jitter_p),
            A.ToGray(p=crop.gray),
            A.GaussianBlur(sigma_range=crop.sigma, p=crop.each("blur")[view]),
            A.Solarize(threshold_range=(0.5, 0.5), p=crop.each("solarize")[view]),
            *([] if whole else [A.Normalize(MEAN, STD)]),
            ToTensorV2(),
        ]
    )


def ours(source: Any, groups: dict[str, Crop], output: str, size: int = 224) -> Run:
    views = ImageViews(ImageSpec(size, 3, MEAN, STD), groups, output=output)
    return lambda indices: views.fetch(source, indices, 0, 0)


# --- measuring


def by_turns(runs: dict[str, Run], count: int, total: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each pipeline in each round, on the same indices within a round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for round_ in range(-1, rounds):  # the first one is a warm-up
        indices = np.random.default_rng(round_ + 1).permutation(total)[:count].astype(np.int64)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            begin = time.perf_counter()
            runs[name](indices)
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def show(title: str, seconds: dict[str, list[float]], count: int, floor: str | None = None) -> dict[str, Any]:
    """Print a table of one case; return it."""
    print(f"\n{title}")
    result: dict[str, Any] = {}
    mine = [name for name in seconds if name.startswith("ours")]
    for name, times in seconds.items():
        row: dict[str, float] = {"images_per_second": count / statistics.median(times)}
        if name in mine:
            for peer in seconds:
                if peer in ("lightly", "albumentations"):
                    row[f"times {peer}"] = ratio(seconds, peer, name)
            if floor is not None:
                row["fraction of decoding alone"] = ratio(seconds, floor, name)
        text = "   ".join(f"{value:.2f} {key}" for key, value in row.items() if key != "images_per_second")
        print(f"  {name:<28}{row['images_per_second']:>9.0f} images/s   {text}")
        result[name] = row
    return result


def decode(source: Files) -> Run:
    return lambda indices: [source.read(int(i)) for i in indices]


def bilinear(groups: dict[str, Crop]) -> dict[str, Crop]:
    """Return the groups with the interpolation of the peers."""
    return {key: replace(crop, bicubic=False) for key, crop in groups.items()}


def files_case(source: Files, paths: list[str], rounds: int) -> dict[str, Any]:
    groups = preset("simclr")
    runs = {
        "lightly": one_by_one(Images(paths, L.SimCLRTransform(input_size=224))),
        "albumentations": one_by_one(Images(paths, albumentation(groups["x"]), 2)),
        "ours float32": ours(source, groups, "float32"),
        "ours uint8": ours(source, groups, "uint8"),
        "ours crops only": ours(source, groups, "crops"),
        "ours float32, decoded cache": ours(Decoded(source), groups, "float32"),
        "decoding alone": decode(source),
    }
    runs["ours float32, decoded cache"](np.arange(len(source)))  # fill it
    return show("SimCLR 2×224 from JPEG, one thread", by_turns(runs, 64, len(source), rounds), 64, "decoding alone")


def multicrop_case(source: Files, paths: list[str], rounds: int) -> dict[str, Any]:
    groups = bilinear(preset("dino"))
    kinds = [albumentation(groups["x"], 0), albumentation(groups["x"], 1), *[albumentation(groups["local"])] * 8]
    transform = L.DINOTransform(global_crop_scale=(0.4, 1.0), local_crop_scale=(0.05, 0.4), n_local_views=8)
    runs = {
        "lightly": one_by_one(Images(paths, transform)),
        "albumentations": one_by_one(Images(paths, kinds, 10)),
        "ours float32": ours(source, groups, "float32"),
        "ours uint8": ours(source, groups, "uint8"),
        "decoding alone": decode(source),
    }
    return show(
        "DINO 2×224 + 8×96 from JPEG, one thread", by_turns(runs, 32, len(source), rounds), 32, "decoding alone"
    )


def workers_case(source: Files, paths: list[str], rounds: int) -> dict[str, Any]:
    groups, size, count = preset("simclr"), 32, 8
    spec = ImageSpec(224, 3, MEAN, STD)

    def peer(data: Images) -> Run:
        loader = DataLoader(
            data, size, shuffle=True, num_workers=2, collate_fn=collate, drop_last=True, persistent_workers=True
        )

        def run(indices: np.ndarray) -> None:
            for _, step in zip(loader, range(count), strict=False):
                if step == count - 1:
                    return

        return run

    def mine(output: str) -> Run:
        views = ImageViews(spec, groups, output=output)

        def run(indices: np.ndarray) -> None:
            for _ in batches(source, views, batch_size=size, seed=int(indices[0]), start=0, steps=count, workers=2):
                pass

        return run

    few = paths[: size * count]
    runs = {
        "lightly": peer(Images(few, L.SimCLRTransform(input_size=224))),
        "albumentations": peer(Images(few, albumentation(groups["x"]), 2)),
        "albumentations uint8": peer(Images(few, albumentation(groups["x"], whole=True), 2)),
        "ours uint8 (default)": mine("uint8"),
        "ours float32": mine("float32"),
    }
    seconds = by_turns(runs, size * count, len(source), rounds)
    result = show("SimCLR 2×224, two workers, to a filled batch (peers: two processes, float32)", seconds, size * count)
    against = ratio(seconds, "albumentations uint8", "ours uint8 (default)")
    print(f"  ours uint8 against albumentations uint8: {against:.2f}")
    return {**result, "ours uint8 times albumentations uint8": against}


def small_case(rounds: int) -> dict[str, Any]:
    folder, _ = corpus()
    thumbnails = [
        Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BOX) for path in sorted(folder.glob("*.jpg"))
    ]
    pixels = np.stack([np.asarray(thumbnails[i % len(thumbnails)]) for i in range(1024)])
    groups = preset("simclr", 32)
    transform = L.SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)
    runs = {
        "lightly": one_by_one(Images(list(pixels), transform)),
        "albumentations": one_by_one(Images(list(pixels), albumentation(groups["x"]), 2)),
        "ours float32": ours(Arrays(pixels), groups, "float32", 32),
        "ours uint8": ours(Arrays(pixels), groups, "uint8", 32),
    }
    return show("SimCLR 2×32, images in memory, one thread", by_turns(runs, 512, 1024, rounds), 512)


def families_case(source: Files, paths: list[str], rounds: int) -> dict[str, Any]:
    """Return what the families and each step beyond the published views cost, in units of SimCLR's natural views."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths[:64]]
    small = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in images])
    cases = {
        "2×224 from JPEG": (source, 224, 32),
        "2×224 in memory": (Arrays(np.stack(images)), 224, 32),
        "2×32 in memory": (Arrays(np.tile(small, (8, 1, 1, 1))), 32, 512),
    }
    result: dict[str, Any] = {}
    for title, (data, size, count) in cases.items():
        natural = preset("simclr", size)
        kinds = {family: in_family(family, natural) for family in FAMILIES}
        for step in ({"elastic": size / 32}, {"noise": 0.1}):
            kinds[next(iter(step))] = {"x": replace(natural["x"], **step)}
        runs = {name: ours(data, groups, "float32", size) for name, groups in kinds.items()}
        seconds = by_turns(runs, count, len(data), rounds)
        result[title] = {name: ratio(seconds, name, "natural") for name in kinds if name != "natural"}
        print(f"\n{title}, times natural: " + "   ".join(f"{key} {value:.2f}" for key, value in result[title].items()))
    return result


# --- fidelity


def fidelity(source: Files) -> dict[str, float]:
    """Return the mean absolute difference from torchvision (range 0 to 1, same parameters) of each step and of all."""
    crop, indices = replace(preset("simclr")["x"], solarize=0.2), np.arange(48)
    images = [source.read(int(i)) for i in indices]
    u = draw.draws(0, 0, indices, 2)
    shapes = np.array([p.shape[:2] for p in images])
    where = draw.places(crop, shapes, u, 0, 0, indices, 0)
    alone = {
        "crop": replace(crop, jitter=None, gray=0.0, blur=0.0, solarize=0.0),
        "jitter": replace(crop, jitter_p=1.0, gray=0.0, blur=0.0, solarize=0.0),
        "gray": replace(crop, jitter=None, gray=1.0, blur=0.0, solarize=0.0),
        "blur": replace(crop, jitter=None, gray=0.0, blur=1.0, solarize=0.0),
        "solarize": replace(crop, jitter=None, gray=0.0, blur=0.0, solarize=1.0),
        "whole chain": crop,
    }
    found = {}
    for name, kind in alone.items():
        views = ImageViews(ImageSpec(224, 3, (0.0,) * 3, (1.0,) * 3), {"x": kind}, output="float32")
        got, color = views.fetch(source, indices, 0, 0).batch["x"], draw.color_params(kind, u)
        found[name] = statistics.fmean(
            float(
                (got[n, v] - views_chain.view(images[n], where.box[n, v], where.flip[n, v], 224, color[n, v]))
                .abs()
                .mean()
            )
            for n in range(len(indices))
            for v in range(2)
        )
    return found


def first_use() -> float:
    """Return the seconds that a first use takes with an empty compilation cache, in a process of its own."""
    code = (
        "import time, numpy as np; from selfsup.data.image import Arrays\n"
        "from selfsup.spec import ImageSpec\n"
        "from selfsup.views.image import ImageViews, preset; begin = time.perf_counter()\n"
        "views = ImageViews(ImageSpec.of(32, 3), preset('simclr', 32))\n"
        "views.fetch(Arrays(np.zeros((8, 32, 32, 3), np.uint8)), np.arange(8), 0, 0)\n"
        "print(time.perf_counter() - begin)"
    )
    with tempfile.TemporaryDirectory() as empty:
        env = os.environ | {"NUMBA_CACHE_DIR": empty}
        return float(
            subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=["files", "multicrop", "workers", "small", "families", "fidelity"])
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder, origin = corpus()
    paths = [str(path) for path in sorted(folder.glob("*.jpg"))]
    source = Files(str(folder), pa.array([os.path.basename(path).encode() for path in paths], pa.binary()))
    size = statistics.fmean(os.path.getsize(path) for path in paths)
    names = (
        "torch",
        "torchvision",
        "lightly",
        "albumentationsx",
        "opencv-python-headless",
        "pillow",
        "simplejpeg",
        "numba",
    )
    versions = {name: importlib.metadata.version(name) for name in names}
    print(f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}; {versions}")
    print(f"corpus: {len(paths)} JPEG files of 500×375 ({origin}), mean {size / 1000:.0f} kB; {options.rounds} rounds")
    cases: dict[str, Callable[[], dict[str, Any]]] = {
        "files": lambda: files_case(source, paths, options.rounds),
        "multicrop": lambda: multicrop_case(source, paths, options.rounds),
        "workers": lambda: workers_case(source, paths, options.rounds),
        "small": lambda: small_case(options.rounds),
        "families": lambda: families_case(source, paths, options.rounds),
        "fidelity": lambda: dict(fidelity(source)),
    }
    found: dict[str, Any] = {"versions": versions, "corpus": origin}
    for name, case in cases.items():
        if options.only in (None, name):
            found[name] = case()
    if "fidelity" in found:
        print("\nmean absolute difference from torchvision (float, range 0 to 1, same parameters):")
        print("  " + "   ".join(f"{name} {value:.1e}" for name, value in found["fidelity"].items()))
        print(f"first use, compiling: {first_use():.1f} s (kept on disk after that)")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
