"""Sources: numbered samples in a fixed order, read lazily, with labels if they were asked for."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.spec import Spec


class Broken(Exception):
    """A sample that cannot be read; the message is the reason under which it is counted."""


@dataclass(frozen=True)
class Labels:
    """`ids` (N,) int64, -1 where a sample has no label; `classes` are their names, in order.

    `several`: a class stands for several labels of a sample, a|b|c; `notes`: what was done to labels to read them.
    """

    ids: NDArray[np.int64]
    classes: tuple[str, ...]
    several: bool = False
    notes: tuple[str, ...] = ()

    def take(self, indices: NDArray[np.int64]) -> Labels:
        """Return the labels of some samples; the classes stay."""
        return replace(self, ids=self.ids[indices])

    @classmethod
    def of(cls, names: Iterable[object] | pa.Array) -> Labels:
        """Return labels from one class name a sample, as objects or as an Arrow array of binary.

        None or an empty name means no label, any other name is a class: what users write goes through
        `selfsup.data.labels.read_labels`. Numbers in names sort as numbers: 2 before 10. Bytes that are not UTF-8 are
        shown as \\x and two digits.
        """
        if not isinstance(names, pa.Array):
            names = pa.array([None if n is None else os.fsencode(str(n)) for n in names], pa.large_binary())
        encoded = names.dictionary_encode()
        texts = [name.decode(errors="backslashreplace") for name in encoded.dictionary.to_pylist()]
        known = sorted({text for text in texts if text}, key=natural_order)
        number = {name: i for i, name in enumerate(known)}
        place = np.array([*(number.get(text, -1) for text in texts), -1], dtype=np.int64)
        return cls(place[encoded.indices.fill_null(len(texts)).to_numpy()], tuple(known))

    def check_single(self) -> None:
        """Raise `UserError` for several labels of a sample."""
        if self.several:
            raise UserError(
                f"samples have several labels, such as {self.classes[-1]!r}, which only evaluate --target multi takes"
            )

    def digest(self) -> bytes:
        """Return a hash of names and ids, a part of a source's fingerprint."""
        return hashlib.blake2b(repr(self.classes).encode() + self.ids.tobytes(), digest_size=8).digest()


@dataclass(frozen=True)
class Annotations:
    """Labels inside of samples: intervals of time that do not overlap within a sample.

    Sample i has the intervals `first[i]` to `first[i + 1]`, (N + 1,) int64, of `starts` and `ends` (M,) float64, in
    seconds from its beginning and in their order, and `ids` (M,) int64, the numbers of `classes`. An end belongs to
    what follows. `lengths` (N,) float64: how long a sample is, in seconds, by the file of its annotations; nan where
    that does not say. `notes`: what was done to read them.
    """

    first: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    ids: NDArray[np.int64]
    classes: tuple[str, ...]
    lengths: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        owners: NDArray[np.int64],
        starts: NDArray[np.float64],
        ends: NDArray[np.float64],
        labels: Labels,
        lengths: NDArray[np.float64],
        notes: tuple[str, ...] = (),
    ) -> Annotations:
        """Return the intervals (M,) of samples `owners` (M,) in any order; those without a label are left out."""
        order = np.lexsort((starts, owners))
        order = order[labels.ids[order] >= 0]
        first = np.searchsorted(owners[order], np.arange(len(lengths) + 1))
        return cls(first, starts[order], ends[order], labels.ids[order], labels.classes, lengths, notes)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The sample of each interval (M,)."""
        return np.repeat(np.arange(len(self.lengths)), np.diff(self.first))

    def at(self, index: int, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the classes of a sample at times in seconds, -1 where it has no label."""
        mine = slice(self.first[index], self.first[index + 1])
        times = times + 1e-6  # a frame that begins with an interval is in it, however both were rounded
        place = np.searchsorted(self.starts[mine], times, "right") - 1
        ids, ends = np.append(self.ids[mine], -1), np.append(self.ends[mine], np.inf)
        found: NDArray[np.int64] = np.where(times < ends[place], ids[place], -1)
        return found

    def take(self, indices: NDArray[np.int64]) -> Annotations:
        """Return the annotations of some samples; the classes stay."""
        counts = np.diff(self.first)[indices]
        first = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(first[-1]) + np.repeat(self.first[indices] - first[:-1], counts)
        return replace(
            self, first=first, starts=self.starts[rows], ends=self.ends[rows], ids=self.ids[rows],
            lengths=self.lengths[indices],
        )  # fmt: skip

    def digest(self) -> bytes:
        """Return a hash of all of them, a part of a source's fingerprint."""
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=8)
        for part in (self.first, self.starts, self.ends, self.ids):
            digest.update(part.tobytes())
        return digest.digest()


@dataclass(frozen=True)
class Masks:
    """Labels of the places of images: a mask has the number of a class at each pixel.

    `numbers` (N,) int64: which mask is that of each sample, -1 where it has none; `of` returns a mask by this number,
    (H, W) of whole numbers, negative where a pixel has no label, or raises `Broken`. It has the sides of its image, or
    sides in the same ratio. `names` are those of classes by number; one without a name is called by its number.
    `about` tells the masks of one place from those of another; `notes`: what was done to find them.
    """

    numbers: NDArray[np.int64]
    of: Callable[[int], NDArray[Any]]
    names: Mapping[int, str]
    about: str = ""
    notes: tuple[str, ...] = ()

    def read(self, index: int) -> NDArray[np.int64]:
        """Return the mask (H, W) of a sample, -1 where a pixel has no label, or raise `Broken`."""
        number = int(self.numbers[index])
        if number < 0:
            raise Broken("no mask")
        return np.maximum(self.of(number).astype(np.int64), -1)

    def take(self, indices: NDArray[np.int64]) -> Masks:
        """Return the masks of some samples."""
        return replace(self, numbers=self.numbers[indices])

    def digest(self) -> bytes:
        """Return a hash of which masks they are, a part of a source's fingerprint."""
        about = f"{self.about}{sorted(self.names.items())}".encode(errors="surrogateescape")
        return hashlib.blake2b(about + self.numbers.tobytes(), digest_size=8).digest()


def natural_order(text: str) -> tuple[list[str | float], str]:
    """Return the key by which names sort with the numbers in them: 2 before 10."""
    parts = re.split(r"([0-9]+)", text)  # text, number, text, …
    return [float(part) if i % 2 else part for i, part in enumerate(parts)], text


def source_repr(source: Source) -> str:
    """Return the `repr` of a source, each of which has it: its class, its name and how much is in it."""
    labels = getattr(source, "labels", None)
    classes = "" if labels is None else f", {len(labels.classes):,} classes"
    return f"{type(source).__name__}({source.name!r}: {len(source):,} samples{classes})"


@runtime_checkable
class Source(Protocol):
    """The interface of every source. Samples are numbered; the number of a sample never changes.

    Those with labels inside of their samples have an attribute `frame_labels` too, `Annotations` or None; images with
    labels of their pixels `masks`, `Masks` or None.
    """

    name: str
    kind: str  # of data: image, text, video
    labels: Labels | None

    def __len__(self) -> int: ...

    def extent(self, index: int) -> int:
        """Return the length of a sample in the units of `read`'s span: 1 for images, tokens of a text."""

    def read(self, index: int, span: slice | None = None) -> Any:
        """Return one sample, or only a span of it, or raise `Broken`. Images: (H, W, C) uint8 or uint16.

        Nothing beyond the span is decoded.
        """

    def path(self, index: int) -> str:
        """Return the name by which a user knows the sample: its path, or its number."""

    @property
    def spec(self) -> Callable[..., Spec]:
        """A method that returns the spec of the samples.

        Its keyword arguments (size and channels of images, the tokenizer of texts) are the options of this kind of data
        on the command line; the `Args:` of its docstring are their help.
        """

    def conform(self, spec: Spec) -> Source:
        """Return the same samples in the units of a spec: texts as its tokens, files with its channels.

        Raises `UserError` for a spec of another kind, and for one that these samples cannot be made to fit.
        """

    def take(self, indices: NDArray[np.int64]) -> Source:
        """Return a source of some of the samples, with their labels, in the given order."""

    def fingerprint(self) -> str:
        """Return a short hash that changes with the data: a run resumes only on the data with which it began."""
