"""Accuracy over the pool against the number of labels: suggested and random ones, with the labels propagated.

    python benchmarks/suggest.py RUN DATA [--labels folders]

Labels are given in rounds, as one would: the strategies that look at labels see those of the rounds before. Each
seed starts k-means elsewhere, or draws other labels. `paired` is the difference to random with its 95% interval.
"""

from __future__ import annotations

import argparse

import numpy as np

from selfsup.data.open import open_data
from selfsup.evaluation.draws import interval
from selfsup.evaluation.propagate import spread_labels
from selfsup.labelling.pool import Pool
from selfsup.run import Run

ROUNDS = (10, 15, 20, 30, 50, 100)
WAYS = ("random", "typical", "cover", "uncertain", "auto")


def choose(way: str, pool: Pool, known: dict[int, int], n: int, seed: int) -> list[int]:
    """Return the numbers of the next labels; uncertain ones are typical while there are no labels of two classes."""
    if way == "random":
        free = np.setdiff1d(pool.numbers, list(known))
        return np.random.default_rng([seed, len(known)]).choice(free, n, replace=False).tolist()
    return [item.row for item in pool.next(known, n, way, seed)[0].suggestions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--labels")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, nargs="+", default=ROUNDS)
    given = parser.parse_args()
    source = open_data(given.data, given.labels)
    assert source.labels is not None
    truth, classes = source.labels.ids, len(source.labels.classes)
    pool = Pool.of(Run(given.run), source)
    y = truth[pool.numbers]
    reached: dict[str, np.ndarray] = {}
    for name in WAYS:
        reached[name] = np.zeros((given.seeds, len(given.rounds)))
        for seed in range(given.seeds):
            known: dict[int, int] = {}
            for place, count in enumerate(given.rounds):
                for number in choose(name, pool, known, count - len(known), seed):
                    known[number] = int(truth[number])
                rows = pool.row_of[np.array(list(known))]
                guess = spread_labels(pool.graph, rows, np.array(list(known.values())), classes).argmax(1)
                reached[name][seed, place] = 100 * (guess == y).mean()
    print(f"{given.data}: accuracy over {len(y):,} samples, {given.seeds} seeds")
    print(" | ".join(["labels", *map(str, given.rounds)]))
    for name, values in reached.items():
        cells = [f"{m:.1f} ± {h:.1f}" for m, h, _ in (interval(column) for column in values.T)]
        print(" | ".join([name, *cells]), flush=True)
        if name != "random":
            paired = [interval(column) for column in (values - reached["random"]).T]
            print(" | ".join(["  paired", *(f"{m:+.1f} ± {h:.1f}" for m, h, _ in paired)]))


if __name__ == "__main__":
    main()
