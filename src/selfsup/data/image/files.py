"""Image files: of a folder, or of a store."""

from __future__ import annotations

import builtins
import contextlib
import copy
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data.image.decode import Header, decode_image, read_bytes, read_header
from selfsup.data.image.sources import AUTO, COMPARED, Images, check_channels, image_only, in_views
from selfsup.data.image.values import SAMPLE, Values, read_range
from selfsup.data.index import fingerprint
from selfsup.errors import UserError
from selfsup.source import Broken, Labels
from selfsup.spec import ImageSpec, Spec

CHECKED = 1 << 28  # bytes of files that are read to look at a sample of them
NEAR = 4  # places of which neighbours are looked at, where these are read together


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
            told = f"{self.name}: page {page + 1} of each file is read; files without it are skipped"
            same.notes = (*self.notes, told)
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
            size: Pixels per side; by default the median shorter side of the first 16 images, at most 224, in [8, 4096].
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
