"""Toy data: small enough to train on in a second, and with something to learn."""

import numpy as np
import pytest

from selfsup.data.audio.melody import Melody
from selfsup.data.image import Arrays
from selfsup.data.text import Texts
from selfsup.data.video import Moving
from selfsup.source import Labels


def texts() -> Texts:
    """Documents of short sentences, in which a word tells the next one, and the class its words."""
    pytest.importorskip("transformers")
    words = ("cat", "dog", "sun", "sea")
    sentences = [f"the {w} sees the {w} and a {w} goes to the {w} again ." for w in words]
    return Texts.of(
        [(sentences[i % 4] + " ") * (4 + i % 5) for i in range(64)], Labels.of([words[i % 4] for i in range(64)])
    )


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


def toy(kind: str):
    """Return toy data of a kind."""
    made = {"text": texts, "video": lambda: Moving("moving", 64), "audio": lambda: Melody("melody", 64)}
    return made.get(kind, images)()


def noise(size: int = 12) -> Arrays:
    """64 grey images of noise, without labels."""
    return Arrays(np.random.default_rng(0).integers(0, 255, (64, size, size, 1), dtype=np.uint8))
