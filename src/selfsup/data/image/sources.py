"""Sources of images: arrays in memory, and files."""

from __future__ import annotations

import builtins
import contextlib
import copy
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.notes import say_notes
from selfsup.data.image.decode import Header, decode_image, read_bytes, read_header, to_channels
from selfsup.data.image.values import SAMPLE, Range, Values, family, mean_std, read_range, scaled
from selfsup.data.index import fingerprint
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, Masks, Source
from selfsup.spec import ImageSpec, Spec
from selfsup.spec.image import MAX_CHANNELS

AUTO = "auto"  # the range is measured when it is first needed
CHECKED = 1 << 28  # bytes of files that are read to look at a sample of them
NEAR = 4  # places of which neighbours are looked at, where these are read together
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


class Arrays(Images):
    """Images in memory: `x` (N, H, W[, C]), numbers of any type, up to 64 channels. Raises `UserError` for others."""

    def __init__(self, x: NDArray[Any], labels: Labels | None = None, name: str = "arrays") -> None:
        if x.ndim not in (3, 4) or x.dtype.kind not in "buif":
            raise UserError(f"{name}: x must hold numbers, of shape (N, H, W) or (N, H, W, C), not {x.dtype} {x.shape}")
        if x.ndim == 3 and x.shape[2] in (3, 4) and min(x.shape[:2]) > 4:
            raise UserError(
                f"{name}: x has the shape {x.shape}, which is one image in colour, or {x.shape[0]} images {x.shape[2]} "
                "pixels wide: give x[None] for the one image, (N, H, W, C) for several"
            )
        if x.ndim == 3:
            x = x[..., None]
        if len(x) == 0:
            raise UserError(f"{name} holds no images")
        first, *others = x.shape[1:]
        # a height that is less than the width and the number of channels is rare: no image that low, or no square one
        if x.shape[3] > 4 and (first in (1, 3) or (first < min(others) and (first <= 16 or others[0] == others[1]))):
            raise UserError(f"{name}: x has the shape {x.shape}; channels come last: x.transpose(0, 2, 3, 1)")
        if 0 in x.shape or x.shape[3] > MAX_CHANNELS:
            raise UserError(f"{name}: x has the shape {x.shape}; images have 1 to {MAX_CHANNELS} channels, last")
        if labels is not None and len(labels.ids) != len(x):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(x)} images")
        if x.dtype == np.bool_:
            x = x.astype(np.uint8) * np.uint8(255)
        self.x, self.labels, self.name = np.ascontiguousarray(x, x.dtype.newbyteorder("=")), labels, name

    def __len__(self) -> int:
        return len(self.x)

    def native(self, index: int) -> NDArray[Any]:
        """Return (H, W, C), in the type of the arrays."""
        return self.x[index]

    def several(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return images (N, H, W, C), read as `read` does, and which of them are these samples."""
        if (self.x.dtype == np.uint8 and (self.range is None or self.range == AUTO)) or (
            self.x.dtype == np.uint16 and self.range is None
        ):
            return self.x, indices
        return np.stack([self.read(index) for index in indices.tolist()]), np.arange(len(indices))

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        range: str | None = None,
        views: str | None = None,
    ) -> ImageSpec:
        """Return what an encoder gets of these arrays.

        Args:
            size: Pixels a side; by default the arrays' own shorter side, at least 8, in [8, 4096].
            channels: Channels of an image; by default the arrays' own, in [1, 64].
            range: As for files.
            views: As for files.

        Raises:
            UserError: For other channels than their own, unless grey becomes three or colour becomes grey, and for an
                unknown family of views.
        """
        shape = self.x.shape[1:]
        return self._own_spec(shape, size or max(min(shape[:2]), 8), channels, range, views)

    def conform(self, spec: Spec) -> Arrays:
        """Return the same, read with the range of the spec; the views convert the channels."""
        return self._conformed(spec, self.x.shape[3])

    def _are_ordinary(self, channels: int) -> bool:
        return self.x.dtype == np.uint8

    def take(self, indices: NDArray[np.int64]) -> Arrays:
        """Return some of the images."""
        taken = self._some(indices)
        taken.x = self.x[indices]
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the shape, every pixel and the labels."""
        about = repr(self.x.shape) + (self.x.dtype.str if self.x.dtype.itemsize > 2 else "")
        digest = hashlib.blake2b(about.encode(), digest_size=8)
        digest.update(self.x.data)
        for given in (self.labels, self.masks):
            if given is not None:
                digest.update(given.digest())
        return digest.hexdigest()


class Store(Protocol):
    """Where the bytes of image files are that are not files of a folder, such as shards (`selfsup.data.shards`).

    `block`: how many consecutive files are read together; 1 where any file is as near as any other.
    """

    block: int

    def read(self, place: int) -> bytes:
        """Return the content of the file with this number, or raise `Broken`; from any thread."""

    def prefetch(self, places: NDArray[np.int64]) -> None:
        """Begin to fetch what is read soon, if it is far away, and return at once."""


class Files(Images):
    """Image files below `root`. Paths are raw bytes in one Arrow array: light for millions, any file name.

    `channels`: the number with which files are read, None for 3, or all bands of those that have more; `pages`: which
    page of each file is the sample, None for the first. `store`: what has the bytes if not the folder `root`, and
    `places` (N,) the numbers of the files there.
    """

    channels: int | None = None
    pages: NDArray[np.int64] | None = None
    all_pages = False
    store: Store | None = None
    places: NDArray[np.int64] | None = None

    def __init__(self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None) -> None:
        self.root, self.paths, self.labels = os.fsencode(root), paths.cast(pa.large_binary()), labels
        self.name = name or root

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Return the path relative to the root, with #page behind the first page; other bytes as surrogate escapes."""
        path, page = (
            os.fsdecode(self.paths[index].as_py()),
            int(self.pages[index]) if self.all_pages and self.pages is not None else 0,
        )
        return f"{path}#{page + 1}" if page else path

    @property
    def owners(self) -> NDArray[np.int64] | None:
        """The file (N,) that each page is of, which labels and splits go by; None where files are samples."""
        if not self.all_pages:
            return None
        codes: NDArray[np.int64] = self.paths.dictionary_encode().indices.to_numpy().astype(np.int64)
        return codes

    @classmethod
    def of_store(cls, name: str, paths: pa.Array, store: Store, labels: Labels | None = None) -> Files:
        """Return the files of a store, numbered as the store has them."""
        files = cls(name, paths, labels)
        files.store, files.places = store, np.arange(len(paths))
        return files

    @property
    def block(self) -> int:
        """How many consecutive files are read together: the loader shuffles them in such blocks."""
        return 1 if self.store is None else self.store.block

    def file(self, index: int) -> bytes:
        """Return the whole path of the file in a folder."""
        return os.path.join(self.root, self.paths[index].as_py())

    def content(self, index: int) -> bytes:
        """Return the bytes of the file, or raise `Broken`."""
        if self.store is None or self.places is None:
            return read_bytes(self.file(index))
        return self.store.read(int(self.places[index]))

    def prefetch(self, indices: NDArray[np.int64]) -> None:
        """Begin to fetch samples that are read soon, where they are far away, and return at once."""
        if self.store is not None and self.places is not None:
            self.store.prefetch(self.places[indices])

    def paged(self, page: int | None) -> Files:
        """Return another page of each file as the samples, or with None every page of every file."""
        if page == 0:
            return self
        same = copy.copy(self)
        if page is not None:
            same.pages = np.full(len(self), page, np.int64)
            self_said = f"{self.name}: page {page + 1} of each file is read; files without it are skipped"
            same.notes = (*self.notes, self_said)
            return same
        counts = np.ones(len(self), np.int64)
        for index in builtins.range(len(self)):
            with contextlib.suppress(Broken):
                counts[index] = read_header(self.content(index)).pages
        same = same.take(np.repeat(np.arange(len(self)), counts))
        same.pages = np.concatenate([np.arange(count) for count in counts.tolist()])
        same.all_pages = True
        several = f"{int((counts > 1).sum()):,} have several"
        told = f"{self.name}: {len(same):,} samples, the pages of {len(self):,} files ({several})"
        same.notes = (*self.notes, told)
        return same

    def native(self, index: int) -> NDArray[Any]:
        """Return (H, W, channels) in the type of the file, or raise `Broken`."""
        return decode_image(self.content(index), self.channels, 0 if self.pages is None else int(self.pages[index]))

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        range: str | None = None,
        views: str | None = None,
    ) -> ImageSpec:
        """Return what an encoder gets of these files.

        Args:
            size: Pixels a side; by default the median shorter side of the first 16 images, at most 224, in [8, 4096].
            channels: Channels of an image, 1, 3 or 4 of colours (3 by default); files of other bands and arrays keep
                their own, in [1, 64].
            range: Values that become 0 to 1: MIN:MAX, dtype (the range of the type), or auto (the default): 8-bit
                images as they are, others by the values of a sample. What it finds is said, and kept in the recipe.
            views: How a task's random views differ from the image: natural (the default), overhead (mirrored both ways
                and rotated by quarter turns: images without an up) or document (scanned pages: never mirrored, and
                slightly rotated, sheared and shifted). See docs/views.md.

        Raises:
            UserError: For channels that these files do not have, or an unknown family of views.
        """
        headers = self._headers()
        channels = self._channels(headers, channels)
        if size is None:
            sides = []
            for index in builtins.range(min(len(self), 16)):
                try:
                    sides.append(min(self.native(index).shape[:2]))
                except Broken:
                    continue
            size = min(224, int(np.median(sides))) if sides else 224
            size = size if size <= 64 else size // 32 * 32
        looked = self.conform_to(channels, AUTO)
        if all(header.ordinary for header in headers) and read_range(range) in (AUTO, "dtype") and channels == 3:
            looked._say(self._dark(headers))
            self.range, self.notes = None, looked.notes
            return in_views(ImageSpec.of(max(size, 8), 3), views)
        spec = looked._made(max(size, 8), channels, range)
        self.range, self.families, self.notes = looked.range, looked.families, looked.notes
        return in_views(spec, views)

    def _headers(self, few: int = SAMPLE) -> list[Header]:
        """Return what a sample of the files say of themselves, and say of which pages are left out."""
        found, read, sample = [], 0, self._sample()
        for index in sample[:: -(-len(sample) // few)]:
            try:
                data = self.content(index)
                found.append(read_header(data))
            except Broken:
                continue
            read += len(data)
            if read > CHECKED:
                break
        if narrowed := sum(header.narrowed for header in found):
            self._say(
                [
                    f"{narrowed:,} of {len(found):,} files looked at have 10 or 12 bits, of which the upper 8 are "
                    "read: 16-bit PNG or TIFF keeps all"
                ]
            )
        several = [header.pages for header in found if header.pages > 1]
        if several and self.pages is None:
            most = f"{min(several)} to {max(several)}" if min(several) < max(several) else f"{several[0]}"
            self._say(
                [
                    f"{len(several):,} of {len(found):,} files looked at have {most} pages or frames; only the first "
                    "is read; --pages all makes each a sample, --pages N takes the Nth"
                ]
            )
        return found

    def _sample(self) -> list[int]:
        """Return which files are looked at: neighbours where these are read together; they are fetched ahead."""
        sample = super()._sample()
        if self.block > 1:
            near = SAMPLE // NEAR
            sample = [first + step for first in sample[::near] for step in builtins.range(near)]
            sample = sorted({min(index, len(self) - 1) for index in sample})
        self.prefetch(np.array(sample))
        return sample

    def _dark(self, headers: Sequence[Header]) -> tuple[str, ...]:
        """Return a line for 8-bit images that use only a few of their values; JPEGs are not looked at."""
        found = Values()
        for index in self._sample()[:16]:
            if os.path.splitext(self.paths[index].as_py())[1].lower() in (b".png", b".tif", b".tiff", b".npy", b".bmp"):
                with contextlib.suppress(Broken):
                    found.add(self.native(index))
        return found.choose(AUTO)[1] if found.images else ()

    def _channels(self, headers: Sequence[Header], channels: int | None) -> int:
        """Return the number of channels, own bands by default; raise `UserError` for one that the files do not have."""
        own = Counter(h.bands - h.alpha for h in headers if h.bands - h.alpha not in (1, 3))
        if not own:
            if channels == 4 and headers and not any(header.ordinary or header.alpha for header in headers):
                check_channels(headers[0].bands, self.name, channels)
            if headers and channels not in (None, 1, 3, 4):
                raise UserError(
                    f"images of colours are read with 1, 3 or 4 channels, not {channels}: give another --channels"
                )
            if channels not in (None, 1, 3, 4) and not headers:
                raise UserError(f"no file of {self.name} tells its channels, so {channels} cannot be: leave it out")
            if channels == 4 and headers and not any(header.alpha or header.bands == 4 for header in headers):
                self._say(["none of the images looked at has a fourth channel: with --channels 4 it is constant"])
            return channels or 3
        bands, count = own.most_common(1)[0]
        if len(own) > 1 or count < len(headers):
            others = ", ".join(f"{n:,} have {h}" for h, n in sorted(Counter(h.bands for h in headers).items()))
            self._say([f"the images differ in their channels ({others}); those that cannot be read as "
                       f"{channels or bands} are left out"])  # fmt: skip
        elif channels is None:
            self._say([f"the images looked at have {bands} channels, all of which are read"])
        if channels is not None:
            check_channels(bands, self.name, channels)
        return channels or bands

    def conform_to(self, channels: int, bounds: Any) -> Files:
        """Return the same files, read with these channels and this range."""
        if channels == self.channels and bounds == self.range:
            return self
        same = copy.copy(self)
        same.channels, same.range = channels, bounds
        same.families = self.families if bounds == self.range else frozenset()
        return same

    def conform(self, spec: Spec) -> Files:
        """Return the same files, read with the channels and the range of the spec."""
        spec = image_only(self, spec)
        self._compare(spec.range, spec.channels)
        return self.conform_to(spec.channels, spec.range)

    def _are_ordinary(self, channels: int) -> bool:
        headers = self._headers(COMPARED)
        bands = {header.bands - header.alpha for header in headers}
        fits = {channels, *((1, 3) if channels in (1, 3, 4) else ())}  # colours become grey, or get a fourth channel
        if bands and not bands & fits and not any(header.bands == channels for header in headers):
            raise UserError(f"{self.name} has {min(bands)} channels, which cannot become {channels}: give other data")
        return all(header.ordinary for header in headers)

    def take(self, indices: NDArray[np.int64]) -> Files:
        """Return some of the files."""
        taken = self._some(indices)
        taken.paths = self.paths.take(pa.array(indices))
        taken.pages = None if self.pages is None else self.pages[indices]
        taken.places = None if self.places is None else self.places[indices]
        return taken

    def fingerprint(self) -> str:
        """Return a hash of all relative paths in order, and of the labels, but not of the files' contents."""
        return fingerprint(
            self.paths, self.labels, self.masks, more=b"" if self.pages is None else self.pages.tobytes()
        )


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
