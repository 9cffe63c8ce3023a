"""`moving`: sprites over photographs, whose classes, tracks and masks are known, made as they are read.

What moves are digits with a random texture, before a piece of one of the photographs of scikit-learn. The label of a
video is how its sprites move, or with `:object` which digit its one sprite is, and where it is the label of each frame.
With `:gravity` balls fall and bounce,
each time less, so that time has an arrow; with `:elastic` they lose nothing, so that it has none: an arrow that is
found there is an artefact.
"""

from __future__ import annotations

import copy
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.data.index import fingerprint_of_generated
from selfsup.data.photographs import PHOTOGRAPHS, piece
from selfsup.data.video.clips import clip_spec, clips_only, stored_side
from selfsup.data.video.tracks import Tracks
from selfsup.errors import UserError
from selfsup.source import Annotations, Labels, source_repr
from selfsup.spec import ClipSpec, Spec

MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "shake", "pulse")
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
PARTS = ("moving", "moving:object", "moving:gravity", "moving:elastic")
COUNT, LENGTH, RATE = 1000, 32, 10.0  # videos, frames of each, frames a second
SIDE = 72  # pixels at which videos are shown when no spec says another size


class Scene(NamedTuple):
    """One video in units of its side: centres (K, T, 2) as y and x, sizes (K, T), and what is to be drawn."""

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    digits: NDArray[np.int64]  # (K,) numbers of glyphs
    colours: NDArray[np.float64]  # (K, 2, 3) of the texture's two parts
    stripes: NDArray[np.float64]  # (K, 2) waves of the texture along y and x
    photograph: int
    corner: NDArray[np.float64]  # (2,) of the background in its photograph


class Moving:
    """The generated videos; see the module. `numbers`: which of them, from which everything about them follows."""

    kind = "video"
    __repr__ = source_repr

    def __init__(self, name: str = "moving", count: int = COUNT) -> None:
        self.name, self.part = name, name.partition(":")[2]
        self.numbers, self.side = np.arange(count), SIDE
        self.labels: Labels | None = None
        self.frame_labels: Annotations | None = None
        if self.part == "object":
            self.labels = Labels.of([_glyphs()[1][_digit(number)] for number in range(count)])
            self.frame_labels = _positions(self.numbers)
        elif not self.part:
            self.labels = Labels.of([MOTIONS[number % len(MOTIONS)] for number in range(count)])

    def __len__(self) -> int:
        return len(self.numbers)

    def extent(self, index: int) -> int:
        """Return the number of frames: 32."""
        return LENGTH

    def read(self, index: int, span: slice | None = None) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3)."""
        return self.frames(index, np.arange(LENGTH)[span or slice(None)])

    def frames(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) by their numbers."""
        return _render(self.scene(index), numbers, self.side)[0]

    def masks(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return which sprite is seen where in frames: (T, H, W), 0 for the background, k + 1 for sprite k."""
        return _render(self.scene(index), numbers, self.side)[1]

    def scene(self, index: int) -> Scene:
        """Return where the sprites are."""
        number = int(self.numbers[index])
        return _scene(number, self.part)

    def motion(self, index: int) -> NDArray[np.float32]:
        """Return how far the sprites move from the frame before (N,), in pixels."""
        moved = np.linalg.norm(np.diff(self.scene(index).centre, axis=1, prepend=np.nan), axis=2).mean(0)
        return np.nan_to_num(self.side * moved).astype(np.float32)

    def tracks(self, index: int, gap: int) -> Tracks:
        """Return where the sprites are in every window of `gap` frames, but for what is hidden or half outside."""
        start, scene = np.arange(max(LENGTH - gap, 0)), self.scene(index)
        frames = np.stack([start, start + gap], 1)
        centre, size = scene.centre[:, frames], scene.size[:, frames]  # (K, W, 2, 2), (K, W, 2)
        seen: NDArray[np.bool_] = np.all((centre > 0) & (centre < 1), axis=(2, 3))
        for k in range(len(seen) - 1):  # later sprites lie over earlier ones
            near = np.linalg.norm(centre[k + 1 :] - centre[k], axis=3) < 0.6 * size[k]
            seen[k] &= ~near.any((0, 2))
        boxes = self.side * np.concatenate([centre - size[..., None] / 2, size[..., None]], 3)
        boxes[~seen] = np.nan
        return Tracks(frames, boxes.swapaxes(0, 1).astype(np.float32))

    def path(self, index: int) -> str:
        """Return the number of the video."""
        return str(self.numbers[index])

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        frames: int | None = None,
        step: int | None = None,
        fps: float | None = None,
    ) -> ClipSpec:
        """Return what an encoder gets; see `Videos.spec`. Raises `UserError` for another frame rate than 10."""
        if fps not in (None, RATE):
            raise UserError(f"{self.name} has {RATE:g} frames a second: leave --fps out")
        return clip_spec(size, channels, frames, step, RATE)

    def conform(self, spec: Spec) -> Moving:
        """Return the same, drawn in the size of the spec. Raises `UserError` for a spec of another kind."""
        side = stored_side(clips_only(self.name, spec))
        if side == self.side:
            return self
        same = copy.copy(self)
        same.side = side
        return same

    def take(self, indices: NDArray[np.int64]) -> Moving:
        """Return some of the videos."""
        taken = copy.copy(self)
        taken.numbers, taken.labels = self.numbers[indices], self.labels and self.labels.take(indices)
        taken.frame_labels = self.frame_labels and self.frame_labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the name, the numbers and the labels."""
        return fingerprint_of_generated(self.name, self.numbers, self.labels, self.frame_labels)


@cache
def _glyphs() -> tuple[NDArray[np.float64], list[str]]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images / 16, [str(one) for one in found.target]


def _random(number: int, what: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[number, what]))


def _digit(number: int) -> int:
    return int(_random(number, 1).integers(len(_glyphs()[0])))


@lru_cache(4096)  # views ask for the motion and for the frames
def _scene(number: int, part: str) -> Scene:
    u = _random(number, 2)
    sprites = 1 if part == "object" else 3
    time = np.linspace(0, 1, LENGTH)
    size = np.repeat(u.uniform(0.2, 0.3, (sprites, 1)), LENGTH, 1)
    if part in ("gravity", "elastic"):
        centre = _falling(u, sprites, size, damping=0.75 if part == "gravity" else 1.0)
    else:
        motion = MOTIONS[number % len(MOTIONS)] if not part else MOTIONS[int(u.integers(4))]
        centre, grown = _course(u, sprites, motion, time)
        size = size * grown
    digits = u.integers(len(_glyphs()[0]), size=sprites)
    if part == "object":
        digits[0] = _digit(number)
        size = size * 1.6
    return Scene(
        centre, size, digits, u.uniform(0, 1, (sprites, 2, 3)), u.uniform(-25, 25, (sprites, 2)),
        int(u.integers(PHOTOGRAPHS)), u.uniform(0, 1, 2),
    )  # fmt: skip


def _positions(numbers: NDArray[np.int64]) -> Annotations:
    """Return in which quarter of each frame the centre of the one sprite is."""
    centre = np.concatenate([_scene(int(number), "object").centre for number in numbers])  # (N, T, 2) as y and x
    ids = (centre > 0.5).astype(np.int64) @ np.array([2, 1])
    time = np.tile(np.arange(LENGTH), len(numbers))
    return Annotations.of(
        np.repeat(np.arange(len(numbers)), LENGTH), time / RATE, (time + 1) / RATE, Labels(ids.reshape(-1), QUARTERS),
        np.full(len(numbers), LENGTH / RATE),
    )  # fmt: skip


def _course(
    u: np.random.Generator, sprites: int, motion: str, time: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres (K, T, 2) of sprites with one kind of motion, and by how much they grow (K, T)."""
    start, way = u.uniform(0.3, 0.7, (sprites, 1, 2)), u.uniform(0.5, 0.8, (sprites, 1))
    phase = u.uniform(0, 1, (sprites, 1))
    zero, grown = np.zeros((sprites, len(time))), np.ones((sprites, len(time)))
    line = way * (time - 0.5)
    angle = 2 * np.pi * (time * u.uniform(0.7, 1.3, (sprites, 1)) + phase)
    wave = 0.08 * np.sin(2 * np.pi * (time * 6 + phase))
    y, x = {
        "left": (zero, -line), "right": (zero, line), "up": (-line, zero), "down": (line, zero),
        "clockwise": (0.25 * way * np.sin(angle), 0.25 * way * np.cos(angle)),
        "anticlockwise": (-0.25 * way * np.sin(angle), 0.25 * way * np.cos(angle)),
        "shake": (wave, -wave), "pulse": (zero, zero),
    }[motion]  # fmt: skip
    if motion == "pulse":
        grown = 1 + 0.4 * np.sin(2 * np.pi * (2 * time + phase))
    return start + np.stack([y, x], 2), grown


def _falling(u: np.random.Generator, sprites: int, size: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """Return the centres (K, T, 2) of balls under gravity; a bounce leaves `damping` of the speed.

    Which frame is the first is drawn, so that without damping a video run backwards is as likely as the video.
    """
    fine, dt, gravity = 8, 1 / LENGTH / 8, 6.0
    floor = 1 - size[:, 0] / 2
    y, speed = u.uniform(0.1, 0.4, sprites), u.uniform(-1, 1, sprites)
    x, drift = u.uniform(0.3, 0.7, sprites), u.uniform(-0.3, 0.3, sprites)
    wait = 0 if damping < 1 else int(u.integers(4 * LENGTH))
    found = []
    for step in range(fine * (LENGTH + wait)):
        if step % fine == 0 and step >= fine * wait:
            found.append(np.stack([y, x + drift * ((step // fine - wait) / LENGTH - 0.5)], 1))
        speed_half = speed + 0.5 * dt * gravity
        y = y + dt * speed_half
        speed = speed_half + 0.5 * dt * gravity
        below = y > floor
        y = np.where(below, 2 * floor - y, y)
        speed = np.where(below, -damping * speed, speed)
    return np.stack(found, 1)


def _render(scene: Scene, numbers: NDArray[np.int64], side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return frames (T, side, side, 3) and masks (T, side, side) of a scene."""
    background = piece(scene.photograph, scene.corner, side).astype(np.float32)
    box = int(np.ceil(side * scene.size[:, numbers].max())) + 1  # pixels a side that hold any sprite
    whole = side + 2 * box  # sprites may leave the frame
    out = np.repeat(np.pad(background, ((box, box), (box, box), (0, 0)))[None], len(numbers), 0)
    masks = np.zeros((len(numbers), whole, whole), np.uint8)
    time, along = np.arange(len(numbers))[:, None, None], np.arange(box)
    for k in range(len(scene.digits)):
        centre, size = side * scene.centre[k, numbers] + box, side * scene.size[k, numbers]
        first = np.clip(np.floor(centre - size[:, None] / 2).astype(int), 0, whole - box)  # (T, 2)
        rows, columns = (first[:, axis, None] + along for axis in (0, 1))
        y = ((rows + 0.5 - centre[:, :1]) / size[:, None] + 0.5).astype(np.float32)  # from 0 to 1 in the sprite
        x = ((columns + 0.5 - centre[:, 1:]) / size[:, None] + 0.5).astype(np.float32)
        alpha = _sampled(_glyphs()[0][scene.digits[k]], y, x)
        stripes = scene.stripes[k].astype(np.float32)
        wave = 0.5 + 0.5 * np.sin(stripes[0] * y[:, :, None] + stripes[1] * x[:, None, :])
        one, other = (255 * scene.colours[k]).astype(np.float32)
        there = time, rows[:, :, None], columns[:, None, :]
        seen = out[there]
        out[there] = seen + alpha[..., None] * (other + wave[..., None] * (one - other) - seen)
        masks[there] = np.where(alpha > 0.5, k + 1, masks[there])
    inside = slice(box, box + side)
    return np.rint(out[:, inside, inside]).astype(np.uint8), masks[:, inside, inside]


def _sampled(glyph: NDArray[np.float64], y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a glyph (8, 8) at places y (T, S) × x (T, S), made sharper: (T, S, S) from 0 to 1, 0 outside."""
    rows, columns = (_weights(places, len(glyph)) for places in (y, x))
    sampled = rows @ glyph.astype(np.float32) @ columns.transpose(0, 2, 1)
    return np.clip(2.5 * sampled - 0.6, 0, 1).astype(np.float32)


def _weights(places: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the weights (T, S, count) of linear interpolation at places from 0 to 1."""
    at = places[..., None] * count - np.float32(0.5) - np.arange(count, dtype=np.float32)
    return np.clip(1 - np.abs(at), 0, 1)
