"""Sources of videos: files (or folders of frames), and their frames once these are in the store."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.cache import check_room
from selfsup.base.notes import say_notes
from selfsup.base.threads import side_by_side
from selfsup.data.index import fingerprint
from selfsup.data.media_files import MediaFiles
from selfsup.data.video.clips import clip_spec, clips_only, stored_side
from selfsup.data.video.decode import about, decode
from selfsup.data.video.store import open_frames, store, store_tracks, stored_path, stored_tracks, tracks_path
from selfsup.data.video.tracks import Tracks
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, source_repr
from selfsup.spec import ClipSpec, Spec

LOOKED = 16  # videos whose headers are looked at
FPS = 30.0  # frames a second by default, at most
RAW = 4 << 30  # bytes of all frames up to which they are stored as they are


class Videos(MediaFiles):
    """Video files below `root`, or folders of frames: raw paths in one Arrow array.

    A sample is read as its frames; `conform` decodes every video once into the frame store, or with `streamed` each
    clip when it is asked for. `jpeg`: how frames are stored; None for pixels as long as all fit into 4 GiB. `parts`
    (N, 2): beginnings and ends of the samples in seconds, where they are windows of videos.
    """

    kind = "video"

    def __init__(
        self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(root, paths, labels, name, notes)
        self.parts: NDArray[np.float64] | None = None
        self.jpeg: bool | None = None
        self.streamed = False
        self._made: Conformed | None = None

    def path(self, index: int) -> str:
        """Return the path relative to the root, of one of several windows with #t=SECONDS; other bytes as escapes."""
        path = super().path(index)
        start, end = (0.0, np.inf) if self.parts is None else self.parts[index]
        return path if (start, end) == (0, np.inf) else f"{path}#t={start:.3f}".rstrip("0").rstrip(".")

    def windowed(self, seconds: float | None) -> Videos:
        """Return equal parts of each video as the samples, of about so many seconds; None for whole videos."""
        if seconds is None:
            return self
        lengths = np.zeros(len(self))
        for index in range(len(self)):
            with contextlib.suppress(Broken):  # which stays one sample, and is counted when it is read
                header = about(self.file(index))
                lengths[index] = header.frames / header.fps
        counts = np.maximum(1, np.round(lengths / seconds)).astype(np.int64)
        same = self.take(np.repeat(np.arange(len(self)), counts))
        number = np.arange(len(same)) - np.repeat(counts.cumsum() - counts, counts)
        starts = np.repeat(lengths / counts, counts) * number
        ends = np.append(starts[1:], 0)
        same.parts = np.stack([starts, np.where(ends > 0, ends, np.inf)], 1)  # the last one ends where its video does
        unknown = int((lengths == 0).sum())
        told = f"; {unknown:,} do not say how long they are, and stay whole" if unknown else ""
        about_them = f"{self.name}: {len(same):,} samples, windows of about {seconds:g} s of {len(self):,} videos{told}"
        same.notes = (*self.notes, about_them)
        return same

    @property
    def owners(self) -> NDArray[np.int64] | None:
        """The video (N,) that each window is of, which labels and splits go by; None for whole videos."""
        if self.parts is None:
            return None
        codes: NDArray[np.int64] = self.paths.dictionary_encode().indices.to_numpy().astype(np.int64)
        return codes

    def whole(self) -> Videos:
        """Return the videos of which these are windows."""
        if self.owners is None:
            return self
        found = self.take(np.unique(self.owners, return_index=True)[1])
        found.parts = None
        return found

    def frames_of(self, index: int, rate: float, length: int) -> tuple[int, int]:
        """Return the first frame of a sample, and the one behind its last, in a video of so many."""
        if self.parts is None:
            return 0, length
        start, end = (min(float(length), rate * seconds) for seconds in self.parts[index])
        return round(start), round(end)

    def extent(self, index: int) -> int:
        """Return how many frames the header promises; `conform` counts them."""
        header = about(self.file(index))
        first, end = self.frames_of(index, header.fps, header.frames)
        return end - first

    def read(self, index: int, span: slice | None = None, side: int = 1 << 20) -> NDArray[np.uint8]:
        """Return the frames of a span (T, H, W, 3) at the video's own rate, decoded up to its end.

        The shorter side is reduced to `side` where it is longer.
        """
        header, found = about(self.file(index)), []
        first, end = self.frames_of(index, header.fps, 1 << 40)
        start, stop, step = (span or slice(None)).indices(end - first)
        for number, frame in enumerate(decode(self.file(index), header.fps, side, first / header.fps)):
            if number >= stop:
                break
            if number >= start and (number - start) % step == 0:
                found.append(frame)
        if not found:
            raise Broken("no frame in this span")
        return np.stack(found)

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        frames: int | None = None,
        step: int | None = None,
        fps: float | None = None,
        store: str | None = None,
    ) -> ClipSpec:
        """Return what an encoder gets of these videos.

        Args:
            size: Pixels per side of a frame; 64 by default, in [8, 4096].
            channels: Channels of a frame, 3 (the default) or 1 for grey.
            frames: Frames of a clip; 8 by default, in [1, 1024].
            step: Distance of two frames of a clip, in frames; 2 by default, in [1, 1024].
            fps: Frames per second with which videos are read, whatever their files have; by default the median of the
                first 16 videos, at most 30, in (0, 1000].
            store: How frames are kept in the cache: uint8, jpeg, or auto (the default), which is uint8 up to 4 GiB;
                none keeps nothing, and decodes each clip when it is needed, from the beginning of its video.

        Raises:
            UserError: For values out of their range, and where none of the first videos can be read.
        """
        if store not in (None, "auto", "uint8", "jpeg", "none"):
            raise UserError(f"--store is auto, uint8, jpeg or none, not {store!r}")
        if fps is None:
            fps = min(FPS, round(self._rate(), 3))
        elif not 0 < fps <= 1000:
            raise UserError(f"--fps is above 0 and at most 1,000, not {fps:g}")
        self.jpeg, self.streamed = {"uint8": False, "jpeg": True}.get(store or "auto"), store == "none"
        return clip_spec(size, channels, frames, step, float(fps))

    def _rate(self) -> float:
        rates, reasons = [], []
        for index in range(min(len(self), LOOKED)):
            try:
                rates.append(about(self.file(index)).fps)
            except Broken as error:
                reasons.append(str(error))
        if not rates:
            raise UserError(f"none of the first {len(reasons)} videos of {self.name} can be read: {reasons[0]}")
        return float(np.median(rates))

    def conform(self, spec: Spec) -> Conformed:
        """Return the same videos as frames of the spec's rate; every video is decoded once, and kept in the cache.

        With `streamed` nothing is kept.

        Raises `UserError` for a spec of another kind, and where the frames do not fit on the disk.
        """
        spec = clips_only(self.name, spec)
        if self._made is None or not self._made.fits(spec):
            self._made = Streamed(self, spec.fps, stored_side(spec)) if self.streamed else Stored.of(self, spec)
            self.notes = (*self.notes, *(note for note in self._made.notes if note not in self.notes))
            say_notes(self)
        elif self._made.videos is not self:  # a copy may have other labels
            self._made = self._made.some(self, np.arange(len(self)))
        return self._made

    def take(self, indices: NDArray[np.int64]) -> Videos:
        """Return some of the videos."""
        taken = super().take(indices)
        taken.parts = None if self.parts is None else self.parts[indices]
        taken._made = self._made and self._made.some(taken, indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of all relative paths in order, and of the labels, but not of the files' contents."""
        more = b"" if self.parts is None else self.parts.tobytes()
        return fingerprint(self.paths, self.labels, self.frame_labels, more=more)


class Conformed(ABC):
    """Videos at one frame rate and size, of which any frame can be read by its number."""

    kind = "video"
    __repr__ = source_repr

    def __init__(self, videos: Videos, rate: float, side: int) -> None:
        self.videos, self.rate, self.side = videos, rate, side
        self.name, self.labels, self.frame_labels = videos.name, videos.labels, videos.frame_labels
        self.notes: tuple[str, ...] = ()

    @property
    def owners(self) -> NDArray[np.int64] | None:
        """The video (N,) that each window is of; None for whole videos."""
        return self.videos.owners

    @abstractmethod
    def extent(self, index: int) -> int:
        """Return the number of frames."""

    @abstractmethod
    def frames(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) by their numbers, or raise `Broken`."""

    @abstractmethod
    def some(self, videos: Videos, indices: NDArray[np.int64]) -> Conformed:
        """Return the frames of these videos, which are those of the numbers `indices`."""

    def fits(self, spec: ClipSpec) -> bool:
        """Return whether the frames are those of a spec."""
        return (self.rate, self.side) == (spec.fps, stored_side(spec))

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, index: int, span: slice | None = None) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3), every one or those of a span with its step, or raise `Broken`."""
        return self.frames(index, np.arange(self.extent(index))[span or slice(None)])

    def path(self, index: int) -> str:
        """Return the path of the video."""
        return self.videos.path(index)

    def spec(self) -> Spec:
        """Return the spec of the videos."""
        return self.videos.spec()

    def conform(self, spec: Spec) -> Conformed:
        """Return the same, or the videos anew for frames of another rate or size."""
        if isinstance(spec, ClipSpec) and self.fits(spec):
            return self
        return self.videos.conform(spec)

    def take(self, indices: NDArray[np.int64]) -> Conformed:
        """Return some of the videos."""
        return self.some(self.videos.take(indices), indices)

    def fingerprint(self) -> str:
        """Return the hash of the videos."""
        return self.videos.fingerprint()


class Stored(Conformed):
    """Videos whose frames are in the store.

    `files`: where; `spans` (N, 2): the first frame of each, and the one behind its last; the same for a broken one.
    """

    def __init__(self, videos: Videos, rate: float, side: int, files: Sequence[Path], spans: NDArray[np.int64]) -> None:
        super().__init__(videos, rate, side)
        self.files, self.spans = files, spans

    @property
    def extents(self) -> NDArray[np.int64]:
        """Frames of each video (N,), 0 for a broken one."""
        found: NDArray[np.int64] = self.spans[:, 1] - self.spans[:, 0]
        return found

    @classmethod
    def of(cls, videos: Videos, spec: ClipSpec) -> Stored:
        """Return videos with all their frames in the store; those that are not are decoded now, side by side."""
        rate, side, whole = spec.fps, stored_side(spec), videos.whole()
        jpeg = videos.jpeg
        if jpeg is None:
            jpeg = _bytes(whole, rate, side) > RAW
        files = [stored_path(whole.file(index), rate, side, jpeg) for index in range(len(whole))]
        missing = [index for index, file in enumerate(files) if not file.exists()]
        if missing:
            _check_room(whole.take(np.array(missing)), rate, side, jpeg)
            side_by_side(
                f"decoding videos of {videos.name}, once",
                lambda index: store(whole.file(index), files[index], rate, side, jpeg),
                missing,
            )
        lengths, reasons = np.zeros(len(files), np.int64), Counter[str]()
        for index, file in enumerate(files):
            try:
                lengths[index] = open_frames(file).length
            except Broken as error:
                reasons[str(error)] += 1
        owners = np.arange(len(files)) if videos.owners is None else videos.owners
        spans = [videos.frames_of(index, rate, int(lengths[owner])) for index, owner in enumerate(owners.tolist())]
        found = cls(videos, rate, side, [files[owner] for owner in owners.tolist()], np.array(spans).reshape(-1, 2))
        if reasons:
            told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(4))
            found.notes = (f"{videos.name}: {sum(reasons.values()):,} of {len(files):,} videos cannot be read: {told}",)
            if sum(reasons.values()) == len(files):
                raise UserError(f"none of the {len(files):,} videos of {videos.name} can be read: {told}")
        return found

    def extent(self, index: int) -> int:
        """Return the number of frames."""
        return int(self.extents[index])

    def frames(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) by their numbers, or raise `Broken`."""
        frames = open_frames(self.files[index])
        if not self.extent(index):
            raise Broken("a window beyond the end of its video: its header promises more frames")
        return frames.read(numbers + self.spans[index, 0])

    def motion(self, index: int) -> NDArray[np.float32]:
        """Return how much each frame differs from the one before (N,), in grey levels."""
        first, end = self.spans[index]
        return open_frames(self.files[index]).motion()[first:end]

    def tracks(self, index: int, gap: int) -> Tracks:
        """Return what moves through windows of `gap` frames: found once for each video, and kept in the cache."""
        (first, end), found = self.spans[index], stored_tracks(self.files[index], gap)
        inside = (found.frames[:, 0] >= first) & (found.frames[:, 1] < end)
        return Tracks(found.frames[inside] - first, found.boxes[inside])

    def find_tracks(self, gap: int) -> None:
        """Find what moves in all videos that this is not known of; what was found before an interruption stays."""

        def find(index: int) -> None:
            with contextlib.suppress(Broken):  # said where the video is read
                store_tracks(self.files[index], gap)

        some = {self.files[index]: index for index in np.flatnonzero(self.extents).tolist()}  # windows share a file
        missing = [index for file, index in some.items() if not tracks_path(file, gap).exists()]
        if missing:
            side_by_side(f"finding what moves in {self.name}, once", find, missing)

    def some(self, videos: Videos, indices: NDArray[np.int64]) -> Stored:
        """Return the frames of these videos, which are those of the numbers `indices`."""
        files = [self.files[index] for index in indices.tolist()]
        return Stored(videos, self.rate, self.side, files, self.spans[indices])


class Streamed(Conformed):
    """Videos at one frame rate and size. A clip costs the decoding of all that lies before it in its video.

    Without the store nobody knows where something moves: tasks cut clips anywhere.
    """

    def extent(self, index: int) -> int:
        """Return the number of frames that the header promises, at this rate; raise `Broken` where it does not."""
        first, end = self._span(index)
        return end - first

    def _span(self, index: int) -> tuple[int, int]:
        header = about(self.videos.file(index))
        if not header.frames:
            raise Broken("its header does not say how long it is")
        return self.videos.frames_of(index, self.rate, max(1, int(header.frames / header.fps * self.rate)))

    def frames(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) by their numbers; the last one again for those that a short file lacks."""
        numbers = numbers + self._span(index)[0]
        wanted, found, last = set(numbers.tolist()), {}, None
        for number, frame in enumerate(islice(decode(self.videos.file(index), self.rate, self.side), max(wanted) + 1)):
            last = frame
            if number in wanted:
                found[number] = frame
        if not found or last is None:
            raise Broken("it ends before the clip begins: its header promises more frames")
        return np.stack([found.get(number, last) for number in numbers.tolist()])

    def some(self, videos: Videos, indices: NDArray[np.int64]) -> Streamed:
        """Return these videos, which are those of the numbers `indices`."""
        return Streamed(videos, self.rate, self.side)


def _bytes(videos: Videos, rate: float, side: int) -> float:
    """Return how many bytes all frames have, by the headers of some videos."""
    counts = []
    looked = np.linspace(0, len(videos) - 1, min(len(videos), LOOKED)).astype(np.int64)
    for index in looked.tolist():
        with contextlib.suppress(Broken):
            header = about(videos.file(index))
            counts.append(header.frames / header.fps * rate)
    return float(np.mean(counts or [0])) * len(videos) * side * side * 16 / 9 * 3


def _check_room(videos: Videos, rate: float, side: int, jpeg: bool) -> None:
    """Raise `UserError` where the frames will not fit on the disk of the cache."""
    needed = _bytes(videos, rate, side) / (8 if jpeg else 1)
    check_room(f"the frames of {videos.name}", needed, "give a smaller --size or --fps, --store jpeg, or ")


def open_query(query: object) -> Videos:
    """Return the video file (or folder of frames) of that name as a source of one sample; `UserError` for none."""
    return Videos.of_query(query, "video")
