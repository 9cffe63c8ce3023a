"""TF-IDF of words and pairs of words (`selfsup.evaluation.baselines.Baseline`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import TextSpec

NAME, STANDARDISED = "TF-IDF", False
WORDS = 20_000  # at most
ABOUT = {
    NAME: f"words and pairs of words, at most {WORDS:,}, weighted on the training part without its labels, each "
    "document of length 1; the linear probe does not scale them",
    "PCA": "the first 64 principal components of those, from the training part without its labels",
}


def features(
    parts: Sequence[Source], spec: TextSpec, quiet: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the TF-IDF weights."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(sublinear_tf=True, max_features=WORDS, ngram_range=(1, 2), dtype=np.float32)
    found = []
    for number, part in enumerate(parts):
        tokens = part.conform(spec)
        read = np.array([index for index in range(len(part)) if tokens.extent(index)], np.int64)
        texts = (part.read(index) for index in read.tolist())
        try:
            x = counter.transform(texts) if number else counter.fit_transform(texts)
        except ValueError:
            raise UserError(f"{part.name} has no words that TF-IDF can count") from None
        found.append((read, x.toarray()))
    return found


def images(x: NDArray[np.float32], test_x: NDArray[np.float32], spec: TextSpec) -> None:
    """Return None: texts are no images."""


def module(spec: TextSpec) -> None:
    """Return None: the weight of a word depends on the other documents."""
