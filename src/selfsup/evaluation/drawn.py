"""What an evaluator is given: frozen features, and the labels of the few samples that were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Poolings = Mapping[str, NDArray[np.float32]]
"""Features (n, d) by pooling, the encoder's own (`own`) first; of some encoders also its `tokens` (n, tokens, d)."""


@dataclass(frozen=True)
class Drawn:
    """One draw of labels, and the features of all training samples, labelled or not.

    Evaluators that learn from labels alone use `features`; those that propagate labels use the whole `pool`.
    """

    pool: Poolings
    rows: NDArray[np.int64]  # (k,): the numbers of the labelled samples in the pool
    y: NDArray[Any]  # (k,) class ids, or (k,) or (k, targets) numbers
    num_classes: int | None  # None where `y` holds numbers
    per_feature: bool = True  # whether a linear model scales each feature by its own std; else all by one
    prepared: Any = None  # what the evaluator's `prepare` returned for this pool
    shared: dict[str, Any] = field(default_factory=dict)  # what one evaluator of this draw leaves for the others

    def features(self, pooling: str = "own") -> NDArray[np.float32]:
        """Return the features of the labelled samples."""
        return self.pool[pooling][self.rows]
