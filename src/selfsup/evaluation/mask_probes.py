"""Segmentation with few labelled images: patch features of a frozen encoder, read by a linear probe and by neighbours.

A patch of a labelled image gets the class of most of its labelled pixels. Readers give each patch of another image a
probability for each class, which is enlarged to the size of the mask (bilinear); the most probable class is compared
with the mask, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from selfsup.base.processes import side_by_side
from selfsup.base.progress import counting
from selfsup.errors import UserError
from selfsup.evaluation.baselines.patches import ABOUT, NAME, WITH_PLACE, RawColours
from selfsup.evaluation.draws import interval, nested_subsets
from selfsup.evaluation.false_colours import class_colours, pca_colours
from selfsup.evaluation.features import feature_batches
from selfsup.evaluation.frozen import FrozenEncoder
from selfsup.evaluation.mask_parts import MaskParts
from selfsup.evaluation.mask_readers import ABOUT as READ_BY
from selfsup.evaluation.mask_readers import Reader, fit_reader
from selfsup.evaluation.measuring import Sampling
from selfsup.evaluation.metrics import confusion, iou
from selfsup.evaluation.problems import about_copies, about_steps
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.score import Score
from selfsup.evaluation.targets import TARGETS
from selfsup.nn.image.dense import PatchFeatures, has_patch_features, patch_shape
from selfsup.run import Run
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.train.recalibrate import recalibrate
from selfsup.views.image.standard import whole

PATCHES = 10_000  # of the labelled images of a draw, at most, as many of each
BATCH = 16  # images at a time
HELD = 2**27  # numbers of features of test images at a time
SHOWN = 6  # images of the sheet

Job = tuple[str, int | None, int]  # protocol, shots, draw


class Shown(NamedTuple):
    """An image as the encoder gets it, its patch features in colours, its mask, and the mask that was predicted."""

    image: Image.Image
    features: Image.Image
    mask: Image.Image
    predicted: Image.Image


def measure_masks(
    run: Run,
    encoders: Sequence[FrozenEncoder],
    parts: MaskParts,
    sampling: Sampling,
    *,
    protocols: Sequence[str],
    device: torch.device,
    quiet: bool,
) -> tuple[Evaluation, list[Shown]]:
    """Return the evaluation of a run's encoder on masks, beside its baselines, and images with what it predicts.

    Args:
        run: The finished run.
        encoders: The encoder of the run, and others as baselines; those without patch features are left out.
        parts: The images and their masks.
        sampling: How labelled images are drawn.
        protocols: Keys of `mask_readers.READERS`.
        device: Where features are computed.
        quiet: No progress.

    Raises:
        UserError: More images asked for than there are.
    """
    spec: Any = run.spec
    shots, count, seed = sampling
    splits = [(np.flatnonzero(parts.fold != f), np.flatnonzero(parts.fold == f)) for f in range(parts.num_folds)]
    each = -(-count // parts.num_folds)
    draws = [
        [{k: train[rows] for k, rows in draw.items()} for draw in nested_subsets(len(train), shots, each, seed + f, 1)]
        for f, (train, _) in enumerate(splits)
    ]
    for one in encoders:
        if one.untrained:
            recalibrate(one.encoder, parts.images[0], one.spec, seed=seed, device=device)
    modules: dict[str, tuple[nn.Module, ImageSpec]] = {
        one.name: (PatchFeatures(one.encoder), one.spec) for one in encoders if has_patch_features(one.encoder)
    }
    grid = patch_shape(encoders[0].encoder)[1:]
    modules |= {NAME: (RawColours(grid), spec), WITH_PLACE: (RawColours(grid, place=True), spec)}
    values: dict[tuple[str, str, int | None], list[NDArray[np.int64]]] = {}
    shown: list[Shown] = []
    jobs = [[(p, k, d) for p in protocols for d, draw in enumerate(own) for k in draw if k or not d] for own in draws]
    with counting("reading patches", len(modules) * sum(map(len, jobs)), quiet) as advance:
        for name, (module, own) in modules.items():
            for fold, (_, test) in enumerate(splits):
                patches = _labelled_patches(module, own, parts, draws[fold], seed, device)
                readers = _Readers(patches, draws[fold], len(parts.classes))
                counts, first = _measure(module, own, parts, test, readers, jobs[fold], device)
                for (protocol, k, _), found in zip(jobs[fold], counts, strict=True):
                    values.setdefault((name, protocol, k), []).append(found)
                if not shown:
                    best = max(jobs[fold], key=lambda job: (job[0] == "linear", job[1] or np.inf, -job[2]))
                    shown = _show(spec, parts, first, readers.fit(best))
                advance(len(jobs[fold]))
    scores = tuple(_score(key, found, parts.classes) for key, found in values.items())
    about = _about(run, parts, splits, draws, sampling, protocols)
    if left := [one.name for one in encoders if not has_patch_features(one.encoder)]:
        about["warnings"].append(f"left out, as it has no patch features: {', '.join(left)}")
    return Evaluation(about, scores), shown


def patch_labels(mask: NDArray[np.int16], grid: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Return the class (h · w,) that most of the labelled pixels of each patch have, -1 where none has a label."""
    lines = [(np.arange(side) * parts) // side for side, parts in zip(mask.shape, grid, strict=True)]
    cell = lines[0][:, None] * grid[1] + lines[1]
    seen = mask >= 0
    places = cell[seen] * classes + mask[seen]
    counts = np.bincount(places, minlength=int(np.prod(grid)) * classes).reshape(-1, classes)
    return np.where(counts.any(1), counts.argmax(1), -1)


def _batches(
    module: nn.Module, spec: ImageSpec, parts: MaskParts, rows: NDArray[np.int64], device: torch.device
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield some of the images, by their numbers in both sides, with their features (b, D, h, w)."""
    first = 0
    for images in parts.images:
        own = rows[(rows >= first) & (rows < first + len(images))]
        if len(own):
            some: Source = images.take(own - first)
            for numbers, x in feature_batches(module, some, spec, BATCH, device, whole(spec)):
                yield own[numbers], x
        first += len(images)


Patches = Mapping[int, tuple[NDArray[np.float32], NDArray[np.int64]]]  # by image: features (m, D) and classes (m,)


def _labelled_patches(
    module: nn.Module,
    spec: ImageSpec,
    parts: MaskParts,
    draws: Sequence[Mapping[int | None, NDArray[np.int64]]],
    seed: int,
    device: torch.device,
) -> Patches:
    """Return patches, drawn by the seed, of all images that are in a draw."""
    needed = np.unique(np.concatenate([rows for draw in draws for rows in draw.values()]))
    most = max(1, PATCHES // max(len(rows) for draw in draws for rows in draw.values()))
    found = {}
    for numbers, x in _batches(module, spec, parts, needed, device):
        for number, one in zip(numbers.tolist(), x, strict=True):
            label = patch_labels(parts.masks[number], one.shape[1:], len(parts.classes))
            drawn = np.random.default_rng([seed, 4, number]).permutation(np.flatnonzero(label >= 0))[:most]
            found[number] = one.reshape(len(one), -1).T[drawn], label[drawn]
    return found


class _Readers(NamedTuple):
    """What the readers of all draws learn from."""

    patches: Patches
    draws: Sequence[Mapping[int | None, NDArray[np.int64]]]
    classes: int

    def fit(self, job: Job) -> Reader:
        """Return the reader of one draw."""
        protocol, shots, draw = job
        used = [self.patches[row] for row in self.draws[draw][shots].tolist() if row in self.patches]
        if not used:
            raise UserError("none of the labelled images of a draw can be read")
        x, y = (np.concatenate(part) for part in zip(*used, strict=True))
        images = np.repeat(np.arange(len(used)), [len(one) for one, _ in used])
        return fit_reader(protocol, x, y, images, self.classes)[0]


def _measure(
    module: nn.Module,
    spec: ImageSpec,
    parts: MaskParts,
    rows: NDArray[np.int64],
    readers: _Readers,
    jobs: Sequence[Job],
    device: torch.device,
) -> tuple[list[NDArray[np.int64]], dict[int, NDArray[np.float32]]]:
    """Return the confusion (classes, classes) of each reader on some images, and the features of the first, by number.

    As many images are read at a time as fit into memory.
    """
    classes = len(parts.classes)
    counts = [np.zeros((classes, classes), np.int64) for _ in jobs]
    held: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    first: dict[int, NDArray[np.float32]] = {}

    def read(job: Job) -> NDArray[np.int64]:
        reader, found = readers.fit(job), np.zeros((classes, classes), np.int64)
        for numbers, x in held:
            patches = reader(np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]))
            for number, one in zip(numbers.tolist(), patches.reshape(len(x), *x.shape[2:], -1), strict=True):
                truth = parts.masks[number]
                seen = truth >= 0
                found += confusion(truth[seen].astype(np.int64), enlarge(one, truth.shape)[seen], classes)
        return found

    def read_held() -> None:
        for total, found in zip(counts, side_by_side(read, jobs, device), strict=True):
            total += found
        held.clear()

    for numbers, maps in _batches(module, spec, parts, rows, device):
        held.append((numbers, maps))
        first |= dict(zip(numbers[: SHOWN - len(first)].tolist(), maps, strict=False))
        if sum(x.size for _, x in held) > HELD:
            read_held()
    read_held()
    return counts, first


def enlarge(probabilities: NDArray[np.float32], sides: Sequence[int]) -> NDArray[np.int64]:
    """Return the most probable class (H, W) after enlarging probabilities (h, w, classes), bilinear."""
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(probabilities, -1, 0)))[None]
    found: NDArray[np.int64] = F.interpolate(x, tuple(sides), mode="bilinear")[0].numpy().argmax(0)  # torch's is slow
    return found


def _score(key: tuple[str, str, int | None], found: Sequence[NDArray[np.int64]], classes: Sequence[str]) -> Score:
    """Return the score of a row; a class that a fold does not have counts in the others alone."""
    each = np.array([iou(counts) for counts in found])
    values = tuple(float(np.nanmean(one)) for one in each)
    right = [float(counts.trace() / counts.sum()) for counts in found]
    also = {"pixel accuracy": interval(right)[:2]}
    for name, column in zip(classes, each.T, strict=True):
        if not np.isnan(column).all():
            also[f"IoU of {name}"] = interval(column[~np.isnan(column)].tolist())[:2]
    mean, half, _ = interval(values)
    return Score(*key, mean, half, values, also)


def _show(spec: ImageSpec, parts: MaskParts, maps: Mapping[int, NDArray[np.float32]], read: Reader) -> list[Shown]:
    """Return images to measure on, by their patch features (D, h, w)."""
    colours, found, views = pca_colours(np.array([*maps.values()])), list[Shown](), whole(spec)
    first = sum(len(images) for images in parts.images[:-1])
    for (row, one), features in zip(maps.items(), colours, strict=True):
        x = views.finish(views.fetch(parts.images[-1], np.array([row - first]), 0, 0).batch)["x"][0]
        image = spec.draw(x)
        guess = read(one.reshape(len(one), -1).T).reshape(*one.shape[1:], -1)
        masks = parts.masks[row].astype(np.int64), enlarge(guess, (image.height, image.width))
        drawn = [Image.fromarray(class_colours(mask, len(parts.classes))) for mask in masks]
        found.append(Shown(image, Image.fromarray(features), drawn[0], drawn[1]))
    return found


def _about(
    run: Run,
    parts: MaskParts,
    splits: Sequence[Any],
    draws: Sequence[Any],
    sampling: Sampling,
    protocols: Sequence[str],
) -> dict[str, Any]:
    target, classes = TARGETS["masks"], parts.classes
    data, *others = parts.sources
    tested = np.concatenate([test for _, test in splits])
    pixels, drawn = parts.pixels(tested), parts.pixels(np.unique(np.concatenate([train for train, _ in splits])))
    common = int(drawn.argmax())
    chance = np.where(np.arange(len(classes)) == common, pixels / pixels.sum(), 0.0)
    present = np.flatnonzero(pixels)
    warnings = about_copies({"same": parts.copies(), "near": [], "alike": []}, len(tested))
    if lost := [classes[number] for number in present if not drawn[number]]:
        warnings.append(f"no image to draw from has {', '.join(lost)}, which test images have: always wrong")
    if unseen := [name for number, name in enumerate(classes) if not pixels[number]]:
        warnings.append(f"no test image has {', '.join(unseen)}: nothing is measured about that")
    steps = int(run.recipe["plan"]["steps"])
    warnings += about_steps(steps)
    variables = {
        f"IoU of {classes[n]}": {"metric": "IoU", "classes": 0, "chance": float(chance[n])} for n in present.tolist()
    }
    return {
        "run": str(run.folder), "task": run.task, "encoder": run.encoder_name, "steps": steps,
        "target": target.name, "metric": next(iter(target.metrics)), "unit": target.unit, "classes": len(classes),
        "variables": variables, "draws": sampling.draws, "folds": parts.num_folds, "seed": sampling.seed,
        "data": {"name": data.name, "samples": len(parts.images[0]), "fingerprint": data.fingerprint()},
        "test": {
            "name": others[0].name if others else data.name, "samples": len(tested), "held out": not others,
            "fingerprint": others[0].fingerprint() if others else None,
        },
        "labels": {"all" if k is None else str(k): len(rows) for k, rows in draws[0][0].items()},
        "chance": {"value": float(chance[present].mean()), "words": target.guess},
        "warnings": [*parts.notes, *warnings],
        "protocols": {name: READ_BY[name] for name in protocols} | ABOUT,
    }  # fmt: skip
