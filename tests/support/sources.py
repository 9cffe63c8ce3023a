"""Toy data: small enough to train on in a second, and with something to learn."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from selfsup.data.audio.melody import Melody
from selfsup.data.image import Arrays
from selfsup.data.text import Texts
from selfsup.data.trajectory import About, Dot, Episode, InMemory
from selfsup.data.video import Moving
from selfsup.source import Labels


def once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make each source once in a process; a test gets a copy, whose labels it may replace."""
    kept = functools.cache(make)
    return functools.wraps(make)(lambda *given, **options: copy.copy(kept(*given, **options)))


@once
def texts() -> Texts:
    """Documents of short sentences, in which a word tells the next one, and the class its words."""
    pytest.importorskip("transformers")
    words = ("cat", "dog", "sun", "sea")
    sentences = [f"the {w} sees the {w} and a {w} goes to the {w} again ." for w in words]
    return Texts.of(
        [(sentences[i % 4] + " ") * (4 + i % 5) for i in range(64)], Labels.of([words[i % 4] for i in range(64)])
    )


@once
def images(count: int = 64) -> Arrays:
    """Images with an upright gradient and a square whose colour is the class: every task can learn from them."""
    generator = np.random.default_rng(0)
    y = np.arange(count) % 4
    x = generator.integers(0, 40, (count, 32, 32, 3)) + np.linspace(0, 150, 32, dtype=int)[None, :, None, None]
    x[:, 8:20, 12:24] += (y[:, None, None, None] * 20) * np.array([1, 0, -1])
    for image in x:  # and a spot of its own, by which it can be told from the others
        top, left = generator.integers(0, 24, 2)
        image[top : top + 8, left : left + 8] += generator.integers(-100, 100, 3)
    return Arrays(x.clip(0, 255).astype(np.uint8), Labels.of([f"class {label}" for label in y]), "toy")


def two_cameras(length: int = 12, discrete: bool = False) -> tuple[About, Callable[[int], Episode]]:
    """Return what episodes of `dot` share that a second, mirrored camera sees too, and a function that makes one.

    `discrete`: actions are numbers from 0 to 3, the quarter to which the dot is pushed, in place of two real ones.
    """
    dot = Dot()

    def make(k: int) -> Episode:
        frames, steps = dot.frames(k, np.arange(length), "camera"), dot.steps(k).part(slice(length))
        action = (steps.action > 0) @ np.array([1, 2]) if discrete else steps.action
        return Episode(
            {"front": frames, "back": frames[:, :, ::-1, ::-1].copy()}, action[:-1], steps.reward[:-1],
            steps.terminated[:-1], True, steps.state, dot.labels.classes[dot.labels.ids[k]],
        )  # fmt: skip

    return About(("front", "back"), ("discrete", 4) if discrete else ("box", 2), dot.states, dot.fps), make


@once
def episodes(count: int = 64, length: int = 12, discrete: bool = False) -> InMemory:
    """Short episodes that two cameras see, with actions, rewards, states and labels."""
    about, make = two_cameras(length, discrete)
    return InMemory(about, [make(k) for k in range(count)], "toy")


def toy(kind: str):
    """Return toy data of a kind."""
    return {"text": texts, "video": moving, "audio": melody, "trajectory": episodes}.get(kind, images)()


@once
def moving() -> Moving:
    return Moving("moving", 64)


@once
def melody() -> Melody:
    return Melody("melody", 64)


def noise(size: int = 12) -> Arrays:
    """64 grey images of noise, without labels."""
    return Arrays(np.random.default_rng(0).integers(0, 255, (64, size, size, 1), dtype=np.uint8))
