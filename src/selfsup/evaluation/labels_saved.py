"""Labels saved: how many labels training from scratch needs to reach what a representation reaches with few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.evaluation.draws import RESAMPLES, widening


@dataclass(frozen=True)
class Saved:
    """With `shots` labels per class the representation reaches what training from scratch reaches with `needed`.

    `low` to `high` is the 95% interval of `needed`. Infinity: more than there are. `needed` is never
    below the fewest labels that were measured.
    """

    shots: float
    accuracy: float
    needed: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """Return plain numbers; null stands for more than there are."""
        return {key: None if math.isinf(value) else value for key, value in asdict(self).items()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Saved:
        """Return what `as_json` gave."""
        one = cls(**{key: math.inf if plain[key] is None else float(plain[key]) for key in cls.__dataclass_fields__})
        if not (one.shots > 0 and one.needed > 0 and math.isfinite(one.shots) and abs(one.accuracy) < 1e100):
            raise ValueError("it has impossible labels saved")
        return one


def labels_saved(
    ours: Mapping[float, Sequence[float]], scratch: Mapping[float, Sequence[float]], *, seed: int = 0
) -> list[Saved]:
    """Return, for every number of labels per class, how many training from scratch needs to reach the same accuracy.

    From-scratch's mean accuracies, made to rise (an accuracy counts once it has been reached), are interpolated
    linearly over the logarithm of the labels. The interval is the percentile bootstrap over draws: a draw stands for
    its labels at every number of labels and for both curves. Because a few resampled draws vary too little, the
    resampled means are spread around the mean until they vary as Student's t interval says.

    Args:
        ours: accuracies, one per draw, by labels per class; a single one where all labels were used.
        scratch: the same for training from scratch, on the same draws.
        seed: seed of the resampling.
    """
    places, shots = sorted(scratch), sorted(ours)
    draws = max(len(values) for values in (*ours.values(), *scratch.values()))
    rows = np.random.default_rng(seed).integers(0, draws, (RESAMPLES, draws))
    wide = widening(draws)
    curve, wanted = (
        [_resampled(by[k], rows, wide) for k in ks] for by, ks in ((scratch, places), (ours, shots))
    )  # fmt: skip
    logs = np.log(places)
    found = []
    for k, target in zip(shots, wanted, strict=True):
        needed = _crossing(logs, np.stack(curve, 1), target)
        low, high = np.quantile(needed[1:], (0.025, 0.975), method="nearest")
        found.append(Saved(k, float(target[0]), float(needed[0]), float(min(low, needed[0])), float(high)))
    return found


def sentence(saved: Sequence[Saved], what: str, against: str = "from scratch") -> str:
    """Return the headline in words, for the entry nearest to 10 labels per class: `what` beside the row `against`."""
    if not saved:
        return ""
    one = min(saved, key=lambda entry: abs(math.log(entry.shots / 10)))
    start = f"Labels saved: with {_labels(one.shots)} per class {what} reaches {one.accuracy:.1%}; {against} "
    if math.isinf(one.needed):
        return start + "does not reach that with all the labels that you have."
    high = "more than you have" if math.isinf(one.high) else f"{one.high:.3g}"
    end = f"needs {one.needed:.3g} per class for that (95% interval {one.low:.3g} to {high})"
    if one.high <= one.shots:
        return start + end + ": nothing is saved."
    return (
        start + end + (": no clear saving." if one.low <= one.shots else f", {one.needed / one.shots:.2g} × as many.")
    )


def _resampled(values: Sequence[float], rows: NDArray[np.int64], wide: float) -> NDArray[np.float64]:
    """Return the mean, then the resampled means (resamples + 1,); a single value stands for every draw."""
    x = np.asarray(values, np.float64)
    mean = x.mean()
    means = x[rows].mean(1) if len(x) == rows.shape[1] else np.full(len(rows), mean)
    return np.concatenate([[mean], mean + wide * (means - mean)])


def _crossing(logs: NDArray[np.float64], curves: NDArray[np.float64], target: NDArray[np.float64]) -> Any:
    """Return for each curve (r, places) the number of labels at which it first reaches its target (r,)."""
    rising = np.maximum.accumulate(curves, 1)
    reached = rising >= target[:, None]
    after = reached.argmax(1)
    before = np.maximum(after - 1, 0)
    row = np.arange(len(curves))
    low, high = rising[row, before], rising[row, after]
    way = np.where(after > 0, (target - low) / np.where(high > low, high - low, 1), 0.0)
    needed = np.exp(logs[before] + way * (logs[after] - logs[before]))
    return np.where(reached.any(1), needed, math.inf)


def _labels(count: float) -> str:
    return "1 label" if count == 1 else f"{count:.3g} labels"
