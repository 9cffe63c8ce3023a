"""Accuracy over the pool against the number of labels: suggested and random ones, with the labels propagated.

    python benchmarks/suggest.py DATA RUN [RUN ...] [--labels folders]

Labels are given in rounds, as one would: the strategies that look at labels see those of the rounds before. Each
seed starts k-means elsewhere, or draws other labels. Intervals are over runs and seeds, as in `few_labels.py`.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from results import Record, cell, gain, markdown, write
from selfsup.data.open import open_data
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
    parser.add_argument("data")
    parser.add_argument("runs", nargs="+", help="of one task with several seeds")
    parser.add_argument("--labels")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, nargs="+", default=ROUNDS)
    parser.add_argument("--results", type=Path, help="a file of JSON lines to add to")
    given = parser.parse_args()
    source = open_data(given.data, given.labels)
    assert source.labels is not None
    truth, classes = source.labels.ids, len(source.labels.classes)
    reached = {name: np.zeros((len(given.runs), given.seeds, len(given.rounds))) for name in WAYS}
    for which, run in enumerate(given.runs):
        pool = Pool.of(Run(run), source)
        y = truth[pool.numbers]
        for name, seed in product(WAYS, range(given.seeds)):
            known: dict[int, int] = {}
            for place, count in enumerate(given.rounds):
                for number in choose(name, pool, known, count - len(known), seed):
                    known[number] = int(truth[number])
                rows = pool.row_of[np.array(list(known))]
                guess = spread_labels(pool.graph, rows, np.array(list(known.values())), classes).argmax(1)
                reached[name][which, seed, place] = (guess == y).mean()
    found = [
        {
            "data": given.data,
            "samples": len(y),
            "way": name,
            "run": run,
            "rounds": given.rounds,
            "reached": values.tolist(),
        }
        for name, all_runs in reached.items()
        for run, values in zip(given.runs, all_runs, strict=True)
    ]
    for one in found if given.results else []:
        write(given.results, one)
    print(table(found))


def table(found: list[Record]) -> str:
    """Return the table of docs/labelling.md: each way to choose, and what it gains over random labels."""
    first, rows = found[0], []
    grids = {name: np.array([one["reached"] for one in found if one["way"] == name]) for name in WAYS}
    places = range(len(first["rounds"]))
    for name, values in grids.items():
        rows.append([f"`{name}`" if name != "random" else name, *(cell(values[..., place]) for place in places)])
        if name != "random":
            paired = values - grids["random"]
            rows.append(["difference to random", *(gain(paired[..., place]) for place in places)])
    return markdown([f"`{first['data']}` ({first['samples']:,}): labels", *map(str, first["rounds"])], rows)


if __name__ == "__main__":
    main()
