"""The linear evaluator: a probe for classes, ridge regression for numbers, on the pooling that suits it best."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.probe import Probe, fit_probe
from selfsup.evaluation.ridge import Ridge, fit_ridge


def read_linear(drawn: Drawn, test: Poolings) -> NDArray[Any]:
    """Return class ids, or numbers."""
    pooling, fitted = fit_linear(drawn)
    return fitted.predict(test[pooling])


def fit_linear(drawn: Drawn) -> tuple[str, Probe | Ridge]:
    """Return the pooling with the lowest held-out loss on the drawn labels, and the model of its features."""
    if "linear" not in drawn.shared:
        drawn.shared["linear"] = _fit_linear(drawn)
    found: tuple[str, Probe | Ridge] = drawn.shared["linear"]
    return found


def _fit_linear(drawn: Drawn) -> tuple[str, Probe | Ridge]:

    def fit(pooling: str) -> Probe | Ridge:
        if drawn.num_classes is None:
            return fit_ridge(drawn.features(pooling), drawn.y)
        return fit_probe(
            drawn.features(pooling), drawn.y, drawn.num_classes, per_feature=drawn.per_feature
        )  # fmt: skip

    first, *others = (pooling for pooling in drawn.pool if pooling != "tokens")
    best, fitted = first, fit(first)
    for pooling in others:  # where nothing was held out the losses are nan, and the encoder's own pooling stays
        other = fit(pooling)
        if other.loss < fitted.loss:
            best, fitted = pooling, other
    return best, fitted
