"""Linear and propagated reading with few labels, beside baselines, over seeds of pretraining *and* draws of labels.

    python benchmarks/few_labels.py --data mnist5k:train --test mnist5k:test --task rotation --steps 600
    python benchmarks/few_labels.py --data cifar10/train --test cifar10/test --labels folders --size 32 --steps 1000
    python benchmarks/few_labels.py --data emoji:train --test emoji:test --size 64 --encoder tf_efficientnet_lite0 \
        --weights lite0.safetensors --task diet --steps 600           # adapt, beside the frozen start
    python benchmarks/few_labels.py --data digits --steps 30 --seeds 1 --draws 2 --shots 1,5    # a smoke test

Each seed pretrains an encoder on the training part without labels; all get the same draws. `mean ± half` is a 95%
interval over seeds and draws, crossed: the variance of the mean is the sum of what seeds and what draws add (what both
share counts twice, so it is rather too wide), Student's t with Satterthwaite's degrees of freedom. With one seed it is
over draws alone, and the table says so. The last column of each row is the paired difference propagated - linear.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import selfsup
from selfsup.data.open import open_data
from selfsup.evaluation.draws import crossed
from selfsup.evaluation.result import Evaluation

START = "frozen start"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mnist5k:train")
    parser.add_argument("--test", help="by default a fifth of each class of the data")
    parser.add_argument("--labels", help="where the labels of both are, such as folders")
    parser.add_argument("--task", default="rotation")
    parser.add_argument("--encoder")
    parser.add_argument("--weights", help="of the encoder: adapt goes on from them, without labels")
    parser.add_argument("--given", type=int, help="labels per class that adapt may choose by; others are drawn later")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, help="side of the images")
    parser.add_argument("--option", action="append", default=[], help="of the task: name=value")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shots", default="1,2,5,10,20")
    parser.add_argument("--protocol", default="linear,propagate")
    parser.add_argument("--scratch", action="store_true", help="train from scratch too, with and without the pool")
    parser.add_argument("--out", type=Path, help="keeps the runs, for the next time; by default nothing is kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [measure(args, seed, args.out or Path(scratch)) for seed in range(args.seeds)]
    show(found, args)


def measure(args: argparse.Namespace, seed: int, out: Path) -> Evaluation:
    data, options = open_data(args.data, args.labels), dict(item.split("=", 1) for item in args.option)
    if args.size:
        options["size"] = args.size
    options = {key: number(value) for key, value in options.items()}
    given = {
        "task": args.task, "encoder": args.encoder, "steps": args.steps, "seed": seed, "lr": args.lr, "quiet": True,
        "out": out / f"{args.task}-{seed}", **options,
    }  # fmt: skip
    if args.weights:
        labels = some_labels(data.labels, args.given, seed) if args.given else None
        adapted = selfsup.adapt(data, weights=args.weights, labels=labels, **given)
        print(f"seed {seed}: {adapted.verdict()}", *(f"{one.step}: {one.structure:.3f}" for one in adapted.stages))
        run = adapted.run
    else:
        run = selfsup.pretrain(data, **given)
    return selfsup.evaluate(
        run, data=data, test=args.test, test_labels=args.labels if args.test else None, shots=args.shots,
        protocol=args.protocol, draws=args.draws, scratch=args.scratch, seed=0, quiet=True,
    )  # fmt: skip


def some_labels(labels: Any, count: int, seed: int) -> Any:
    """Return labels of which so many of each class are left."""
    rng, ids = np.random.default_rng(seed), np.full(len(labels.ids), -1)
    for one in range(len(labels.classes)):
        drawn = rng.permutation(np.flatnonzero(labels.ids == one))[:count]
        ids[drawn] = one
    return replace(labels, ids=ids)


def number(value: Any) -> Any:
    try:
        return float(value) if "." in str(value) else int(value)
    except ValueError:
        return value


def show(found: list[Evaluation], args: argparse.Namespace) -> None:
    first = found[0]
    print(f"{args.data}, {args.task}, {args.steps} steps, {len(found)} seeds of pretraining × {args.draws} draws")
    print(f"{first.about['metric']}, %, on {first.about['test']['samples']:,} test samples, by {first.about['unit']}")
    print("interval over seeds and draws" if len(found) > 1 else "interval over draws alone: one seed")
    counts = list(dict.fromkeys(score.shots for score in first.scores))
    rows = list(dict.fromkeys((score.representation, score.protocol) for score in first.scores))
    print(f"{'':36}" + "".join(f"{'all' if k is None else k:>15}" for k in counts))
    for name, protocol in rows:
        values = [grid(found, name, protocol, k) for k in counts]
        print(f"{name + ', ' + protocol:36}" + "".join(f"{cell(x):>15}" for x in values))
        if protocol == "propagate" and (name, "linear") in rows:
            paired = [x - grid(found, name, "linear", k) for x, k in zip(values, counts, strict=True)]
            print(f"{'  minus linear, paired':36}" + "".join(f"{cell(x, '+'):>15}" for x in paired))
        if name == args.task and (START, protocol) in rows:
            paired = [x - grid(found, START, protocol, k) for x, k in zip(values, counts, strict=True)]
            print(f"{'  minus frozen start, paired':36}" + "".join(f"{cell(x, '+'):>15}" for x in paired))


def grid(found: list[Evaluation], name: str, protocol: str, shots: int | None) -> NDArray[np.float64]:
    """Return the scores (seeds, draws)."""
    return np.array([one.score(name, protocol, shots).values for one in found])


def cell(x: NDArray[np.float64], sign: str = "") -> str:
    half = crossed(x)
    return f"{100 * x.mean():{sign}.1f}" + ("" if np.isnan(half) else f" ±{100 * half:.1f}")


if __name__ == "__main__":
    main()
