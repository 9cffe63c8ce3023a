"""Spans of sound files: seeked, decoded, mixed to one channel and resampled."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import need
from selfsup.source import Broken

SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
RATES = 100, 1_000_000  # samples a second that a file may have
SLOW = ("MP3", "OGG")  # as the library calls them
BLOCK = 1 << 18  # values that are decoded at a time: memory grows with what is there, not with what a header promises
MOST = 1 << 28  # samples of a span: 4.6 hours at 16,000 a second
CORRECTED = re.compile(r"(?:data|SSND) : ([0-9]+) \(should be ([0-9]+)\)")  # what libsndfile says of WAV and AIFF
MARGIN = 96  # samples of the lower rate around a span that its resampling sees


class Header(NamedTuple):
    """What the header of a sound file says: samples a second, how many in each channel, and channels.

    `slow`: whether decoding a span takes longer than from PCM or FLAC, as in MP3, Vorbis and Opus.
    """

    rate: int
    samples: int
    channels: int
    slow: bool = False

    def at(self, rate: int) -> int:
        """Return how many samples there are at another rate, rounded as the resampler does."""
        return (2 * self.samples * rate + self.rate) // (2 * self.rate)


def about(path: bytes) -> Header:
    """Return what the header of a sound file says, or raise `Broken`."""
    with _opened(path) as file:
        return _header(file)


def measure(path: bytes) -> tuple[Header, bool]:
    """Return the header of a sound file, with the samples that are really there, and whether it promises more.

    Only a file that ends before its last sample is decoded to count them, and none that is `slow`: `stream` finds how
    much there is. Raises `Broken` where there are no samples.
    """
    with _opened(path) as file:
        header = _header(file)
        if header.slow:
            return header, False
        with contextlib.suppress(Broken):
            if len(native(file, header.samples - 1, header.samples)):
                return header, any(int(told) > int(there) for told, there in CORRECTED.findall(file.extra_info))
    count = 0
    with _opened(path) as file:
        try:
            while count < MOST and (some := len(native(file, count, count + max(1, BLOCK // header.channels)))):
                count += some
        except Broken:
            if not count:
                raise
    if not count:
        raise Broken("no samples")
    return header._replace(samples=count), True


def read(path: bytes, start: int, stop: int, rate: int) -> NDArray[np.float32]:
    """Return samples `start` to `stop` at `rate` Hz of a sound file, (N,) float32.

    One channel: the mean of all, silent ones too, so that a span does not depend on what lies outside of it. Whole
    numbers of any width become -1 to 1; floats are kept as they are, beyond 1 too. Only the span and the margin that
    resampling needs are decoded, and the samples are those of the whole recording resampled at once, to 1e-4. What a
    header promises and the file lacks is left out at the end.

    Raises `Broken` for what is no sound, a span of which the file has nothing, and one with NaN or infinite samples.
    """
    if stop - start > MOST:
        raise Broken(f"more than {MOST:,} samples at once")
    with _opened(path) as file:
        own = _header(file).rate
        if own == rate:
            found = mono(native(file, start, stop))
        else:  # from a sample of the file that lies exactly on one of the new rate
            shared = math.gcd(own, rate)
            margin = -(-MARGIN * rate // min(own, rate))
            block = max(0, start - margin) // (rate // shared)
            last = -(-(stop + margin) * own // rate)
            samples = mono(native(file, block * (own // shared), last))
            first = start - block * (rate // shared)
            found = need("soxr", "audio").resample(samples, own, rate)[first : first + stop - start]
    if not len(found):
        raise Broken("it ends before this span: its header promises more" if start else "no samples")
    return found


def stream(path: bytes, rate: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield the whole recording that `read` returns parts of, (N,) float32 piece by piece, from beginning to end.

    Beside each piece stands how many samples of the file were decoded for it and those before. It ends at a place of
    damage; raises `Broken` where nothing comes before that.
    """
    with _opened(path) as file:
        header = _header(file)
        size, count = max(1, BLOCK // header.channels), 0
        made = need("soxr", "audio").ResampleStream(header.rate, rate, 1, dtype="float32")
        try:
            while len(samples := native(file, count, count + size)):
                count += len(samples)
                yield made.resample_chunk(mono(samples)), count
        except Broken:
            if not count:
                raise
        yield made.resample_chunk(np.zeros(0, np.float32), last=True), count


def read_native(path: bytes, start: int, stop: int) -> NDArray[np.float32]:
    """Return samples of a file at its own rate, (N, channels) float32: fewer where it ends; or raise `Broken`."""
    with _opened(path) as file:
        _header(file)
        return native(file, start, stop)


def mono(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the channels of (N, channels)."""
    total = np.ascontiguousarray(samples[:, 0])
    for channel in range(1, samples.shape[1]):
        total = total + samples[:, channel]
    return total / np.float32(samples.shape[1]) if samples.shape[1] > 1 else total


def native(file: Any, start: int, stop: int) -> NDArray[np.float32]:
    """Return samples of an open file, (N, channels) float32, decoded in blocks: those before a place of damage."""
    blocks, left = [np.zeros((0, file.channels), np.float32)], min(stop, file.frames) - start
    try:
        if left > 0 and file.tell() != start:
            _go(file, start)
        while left > 0:
            block = np.full((min(left, max(1, BLOCK // file.channels)), file.channels), np.nan, np.float32)
            blocks.append(block)
            blocks[-1] = file.read(out=block)
            if not len(blocks[-1]):
                break
            left -= len(blocks[-1])
    except Exception as error:  # of soundfile, for damaged data: what comes before it is in the block
        blocks[-1] = blocks[-1][~np.isnan(blocks[-1][:, -1])]
        if not any(map(len, blocks)):
            raise _reason(error) from None
    found = np.concatenate(blocks) if len(blocks) != 2 else blocks[1]
    if not np.isfinite(found).all():
        raise Broken("samples that are NaN or infinite")
    return found


def _go(file: Any, start: int) -> None:
    """Go to a sample of an open file; in MP3 by decoding what is before: after a jump its decoder writes on stderr."""
    if file.format == "MP3" and file.tell() < start:
        while (left := start - file.tell()) > 0 and len(file.read(min(left, max(1, BLOCK // file.channels)))):
            pass
    else:
        file.seek(start)


def _opened(path: bytes) -> Any:
    soundfile = need("soundfile", "audio")
    if not os.path.isfile(path):
        raise Broken("not a file" if os.path.exists(path) else "no such file")
    if not os.path.getsize(path):
        raise Broken("empty file")
    try:
        file = soundfile.SoundFile(path)
    except Exception as error:
        raise _reason(error) from None
    file.seekable = lambda: False  # or each read ends by going to where it is, at which MP3's decoder writes on stderr
    return file


def _header(file: Any) -> Header:
    header = Header(int(file.samplerate), int(file.frames), int(file.channels), file.format in SLOW)
    if not RATES[0] <= header.rate <= RATES[1]:
        raise Broken(f"its header has an impossible rate of {header.rate:,} Hz")
    if header.samples <= 0:
        raise Broken("no samples")
    return header


def _reason(error: Exception) -> Broken:
    """Return what the library says, without names and numbers, so that one reason is counted as one."""
    said = str(getattr(error, "error_string", error))
    return Broken(re.sub(r"b?'.*'|[0-9]{3,}", "…", f"not a sound: {said}")[:100].rstrip(". "))
