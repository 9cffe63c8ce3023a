"""The frames of videos and sounds that have a label: when each is, in which window it is read, and how they are split.

Consecutive windows cover a sample. Each frame that an encoder gives for a window has a time, at which the annotations
say its label, or none. All frames of a sample, or of all samples of a group, are on the same side of the split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.data.annotations import HELP, check_lengths
from selfsup.data.spans import Spans
from selfsup.errors import UserError
from selfsup.evaluation.duplicates import digest_of
from selfsup.evaluation.frozen import has
from selfsup.evaluation.parts import ENOUGH, FOLDS, align
from selfsup.evaluation.problems import check_classes, contents, copied
from selfsup.source import Annotations, Broken, Labels, Source
from selfsup.views import window_views

MOST = 10_000  # frames of a side of the split, or of all folds together, that are used
EDGE = 1e-6  # seconds by which times that are meant to be the same may differ


@dataclass(frozen=True)
class FrameParts:
    """The labelled frames (n,) that are used: in which window and at which place of it each is, and its label.

    `windows` of the data and, if they were given, of the test data are numbered one after the other, and so are their
    samples. `folds` (S,) of samples: fold f is measured on once, with all other frames to draw labels from; -1 is never
    measured on, -2 has no labels.
    """

    sources: tuple[Source, ...]  # as given
    windows: tuple[Spans, ...]
    sample: NDArray[np.int64]
    window: NDArray[np.int64]
    place: NDArray[np.int64]
    labels: Labels
    folds: NDArray[np.int64]
    counts: dict[str, int]  # of all frames, of those with a label, and of groups

    @property
    def fold(self) -> NDArray[np.int64]:
        """The fold of each frame (n,)."""
        return self.folds[self.sample]

    @property
    def num_folds(self) -> int:
        """How many times another part is measured on."""
        return int(self.folds.max()) + 1

    def labels_to_draw(self) -> Labels:
        """Return the training labels of the fold that has the fewest."""
        train = [self.labels.take(np.flatnonzero(self.fold != fold)) for fold in range(self.num_folds)]
        return min(train, key=lambda labels: len(labels.ids))

    def training_samples(self) -> Source:
        """Return the annotated samples of the data that labels are drawn from, in some fold."""
        own = self.folds[: len(self.sources[0])]
        return self.sources[0].take(np.flatnonzero((own == -1) if (own == -1).any() else own >= 0))

    def some(self, rows: NDArray[Any]) -> FrameParts:
        """Return the same with some of the frames."""
        rows = np.arange(len(self.sample))[rows]
        return replace(
            self, sample=self.sample[rows], window=self.window[rows], place=self.place[rows],
            labels=self.labels.take(rows),
        )  # fmt: skip

    def copies(self) -> list[str]:
        """Return the paths of samples that are measured on, and are among the others too."""
        digests = list(map(digest_of, chain.from_iterable(contents(part) for part in self._used())))
        paths = [part.path(index) for part in self._used() for index in range(len(part))]
        return [paths[row] for row in copied(digests, self.folds[self.folds > -2])]

    def _used(self) -> list[Source]:
        bounds = np.cumsum([0, *map(len, self.sources)])
        own = [self.folds[bounds[i] : bounds[i + 1]] for i in range(len(self.sources))]
        return [part.take(np.flatnonzero(folds > -2)) for part, folds in zip(self.sources, own, strict=True)]


def make_frame_parts(
    data: Source, test: Source | None, encoder: Any, spec: Any, groups: Labels | None, seed: int
) -> FrameParts:
    """Return the labelled frames of the data, of which a fifth of the samples is set aside if there is no `test`.

    Where that fifth would be fewer than 50 samples every sample is measured on in turn, by 5-fold cross-validation.
    With `groups`, one of each sample, each group is measured on in turn; more than 5 are put together to 5 folds. At
    most 10,000 frames to draw labels from and 10,000 to measure on are used, drawn by the seed, as many of each fold.

    Raises `UserError` for data or an encoder without frames, and for samples that cannot be split.
    """
    if window_views(spec) is None:
        raise UserError(f"--target frames is for videos and sounds, not for {spec.samples}")
    if not has(encoder, "frames"):
        raise UserError(
            "--target frames needs an encoder with a representation of each frame, which this one has not: pretrain "
            "one that reads frame by frame, such as --encoder convnet"
        )
    sources = (data,) if test is None else (data, test)
    sides = [_labelled_frames(part, encoder.frame_times(), spec) for part in sources]
    labels = sides[0].labels
    if test is not None:
        check_classes(*align(labels, sides[1].labels), data.name)
        labels, others = align(labels, sides[1].labels)
        labels = replace(labels, ids=np.concatenate([labels.ids, others.ids]))
    samples = np.cumsum([0, *(len(part) for part in sources)])
    windows = np.cumsum([0, *(len(side.windows) for side in sides)])
    folds = [np.full(len(part), -2) for part in sources]
    annotated = np.unique(sides[0].sample)
    folds[0][annotated] = -1 if test is not None else folds_of(annotated, groups, data, seed)
    if test is not None:
        folds[1][np.unique(sides[1].sample)] = 0
    counts = {key: sum(side.counts[key] for side in sides) for key in sides[0].counts}
    if groups is not None:
        counts["groups"] = len(np.unique(groups.ids[annotated]))
    parts = FrameParts(
        sources, tuple(side.windows for side in sides),
        np.concatenate([side.sample + samples[i] for i, side in enumerate(sides)]),
        np.concatenate([side.window + windows[i] for i, side in enumerate(sides)]),
        np.concatenate([side.place for side in sides]), labels, np.concatenate(folds), counts,
    )  # fmt: skip
    mixed = np.random.default_rng([seed, 2]).permutation(len(parts.sample))
    most = {fold: MOST // parts.num_folds if fold >= 0 else MOST for fold in np.unique(parts.fold).tolist()}
    drawn = [mixed[parts.fold[mixed] == fold][:count] for fold, count in most.items()]
    return parts.some(np.sort(np.concatenate(drawn)))


class _Side(NamedTuple):
    windows: Spans
    sample: NDArray[np.int64]
    window: NDArray[np.int64]
    place: NDArray[np.int64]
    labels: Labels
    counts: dict[str, int]


def _labelled_frames(source: Source, times: NDArray[np.float64], spec: Any) -> _Side:
    """Return the labelled frames of the windows of all samples; `times` (T,) are those of a window's frames."""
    annotations: Annotations | None = getattr(source, "frame_labels", None)
    if annotations is None:
        raise UserError(f"{source.name} has no labels inside of its samples: give --labels {HELP}")
    conformed = source.conform(spec)
    extents = np.zeros(len(source), np.int64)
    for index in np.unique(annotations.owners).tolist():
        extents[index] = _extent(conformed, index)
    annotations = check_lengths(annotations, np.where(extents > 0, extents / spec.rate, np.nan), source)
    begins = [np.arange(0, extent, spec.length) for extent in extents.tolist()]
    owners, begin = np.repeat(np.arange(len(source)), list(map(len, begins))), np.concatenate(begins)
    start = np.minimum(begin, np.maximum(extents[owners] - spec.length, 0))  # the last one reaches back
    stop = np.minimum(begin + spec.length, extents[owners])
    when = start[:, None] / spec.rate + times + EDGE
    own = (when >= begin[:, None] / spec.rate) & (when < stop[:, None] / spec.rate)
    ids = np.full(when.shape, -1)
    for row, owner in enumerate(owners.tolist()):
        ids[row, own[row]] = annotations.at(owner, when[row, own[row]])
    window, place = np.nonzero(ids >= 0)
    if not len(window):
        raise UserError(f"no frame of {source.name} has a label; are its annotations in seconds?")
    counts = {"asked": int(own.sum()), "labelled": len(window)}
    labels = Labels(ids[window, place], annotations.classes)
    return _Side(Spans(conformed, owners, start, stop), owners[window], window, place, labels, counts)


def _extent(source: Source, index: int) -> int:
    try:
        return source.extent(index)
    except Broken:
        return 0


def folds_of(annotated: NDArray[np.int64], groups: Labels | None, data: Source, seed: int) -> NDArray[np.int64]:
    """Return the fold of each annotated sample; -1 is never measured on."""
    mixed = np.random.default_rng(seed).permutation(len(annotated))
    if groups is None:
        if len(annotated) < 2:
            raise UserError(
                f"only one sample of {data.name} has labels inside, and frames of one sample are too alike to be on "
                "both sides of a split: give --test, or labels for more samples"
            )
        if len(annotated) < FOLDS * ENOUGH:
            return mixed % min(FOLDS, len(annotated))
        return np.where(mixed < max(1, round(len(annotated) / FOLDS)), 0, -1)
    ids = groups.ids[annotated]
    if (ids < 0).any():
        path = data.path(int(annotated[ids < 0][0]))
        raise UserError(f"--groups: {(ids < 0).sum():,} annotated samples have no group, for example {path!r}")
    known, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if len(known) < 2:
        raise UserError(f"all annotated samples of {data.name} are of one group, {groups.classes[known[0]]!r}")
    fold, sizes = np.zeros(len(known), np.int64), np.zeros(min(FOLDS, len(known)), np.int64)
    for group in np.argsort(-counts, kind="stable"):  # the largest first, each to the smallest fold
        fold[group] = sizes.argmin()
        sizes[fold[group]] += counts[group]
    return fold[place]
