"""Images with labels of their places: which are used, their masks, and how they are split.

A mask is compared in its own size, which need not be that of its image; of larger ones every k-th pixel is used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.data.masks import HELP, IGNORED
from selfsup.errors import UserError
from selfsup.evaluation.duplicates import digest_of
from selfsup.evaluation.frame_parts import folds_of
from selfsup.evaluation.problems import contents, copied
from selfsup.nn.image.dense import has_patch_features
from selfsup.source import Broken, Labels, Masks, Source
from selfsup.spec import ImageSpec

MOST = 200  # images of a side of the split, or of all folds together, that are used
SIDE = 256  # pixels of the longer side of a mask in which is measured
MANY = 256  # classes; more are the numbers of objects, or the pixels of a photograph
LARGEST = 2**31 - 1
SHAPE = "of another shape than the image (save them as large as it, or in its ratio)"
ROUNDED = 0.02  # by which the ratio of the sides of a mask may differ from that of its image


@dataclass(frozen=True)
class MaskParts:
    """The images that are used, of the data and of the test data one after the other, with their masks.

    `images` of each side; `masks` of all, (h, w) int16 places of `classes`, -1 for no label; `fold` (n,) of each image:
    fold f is measured on once, with all others to draw labelled images from; -1 is never measured on.
    """

    sources: tuple[Source, ...]  # as given
    images: tuple[Source, ...]
    masks: tuple[NDArray[np.int16], ...]
    classes: tuple[str, ...]
    fold: NDArray[np.int64]
    notes: tuple[str, ...]

    @property
    def num_folds(self) -> int:
        """How many times another part is measured on."""
        return int(self.fold.max()) + 1

    def labels_to_draw(self) -> Labels:
        """Return a label for each image that can be drawn, of the fold that leaves the fewest."""
        left = [int((self.fold != fold).sum()) for fold in range(self.num_folds)]
        return Labels(np.zeros(min(left), np.int64), ("",))

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many pixels of some images are of each class (classes,)."""
        found = [np.bincount(self.masks[row].ravel() + 1, minlength=len(self.classes) + 1) for row in rows]
        counts: NDArray[np.int64] = np.sum(found, 0)[1:]
        return counts

    def copies(self) -> list[str]:
        """Return the paths of images that are measured on, and are among the others too."""
        digests = [digest_of(one) for part in self.images for one in contents(part)]
        paths = [part.path(index) for part in self.images for index in range(len(part))]
        return [paths[row] for row in copied(digests, self.fold)]


def make_mask_parts(data: Source, test: Source | None, encoder: Any, spec: Any, seed: int) -> MaskParts:
    """Return the images with usable masks, of which a fifth is set aside if there is no `test`.

    Where that fifth would be fewer than 50 images every one is measured on in turn, by 5-fold cross-validation. At most
    200 images to draw from and 200 to measure on are used, drawn by the seed.

    Raises `UserError` for data or an encoder that do not allow it, and for masks of one class alone.
    """
    if not isinstance(spec, ImageSpec):
        raise UserError(f"--target masks is for encoders of images, not of {spec.samples}")
    if not has_patch_features(encoder):
        raise UserError(
            "--target masks needs an encoder with patch features, and this one has only one vector an image: pretrain "
            "a convolutional one or a transformer, such as --encoder convnet or vit"
        )
    sources = (data,) if test is None else (data, test)
    sides = [_usable(one, spec, seed) for one in sources]
    names = tuple(dict.fromkeys(name for side in sides for name in side.names.values()))
    masks = tuple(_placed(mask, side.names, names) for side in sides for mask in side.masks)
    counts = [len(side.masks) for side in sides]
    if test is not None:
        fold = np.repeat([-1, 0], counts)
    elif counts[0] < 2:
        raise UserError(f"{data.name} has one image with a usable mask: give more, or --test to measure on")
    else:
        fold = folds_of(np.arange(counts[0]), None, data, seed)
    images = tuple(one.take(side.rows) for one, side in zip(sources, sides, strict=True))
    parts = MaskParts(sources, images, masks, names, fold, tuple(note for side in sides for note in side.notes))
    drawn = parts.pixels(np.flatnonzero(fold < 0) if test is not None else np.arange(len(fold)))
    if (drawn > 0).sum() < 2:
        only = names[int(drawn.argmax())]
        remedy = "" if sides[0].ignored == 0 else f"; {IGNORED} means no label, unless classes.csv names it as a class"
        raise UserError(f"all labelled pixels of {data.name} are of one class ({only!r}){remedy}")
    return parts


class _Side(NamedTuple):
    rows: NDArray[np.int64]  # of the source
    masks: list[NDArray[np.int32]]  # with numbers as they were given
    names: dict[int, str]  # of the classes that occur
    notes: tuple[str, ...]
    ignored: int  # pixels without a label


def _usable(source: Source, spec: ImageSpec, seed: int) -> _Side:
    """Return images with their masks, and notes that count what is left out."""
    given: Masks | None = getattr(source, "masks", None)
    if given is None:
        raise UserError(f"{source.name} has no masks: give --labels {HELP}")
    there = np.flatnonzero(given.numbers >= 0)
    if not len(there):
        raise UserError(f"no image of {source.name} has a mask: give --labels {HELP}")
    drawn = np.sort(np.random.default_rng([seed, 2]).permutation(there)[:MOST])
    conformed, reasons = source.conform(spec), Counter[str]()
    rows, masks, ignored, other = list[int](), list[NDArray[np.int32]](), 0, 0
    for row in drawn.tolist():
        try:
            mask, sides = given.read(row), np.array(conformed.read(row).shape[:2])
        except Broken as error:
            reasons[str(error)] += 1
            continue
        if _unlike(mask.shape, sides):
            reasons[SHAPE] += 1
        elif (mask < 0).all():
            reasons[f"without a pixel that has a label ({IGNORED} and below 0 mean none)"] += 1
        elif mask.max() > LARGEST:
            reasons["with numbers of more than 31 bits"] += 1
        else:
            other += mask.shape != tuple(sides)
            ignored += int((mask < 0).sum())
            step = -(-max(mask.shape) // SIDE)
            rows.append(row)
            masks.append(mask[step // 2 :: step, step // 2 :: step].astype(np.int32))
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(6))
    if 2 * len(rows) <= len(drawn):
        raise UserError(f"{len(drawn) - len(rows):,} of {len(drawn):,} masks of {source.name} cannot be used: {told}")
    present = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    present = present[present >= 0].tolist()
    if len(present) > MANY:
        raise UserError(
            f"the masks of {source.name} hold {len(present):,} different numbers: more than {MANY} are objects that "
            "are numbered, or a photograph, and no classes"
        )
    notes = []
    if len(there) > len(drawn):
        notes.append(f"of {len(there):,} images with a mask, {len(drawn):,} drawn ones are used")
    if told:
        notes.append(f"{len(drawn) - len(rows):,} of {len(drawn):,} images with a mask are left out: {told}")
    if other:
        notes.append(f"{other:,} masks have another size than their image, in the same ratio: measured in their own")
    unnamed = [number for number in present if number not in given.names]
    if unnamed and given.names:
        few = ", ".join(map(str, unnamed[:8])) + (", …" if len(unnamed) > 8 else "")
        notes.append(f"classes in masks that have no name are called by their numbers: {few}")
    names = {number: given.names.get(number, str(number)) for number in present}
    return _Side(np.array(rows), masks, names, tuple(f"{source.name}: {note}" for note in notes), ignored)


def _unlike(mask: tuple[int, ...], image: NDArray[np.int64]) -> bool:
    """Return whether a mask has sides in another ratio than its image, by more than the rounding of pixels."""
    ratio = float(np.log(mask[0] / mask[1]) - np.log(image[0] / image[1]))
    return abs(ratio) > max(ROUNDED, 1 / min(mask))


def _placed(mask: NDArray[np.int32], names: dict[int, str], classes: tuple[str, ...]) -> NDArray[np.int16]:
    """Return a mask with the places of its classes among all."""
    numbers, places = np.array(sorted(names)), np.array([classes.index(names[number]) for number in sorted(names)])
    return np.where(mask < 0, -1, places[np.searchsorted(numbers, np.maximum(mask, numbers[0]))]).astype(np.int16)
