"""The source of sounds: files, of which any span is read at one rate and as one channel."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.cache import check_room
from selfsup.base.notes import say_notes
from selfsup.base.progress import counting
from selfsup.base.threads import side_by_side
from selfsup.data.audio.decode import Header, about, measure, read
from selfsup.data.audio.look import look
from selfsup.data.audio.store import read_stored, store, stored_extent, stored_path
from selfsup.data.audio.windows import measured, wave_spec, waves_only
from selfsup.data.index import fingerprint
from selfsup.data.media_files import MediaFiles
from selfsup.errors import UserError
from selfsup.source import Broken, Labels
from selfsup.spec import Spec, WaveSpec

SECONDS = 0.25, 2.0  # a window by default: the median length of the recordings, but no less and no more than this
LOOKED, MEASURED = 256, 64  # recordings that are looked at, and of which mean and standard deviation are measured


class Sounds(MediaFiles):
    """Sound files below `root`: raw paths in one Arrow array.

    `conform` reads all headers, looks whether they are true, and decodes once into the store what is slow to decode
    (MP3, Vorbis, Opus); spans of others are decoded when they are asked for. `rate`: samples a second with which
    recordings are read; None for each one's own.
    """

    kind = "audio"

    def __init__(
        self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(root, paths, labels, name, notes)
        self.rate: int | None = None
        self._headers: NDArray[np.int64] | None = None  # (N, 4), zeros for a broken one
        self._extents: dict[int, NDArray[np.int64]] = {}  # by rate (N,), 0 for a broken one
        self._looked_for: tuple[int, float] | None = None  # rate and seconds of windows about which all is said

    def extent(self, index: int) -> int:
        """Return how many samples there are at `rate`, 0 in a broken one; without `rate` what the header promises."""
        return about(self.file(index)).samples if self.rate is None else int(self._extents[self.rate][index])

    def read(self, index: int, span: slice | None = None) -> NDArray[np.float32]:
        """Return the samples of a span (N,), one channel, at `rate`; or raise `Broken`. Nothing else is decoded."""
        start, stop, _ = (span or slice(None)).indices(self.extent(index))
        file = self.file(index)
        if self.rate is None or self._headers is None:
            return read(file, start, stop, about(file).rate)
        if stop > start and self._headers[index, 3]:
            return read_stored(stored_path(file, self.rate), start, stop)
        found = read(file, start, max(start, stop), self.rate)
        if len(found) < stop - start:
            raise Broken("damaged within this span")
        return found

    def spec(
        self, rate: int | None = None, seconds: float | None = None, form: str | None = None, mels: int | None = None
    ) -> WaveSpec:
        """Return what an encoder gets of these recordings.

        Args:
            rate: Samples per second with which recordings are read, whatever their files have; 16000 by default, in
                [1000, 192000].
            seconds: Length of a window; by default the median length of the recordings, but at least 0.25 and at most
                2, in [0.02, 600].
            form: logmel (the default), a spectrogram of logarithmic mel bands, or wave, the samples themselves.
            mels: Bands of a spectrogram; 64 by default, in [8, 256].

        Raises:
            UserError: For values out of their range, and where no recording can be read.
        """
        if seconds is None:
            wave_spec(rate, 1.0, form, mels)  # before the headers are read
        found = wave_spec(rate, self._seconds() if seconds is None else seconds, form, mels)
        return measured(self.conform(found), found, self._some(MEASURED))

    def _seconds(self) -> float:
        """Return the length of a window where none was given, and say it."""
        headers = self._read_headers()
        median = float(np.median(headers[:, 1][headers[:, 1] > 0] / headers[:, 0][headers[:, 0] > 0]))
        seconds = round(float(np.clip(median, *SECONDS)), 2)
        self._note(
            [
                f"windows of {seconds:g} s (--seconds): the median length of the recordings is {median:.3g} s, and a "
                f"window by default {SECONDS[0]:g} to {SECONDS[1]:g} s"
            ]
        )
        return seconds

    def _some(self, most: int) -> list[int]:
        """Return which recordings are looked at: the same ones each time."""
        count = len(self)
        if count <= most:
            return list(range(count))
        return sorted(np.random.default_rng(0).choice(count, most, replace=False).tolist())

    def _read_headers(self) -> NDArray[np.int64]:
        """Return rate, samples, channels and whether it is slow of each recording (N, 4); zeros for a broken one.

        Raises `UserError` where no recording can be read.
        """
        if self._headers is not None:
            return self._headers
        headers, reasons, shorter = np.zeros((len(self), 4), np.int64), Counter[str](), 0
        with counting(f"reading the headers of {self.name}", len(self)) as advance:
            for index in range(len(self)):
                try:
                    headers[index], less = measure(self.file(index))
                    shorter += less
                except Broken as error:
                    reasons[str(error)] += 1
                advance(1)
        self._count(reasons, shorter)
        self._headers = headers
        return headers

    def _count(self, reasons: Counter[str], shorter: int) -> None:
        """Say how many recordings cannot be read, and how many only in part. Raises `UserError` if none can be."""
        if reasons:
            told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(4))
            if reasons.total() == len(self):
                raise UserError(f"none of the {len(self):,} recordings of {self.name} can be read: {told}")
            self._note([f"{reasons.total():,} of {len(self):,} recordings cannot be read: {told}"])
        if shorter:
            self._note(
                [f"{shorter:,} of {len(self):,} recordings have less than their headers promise: what is there is read"]
            )

    def _ready(self, rate: int) -> None:
        """Find how many samples each recording has at a rate; those that are slow to decode are decoded, once."""
        headers = self._read_headers()
        if rate in self._extents:
            return
        extents = np.array([Header(*row).at(rate) if row[0] else 0 for row in headers.tolist()], np.int64)
        slow = np.flatnonzero(headers[:, 3])
        files = {index: stored_path(self.file(index), rate) for index in slow.tolist()}
        missing = [index for index, file in files.items() if not file.exists()]
        if missing:
            check_room(
                f"the decoded recordings of {self.name}", 2 * int(extents[missing].sum()), "give a lower --rate, or "
            )
            side_by_side(
                f"decoding recordings of {self.name}, once",
                lambda index: store(self.file(index), files[index], rate),
                missing,
            )
        reasons, shorter = Counter[str](), 0
        for index, file in files.items():
            extents[index] = 0
            try:
                extents[index], own = stored_extent(file)
                shorter += own < headers[index, 1]
            except Broken as error:
                reasons[str(error)] += 1
        self._count(reasons, shorter)
        self._extents[rate] = extents

    def conform(self, spec: Spec) -> Sounds:
        """Return the same recordings at the rate of the spec. What is odd about them is said.

        Raises `UserError` for a spec of another kind, and where no recording can be read.
        """
        spec = waves_only(self.name, spec)
        self._ready(spec.rate)
        windows = spec.rate, spec.seconds
        if self._looked_for != windows:
            if self._looked_for is None:
                self._note(look(self.file(index) for index in self._some(LOOKED)))
            there = self._extents[spec.rate] > 0
            self._note(_changes(self._read_headers()[there], self._extents[spec.rate][there], spec))
            self._looked_for = windows
        say_notes(self)
        if self.rate == spec.rate:
            return self
        same = copy.copy(self)
        same.rate = spec.rate
        return same

    def _note(self, lines: Sequence[str]) -> None:
        new = (f"{self.name}: {line}" for line in lines)
        self.notes = (*self.notes, *(line for line in new if line not in self.notes))

    def take(self, indices: NDArray[np.int64]) -> Sounds:
        """Return some of the recordings."""
        taken = super().take(indices)
        taken._headers = None if self._headers is None else self._headers[indices]
        taken._extents = {rate: extents[indices] for rate, extents in self._extents.items()}
        return taken

    def fingerprint(self) -> str:
        """Return a hash of all relative paths in order, and of the labels, but not of the files' contents."""
        return fingerprint(self.paths, self.labels, self.frame_labels)


def _changes(headers: NDArray[np.int64], extents: NDArray[np.int64], spec: WaveSpec) -> list[str]:
    """Return what is done to recordings to read them as windows of a spec: a line each."""
    rates, _, channels, _ = headers.T
    count, lines = len(headers), []
    if other := int((rates != spec.rate).sum()):
        some = Counter(rates[rates != spec.rate].tolist()).most_common(4)
        told = ", ".join(f"{rate:,} Hz ({number:,})" for rate, number in some)
        above = rates.max() < spec.rate
        hint = f"; none has anything above {rates.max() / 2:,.0f} Hz (--rate {rates.max()})" if above else ""
        lines.append(f"{other:,} of {count:,} recordings are resampled to {spec.rate:,} Hz, from {told}{hint}")
    if several := int((channels > 1).sum()):
        lines.append(f"{several:,} of {count:,} recordings have several channels, of which the mean is taken")
    if short := int((extents < spec.length).sum()):
        lines.append(f"{short:,} of {count:,} recordings are shorter than a window of {spec.seconds:g} s: silence is "
                     "added")  # fmt: skip
    return lines


def open_query(query: object) -> Sounds:
    """Return the sound file of that name as a source of one sample; `UserError` for none."""
    return Sounds.of_query(query, "sound")
