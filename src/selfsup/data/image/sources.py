"""What all sources of images have: a range of values, one for the whole data set, and the measuring of it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from selfsup.base.notes import say_notes
from selfsup.data.image.decode import to_channels
from selfsup.data.image.values import SAMPLE, Range, Values, family, mean_std, read_range, scaled
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, Masks, Source, source_repr
from selfsup.spec import ImageSpec, Spec

AUTO = "auto"  # the range is measured when it is first needed
COMPARED = 16  # images whose values are compared with those of another data set


class Images:
    """What all sources of images have: a range of values, one for the whole data set, and the measuring of it.

    `range`: see `ImageSpec.range`; "auto" until it is known. `notes`: what was left out, and how values are read.
    `families`: of the types among which the range was found (`values.family`), as another one has another scale.
    """

    kind = "image"
    name: str
    labels: Labels | None
    masks: Masks | None = None
    said_notes: tuple[str, ...] = ()
    range: str | Range | None = AUTO
    families: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    _measured: str | Range | None = AUTO  # what is read without a spec
    _compared: tuple[Range | None, ...] = ()  # ranges of encoders with which the values were compared

    __repr__ = source_repr

    def __len__(self) -> int:
        raise NotImplementedError

    def native(self, index: int) -> NDArray[Any]:
        """Return (H, W, C) with the values that were stored, or raise `Broken`."""
        raise NotImplementedError

    def extent(self, index: int) -> int:
        """Return 1."""
        return 1

    def path(self, index: int) -> str:
        """Return the sample's number."""
        return str(index)

    def read(self, index: int, span: slice | None = None) -> NDArray[Any]:
        """Return (H, W, C): uint8 or uint16 as they are, any other values as float32 from 0 to 1; or raise `Broken`."""
        pixels = self.native(index)
        if pixels.dtype == np.uint8 and (self.range is None or self.range == AUTO):
            return pixels
        if self.families and family(pixels) not in self.families:
            raise Broken(f"{pixels.dtype} values in a data set of others; --range MIN:MAX reads all alike")
        return scaled(pixels, self.bounds())

    def _some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy with the labels and masks of some of the images, for `take`."""
        taken = copy.copy(self)
        taken.labels = self.labels and self.labels.take(indices)
        taken.masks = self.masks and self.masks.take(indices)
        return taken

    def bounds(self) -> Range | None:
        """Return the range, measured if it has not been given."""
        if self.range == AUTO and self._measured == AUTO:
            self._measured, _ = self._look().choose(AUTO)
        return self._measured if self.range == AUTO else self.range  # type: ignore[return-value]

    def _sample(self) -> list[int]:
        """Return which samples are looked at: the same ones each time."""
        count = len(self)
        if count <= SAMPLE:
            return list(range(count))
        return sorted(np.random.default_rng(0).choice(count, SAMPLE, replace=False).tolist())

    def _look(self, few: int = SAMPLE) -> Values:
        """Return what a sample of the images holds."""
        found, sample = Values(), self._sample()
        for index in sample[:: -(-len(sample) // few)]:
            with contextlib.suppress(Broken):
                found.add(self.native(index))
        return found

    def _own_spec(
        self, shape: tuple[int, ...], size: int, channels: int | None, wanted: object, views: str | None
    ) -> ImageSpec:
        """Return the spec of images that all have the shape (H, W, C); see `spec`."""
        check_channels(shape[2], self.name, channels)
        return in_views(self._made(size, channels or shape[2], wanted), views)

    def _conformed(self, spec: Spec, channels: int) -> Self:
        """Return images of so many channels, read with the range of the spec; the views convert the channels."""
        spec = image_only(self, spec)
        check_channels(channels, self.name, spec.channels)
        self._compare(spec.range, spec.channels)
        return self.conform_to(spec.channels, spec.range)

    def _made(self, size: int, channels: int, wanted: object) -> ImageSpec:
        """Return the spec with the range, and for other than 8-bit colours with the measured mean and deviation."""
        found, chosen = self._look(), read_range(wanted)
        bounds, told = found.choose(chosen)
        self.range, self.families = bounds, frozenset() if isinstance(chosen, tuple) else found.families
        self._say(told)
        if channels == 3 and bounds is None:
            return ImageSpec.of(size, 3)
        looked = []
        for index in self._sample():
            with contextlib.suppress(Broken):
                looked.append(to_channels(self.conform_to(channels, bounds).read(index), channels))
        if not looked:
            return replace(ImageSpec.of(size, channels), range=bounds)
        mean, std = mean_std(looked, channels)
        return ImageSpec(size, channels, mean, std, bounds)

    def _say(self, told: Sequence[str]) -> None:
        self.notes = (
            *self.notes,
            *(f"{self.name}: {line}" for line in told if f"{self.name}: {line}" not in self.notes),
        )

    def conform_to(self, channels: int, bounds: Range | None) -> Self:
        """Return the same images with these channels and this range."""
        if self.range == bounds:
            return self
        same = copy.copy(self)
        same.range, same.families = bounds, frozenset()
        return same

    def _compare(self, bounds: Range | None, channels: int) -> None:
        """Say where the values are other than those with which an encoder was trained.

        Raises `UserError` for images of other channels.
        """
        if self.range != AUTO or bounds in self._compared:
            return
        self._compared = (*self._compared, bounds)
        ordinary = self._are_ordinary(channels)
        if bounds is not None or not ordinary:
            self._say(self._look(COMPARED).compare(bounds))
        say_notes(self)

    def _are_ordinary(self, channels: int) -> bool:
        """Return whether the images are known to have 8 bits, without a look at them; check their channels."""
        return False


def in_views(spec: ImageSpec, views: str | None) -> ImageSpec:
    """Return the spec with a family of views; None is natural. Raises `UserError` for an unknown one."""
    return spec if views is None else replace(spec, views=views)


def image_only(source: Images | Source, spec: Spec) -> ImageSpec:
    """Return the spec; raise `UserError` for one of another kind."""
    if not isinstance(spec, ImageSpec):
        raise UserError(f"{source.name} holds no {spec.samples}, which this encoder takes")
    return spec


def check_channels(have: int, name: str, channels: int | None) -> None:
    """Raise `UserError` for a number of channels to which images of `have` channels cannot be converted."""
    if channels not in (None, have) and (have, channels) not in ((1, 3), (3, 1)):
        raise UserError(f"{name} has {have} channels, which cannot become {channels}: give another --channels")


def image_spec(source: Source, **given: Any) -> ImageSpec:
    """Return the spec of images with the options that were given; `UserError` for data of another kind."""
    spec = source.spec(**{key: value for key, value in given.items() if value is not None})
    if not isinstance(spec, ImageSpec):
        raise UserError(f"{source.name} holds no images")
    say_notes(source)
    return spec
