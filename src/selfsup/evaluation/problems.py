"""Problems that make an accuracy mean something other than it seems to: found, counted and said in words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from selfsup.data.image.decode import read_bytes
from selfsup.errors import UserError
from selfsup.evaluation.draws import short_classes
from selfsup.evaluation.duplicates import Item, near_copies, same_bytes, same_features
from selfsup.evaluation.verdict import FEW_STEPS
from selfsup.source import Broken, Labels, Source


def check_classes(train: Labels, test: Labels, name: str) -> None:
    """Raise `UserError` for labels that are all of one class, or have no class in common with the test part."""
    counts = np.bincount(train.ids, minlength=len(train.classes))
    some = train.classes[int(counts.argmax())]
    if (counts > 0).sum() < 2:
        raise UserError(f"all {counts.max()} labels of {name} are of one class ({some!r}); at least two are needed")
    if not (counts[test.ids] > 0).any():
        other = test.classes[int(test.ids[0])]
        raise UserError(
            f"no test label is among those of {name} ({other!r} there, {some!r} here): are they file names, or of "
            "another data set?"
        )


def about_steps(steps: int) -> list[str]:
    """Return a line on a run that made too few steps to have learned something."""
    if steps >= FEW_STEPS:
        return []
    return [f"the run made only {steps} steps: an encoder learns next to nothing in fewer than {FEW_STEPS}"]


def about_classes(train: Labels, test: Labels, shots: Sequence[int | None]) -> list[str]:
    """Return lines on the classes that are missing in one part, and on those that have fewer labels than are drawn."""
    counts = np.bincount(train.ids, minlength=len(train.classes))
    lost = counts[test.ids] == 0
    lines = []
    if lost.any():
        names = _names(train, np.unique(test.ids[lost]).tolist())
        lines.append(f"{lost.sum():,} of {len(lost):,} test samples are of classes without a training label: {names}")
    unseen = np.flatnonzero((counts > 0) & (np.bincount(test.ids, minlength=len(counts)) == 0)).tolist()
    if unseen:
        lines.append(f"no test sample is of {_names(train, unseen)}: nothing is measured about that")
    told: dict[tuple[int, ...], int] = {}
    for number, classes in sorted(short_classes(train.ids, shots).items()):
        told.setdefault(tuple(classes), number)
    lines += [
        f"all labels are drawn of classes with fewer than {number}: {_names(train, who)}"
        for who, number in told.items()
    ]
    return lines


Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # of the training samples and of the test samples


def overlap(train: Source, test: Source, features: Pair, images: Pair | None = None) -> dict[str, list[str]]:
    """Return the test samples that are among the training samples, by path.

    `same` by content; `near` by `images` (n, C, H, W), as near copies; `alike` by the features (n, d) of an encoder.
    """
    same = set(same_bytes(contents(train), contents(test))[:, 0].tolist())
    near = set() if images is None else set(near_copies(*images)[:, 0].tolist()) - same
    alike = set(same_features(*features)[:, 0].tolist()) - same - near
    found = {"same": same, "near": near, "alike": alike}
    return {name: [test.path(index) for index in sorted(rows)] for name, rows in found.items()}


def about_copies(found: Mapping[str, Sequence[str]], tested: int) -> list[str]:
    """Return a line on each kind of copies, of so many test samples."""
    same, near, alike = (found[name] for name in ("same", "near", "alike"))
    lines = []
    if same:
        lines.append(
            f"{len(same):,} of {tested:,} test samples are copies of training samples, for example {same[0]!r}: they "
            "inflate every number"
        )
    if near:
        lines.append(
            f"{len(near):,}{' further' if same else ''} test samples are near copies of training samples (saved again "
            f"or resized), for example {near[0]!r}: they inflate every number too"
        )
    if alike:
        lines.append(
            f"{len(alike):,}{' further' if same or near else ''} test samples have almost the features of a training "
            f"sample, for example {alike[0]!r}: near copies, or an encoder that cannot tell them apart"
        )
    return lines


def copied(digests: Sequence[bytes], folds: NDArray[np.int64]) -> list[int]:
    """Return the samples that are measured on, fold 0 or more, and of which another fold has a copy."""
    seen: dict[bytes, set[int]] = {}
    for digest, fold in zip(digests, folds.tolist(), strict=True):
        seen.setdefault(digest, set()).add(fold)
    pairs = enumerate(zip(digests, folds.tolist(), strict=True))
    return [row for row, (digest, fold) in pairs if fold >= 0 and seen[digest] != {fold}]


def contents(source: Source) -> Iterator[Item]:
    """Yield what tells whether samples are the same: the bytes of files, else the samples themselves."""
    for index in range(len(source)):
        try:
            if hasattr(source, "content"):  # the bytes of a file, without decoding them
                yield source.content(index)
            elif hasattr(source, "file"):
                yield read_bytes(source.file(index))
            else:
                item = getattr(source, "native", source.read)(index)
                yield item.encode() if isinstance(item, str) else item
        except Broken:
            yield os.fsencode(source.path(index))  # a sample that cannot be read is not a copy of any other


def _names(labels: Labels, classes: Sequence[int]) -> str:
    more = f" and {len(classes) - 3:,} more" if len(classes) > 3 else ""
    return ", ".join(repr(labels.classes[number]) for number in classes[:3]) + more
