"""Objects cut out and laid on photographs, with the mask of each image: truth for segmentation, made as it is read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.data.image.sources import Images
from selfsup.data.index import fingerprint_of_generated
from selfsup.data.photographs import PHOTOGRAPHS, piece
from selfsup.source import Masks
from selfsup.spec import ImageSpec, Spec

COUNT, SIDE = 2000, 96  # images, and their pixels a side
BACKGROUND = "background"


class Object(NamedTuple):
    """One object: the number of its cut-out, its centre (y, x) and size in units of the image, and how it lies."""

    number: int
    centre: NDArray[np.float64]
    size: float
    degrees: float
    mirrored: bool


class Cutouts(Images):
    """Images of two to four objects on a piece of a photograph: 0.35 to 0.55 of its side, tilted, partly hidden.

    Everything about an image follows from the seed and its number. In its mask 0 is the background and k + 1 the k-th
    class, where the object covers at least half of a pixel.

    Args:
        sprites: cut-outs (N, h, w, 4) uint8, colours and how opaque they are.
        ids: the class (N,) of each.
        classes: their names.
        name: of the data.
        count: how many images.
        seed: of the images.
    """

    def __init__(
        self, sprites: NDArray[np.uint8], ids: NDArray[np.int64], classes: tuple[str, ...], name: str = "cutouts",
        count: int = COUNT, seed: int = 0,
    ) -> None:  # fmt: skip
        self.sprites, self.ids, self.name, self.seed, self.labels = sprites, ids, name, seed, None
        self.numbers = np.arange(count)
        names = dict(enumerate((BACKGROUND, *classes)))
        self.masks = Masks(self.numbers, lambda number: self._render(number)[1], names, name)

    def __len__(self) -> int:
        return len(self.numbers)

    def native(self, index: int) -> NDArray[np.uint8]:
        """Return (96, 96, 3)."""
        return self._render(int(self.numbers[index]))[0]

    def path(self, index: int) -> str:
        """Return the number of the image."""
        return str(self.numbers[index])

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        range: str | None = None,
        views: str | None = None,
    ) -> ImageSpec:
        """Return what an encoder gets of these images; see `Arrays.spec`."""
        return self._own_spec((SIDE, SIDE, 3), size or SIDE, channels, range, views)

    def conform(self, spec: Spec) -> Cutouts:
        """Return the same; the views convert the channels."""
        return self._conformed(spec, 3)

    def _are_ordinary(self, channels: int) -> bool:
        return True

    def take(self, indices: NDArray[np.int64]) -> Cutouts:
        """Return some of the images."""
        taken = self._some(indices)
        taken.numbers = self.numbers[indices]
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the name and the numbers, and of labels and masks."""
        return fingerprint_of_generated(self.name, self.numbers, self.labels, self.masks)

    def _render(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return an image (96, 96, 3) and its mask (96, 96)."""
        u = np.random.Generator(np.random.Philox(key=[number, self.seed]))
        image = Image.fromarray(piece(int(u.integers(PHOTOGRAPHS)), u.uniform(0, 1, 2), SIDE))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for one in self._scene(u):
            side = round(SIDE * one.size)
            left, top = (round(SIDE * float(place) - side / 2) for place in one.centre[::-1])
            drawn = Image.fromarray(self.sprites[one.number])
            drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if one.mirrored else drawn
            drawn = drawn.rotate(one.degrees, Image.Resampling.BILINEAR).resize((side, side), Image.Resampling.BOX)
            image.paste(drawn, (left, top), drawn)
            cover = Image.new("L", (SIDE, SIDE))
            cover.paste(drawn.getchannel("A"), (left, top))
            mask[np.asarray(cover) > 127] = self.ids[one.number] + 1
        return np.asarray(image), mask

    def _scene(self, u: np.random.Generator) -> list[Object]:
        """Draw the objects, each of a class as likely as any other."""
        known = np.unique(self.ids)
        found = []
        for _ in range(int(u.integers(2, 5))):
            number = int(u.choice(np.flatnonzero(self.ids == u.choice(known))))
            found.append(
                Object(number, u.uniform(0.15, 0.85, 2), u.uniform(0.35, 0.55), u.uniform(-20, 20), bool(u.integers(2)))
            )
        return found
