"""`melody`: generated recordings of which everything is known: who sings, what, and which note when.

A recording is a row of notes of the pentatonic scale, sung by one of four voices that differ in their overtones, over
noise of its own, louder or softer. The label of a recording is how its notes go (up, down, in turns, the same again),
or with `:voice` who sings. Notes lead to the next one by rule, so that there is something to predict.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.data.audio.windows import measured, wave_spec, waves_only
from selfsup.data.index import fingerprint_of_generated
from selfsup.source import Annotations, Labels, source_repr
from selfsup.spec import Spec, WaveSpec

PARTS = ("melody", "melody:voice")
TUNES = ("up", "down", "in turns", "the same again")
VOICES = ("flute", "reed", "string", "bell")
OVERTONES = np.array(
    [[1, 0.1, 0, 0, 0, 0], [1, 0, 0.7, 0, 0.5, 0], [1, 0.8, 0.6, 0.5, 0.4, 0.3], [1, 0, 0, 0.6, 0, 0.8]]
)
SCALE = 220 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21]) / 12)  # Hz
COUNT, RATE, SECONDS = 1000, 16_000, 1.5  # recordings, samples a second, of a window by default
NOTES, SHORTEST, LONGEST = 8, 0.12, 0.24  # of a recording; seconds of a note
RAMP = 0.01  # seconds in which a note begins and ends


class Tune(NamedTuple):
    """What is heard in a recording: notes, numbers of `SCALE`, and where each ends, in samples; who sings."""

    notes: NDArray[np.int64]
    ends: NDArray[np.int64]
    voice: int
    loudness: float
    noise: float


class Melody:
    """The generated recordings; see the module. `numbers`: which of them, from which everything follows."""

    kind, rate = "audio", RATE
    __repr__ = source_repr

    def __init__(self, name: str = "melody", count: int = COUNT) -> None:
        self.name, self.numbers = name, np.arange(count)
        tunes = [_tune(number) for number in range(count)]
        voiced = name.endswith(":voice")
        names = [VOICES[tune.voice] if voiced else TUNES[n % len(TUNES)] for n, tune in enumerate(tunes)]
        self.labels: Labels | None = Labels.of(names)
        self.frame_labels: Annotations | None = _notes(tunes)

    def __len__(self) -> int:
        return len(self.numbers)

    def extent(self, index: int) -> int:
        """Return the number of samples, at 16 kHz."""
        return int(_tune(int(self.numbers[index])).ends[-1])

    def read(self, index: int, span: slice | None = None) -> NDArray[np.float32]:
        """Return samples (N,)."""
        return _sing(int(self.numbers[index]))[span or slice(None)]

    def path(self, index: int) -> str:
        """Return the number of the recording."""
        return str(self.numbers[index])

    def spec(self, seconds: float | None = None, form: str | None = None, mels: int | None = None) -> WaveSpec:
        """Return what an encoder gets of these recordings: see `Sounds.spec`; windows of 1.5 s by default."""
        return measured(self, wave_spec(RATE, seconds or SECONDS, form, mels), range(min(64, len(self))))

    def conform(self, spec: Spec) -> Melody:
        """Return the same recordings; raise `UserError` for a spec of another kind."""
        waves_only(self.name, spec)
        return self

    def take(self, indices: NDArray[np.int64]) -> Melody:
        """Return some of the recordings."""
        taken = copy.copy(self)
        taken.numbers = self.numbers[indices]
        taken.labels = self.labels and self.labels.take(indices)
        taken.frame_labels = self.frame_labels and self.frame_labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the numbers and the labels."""
        return fingerprint_of_generated(self.name, self.numbers, self.labels, self.frame_labels)


def _notes(tunes: Sequence[Tune]) -> Annotations:
    """Return which note is sung when, as labels inside of the recordings."""
    ends = np.stack([tune.ends for tune in tunes]) / RATE
    starts = np.concatenate([np.zeros((len(tunes), 1)), ends[:, :-1]], 1)
    names = Labels.of([f"{SCALE[note]:.0f} Hz" for tune in tunes for note in tune.notes])
    owners = np.repeat(np.arange(len(tunes)), NOTES)
    return Annotations.of(owners, starts.ravel(), ends.ravel(), names, ends[:, -1])


@lru_cache(4096)
def _tune(number: int) -> Tune:
    random = np.random.default_rng([number, 1])
    step = {"up": 1, "down": -1}.get(TUNES[number % len(TUNES)])
    first, jump = int(random.integers(len(SCALE))), int(random.integers(2, 5))
    if step is not None:
        notes = first + step * np.arange(NOTES)
    else:
        turns = TUNES[number % len(TUNES)] == "in turns"
        notes = first + jump * (np.arange(NOTES) % 2 if turns else np.zeros(NOTES, int))
    ends = np.cumsum(random.uniform(SHORTEST, LONGEST, NOTES) * RATE).astype(np.int64)
    voice, loudness, noise = int(random.integers(len(VOICES))), random.uniform(0.03, 0.3), random.uniform(0.002, 0.02)
    return Tune(notes % len(SCALE), ends, voice, loudness, noise)


@lru_cache(256)
def _sing(number: int) -> NDArray[np.float32]:
    tune, random = _tune(number), np.random.default_rng([number, 2])
    lengths = np.diff(tune.ends, prepend=0)
    time = np.arange(tune.ends[-1]) - np.repeat(tune.ends - lengths, lengths)  # since the note began
    left = np.repeat(tune.ends, lengths) - np.arange(tune.ends[-1])
    phase = 2 * np.pi / RATE * np.repeat(SCALE[tune.notes], lengths) * time
    harmonics = np.arange(1, OVERTONES.shape[1] + 1)
    sound = np.sin(phase[:, None] * harmonics) @ (OVERTONES[tune.voice] / OVERTONES[tune.voice].sum())
    shape = np.minimum(np.minimum(time, left) / (RAMP * RATE), 1)
    whole = tune.loudness * (sound * shape + tune.noise / tune.loudness * random.standard_normal(len(sound)))
    return whole.astype(np.float32)
