"""Evaluations of several seeds of pretraining as one: means with 95% intervals over seeds and draws of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfsup.evaluation.draws import crossed, interval
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.score import Score


def over_seeds(found: Sequence[Evaluation]) -> Evaluation:
    """Return one evaluation of those of several seeds, with the same data and draws.

    A row that not all of them have, because it does not depend on pretraining, has its interval over draws alone. The
    labels saved are left out: their interval is one over draws.
    """
    rows = {(one.representation, one.protocol, one.shots): one for each in found for one in each.scores}
    by_row: dict[tuple[str, str, int | None], list[Score]] = {key: [] for key in rows}
    for each in found:
        for one in each.scores:
            by_row[one.representation, one.protocol, one.shots].append(one)
    about = found[0].about | {
        "seeds": len(found),
        "warnings": list(dict.fromkeys(line for each in found for line in each.about.get("warnings", ()))),
        "saved against": {},
    }
    metrics = {
        name: {key: float(np.mean([each.metrics[name][key] for each in found])) for key in row}
        for name, row in found[0].metrics.items()
    }
    return Evaluation(about, tuple(map(_together, by_row.values())), {}, metrics)


def _together(scores: Sequence[Score]) -> Score:
    first, grid = scores[0], np.concatenate([one.grid for one in scores])
    also = {}
    for name in first.also:  # only mean and interval are known: the variance of seeds is added to that of draws
        means, halves = np.array([one.also[name] for one in scores]).T
        widths = np.array([interval(means.tolist()).half, halves.mean()])
        also[name] = float(means.mean()), float("nan" if np.isnan(widths).all() else np.nansum(widths**2) ** 0.5)
    return Score(
        first.representation, first.protocol, first.shots, float(grid.mean()), crossed(grid),
        tuple(grid.ravel().tolist()), also, len(scores),
    )  # fmt: skip
