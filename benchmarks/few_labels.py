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
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import selfsup
from results import Record, cell, gain, grid, grouped, markdown, parsed, read, record, write
from selfsup.data.open import open_data

START = "frozen start"
BASELINES = ("untrained", "raw pixels", "TF-IDF")


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
    parser.add_argument("--results", type=Path, help="a file of JSON lines to add to; what is there is not made again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        args.results = args.results or Path(scratch) / "results.jsonl"
        args.name = " ".join([args.task, *args.option])
        for seed in range(args.seeds):
            if seed not in {one["seed"] for one in mine(args)}:
                write(args.results, measure(args, seed, args.out or Path(scratch)))
        show(mine(args), args)


def mine(args: argparse.Namespace) -> list[Record]:
    asked = {"name": args.name, "data": args.data, "steps": args.steps}
    return [one for one in read(args.results) if asked.items() <= one.items()]


def measure(args: argparse.Namespace, seed: int, out: Path) -> Record:
    data, options, began = open_data(args.data, args.labels), parsed(args.option), time.process_time()
    if args.size:
        options["size"] = args.size
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
    spent = time.process_time() - began
    found = selfsup.evaluate(
        run, data=data, test=args.test, test_labels=args.labels if args.test else None, shots=args.shots,
        protocol=args.protocol, draws=args.draws, scratch=args.scratch, seed=0, quiet=True,
    )  # fmt: skip
    return record(run, found, args.data, args.name, cpu_s=round(spent, 1))


def some_labels(labels: Any, count: int, seed: int) -> Any:
    """Return labels of which so many of each class are left."""
    rng, ids = np.random.default_rng(seed), np.full(len(labels.ids), -1)
    for one in range(len(labels.classes)):
        drawn = rng.permutation(np.flatnonzero(labels.ids == one))[:count]
        ids[drawn] = one
    return replace(labels, ids=ids)


def show(found: list[Record], args: argparse.Namespace) -> None:
    first = found[0]
    print(f"{args.data}, {args.task}, {args.steps} steps, {len(found)} seeds of pretraining × {args.draws} draws")
    print(f"{first['metric']}, %, on {first['test']:,} test samples")
    print("interval over seeds and draws" if len(found) > 1 else "interval over draws alone: one seed")
    counts = shots_of(found)
    print(f"{'':36}" + "".join(f"{k:>15}" for k in counts))
    for row in first["scores"]:
        name, protocol = row.rsplit(", ", 1)
        values = [grid(found, name, protocol, k) for k in counts]
        print(f"{row:36}" + "".join(f"{cell(x):>15}" for x in values))
        if protocol == "propagate" and f"{name}, linear" in first["scores"]:
            paired = [x - grid(found, name, "linear", k) for x, k in zip(values, counts, strict=True)]
            print(f"{'  minus linear, paired':36}" + "".join(f"{cell(x, '+'):>15}" for x in paired))
        if name == args.task and f"{START}, {protocol}" in first["scores"]:
            paired = [x - grid(found, START, protocol, k) for x, k in zip(values, counts, strict=True)]
            print(f"{'  minus frozen start, paired':36}" + "".join(f"{cell(x, '+'):>15}" for x in paired))


def shots_of(found: list[Record]) -> list[str]:
    """Return the numbers of labels per class that were read, fewest first."""
    counts = {k for one in found for row in one.get("scores", {}).values() for k in row}
    return sorted(counts, key=lambda k: float(k.replace("all", "inf")))


def table(found: list[Record]) -> str:
    """Return the table of docs/evaluation.md: each set of data, linear → propagated, and the paired difference."""
    counts, rows = shots_of(found), []
    for mine in grouped(found, "data", "name"):
        first = mine[0]
        minutes = np.mean([one["cpu_s"] for one in mine]) / 60
        data = re.sub("[:/]train$", "", first["data"]).rpartition("/")[2]
        about = f"`{data}` ({first['samples']:,}, {first['test']:,} test)"
        about += f", {first['size']}²" * (first["size"] is not None)
        about += f", `{first['name']}`, `{first['encoder']}`, {first['steps']:,} steps of {first['batch']}"
        about += f", {minutes:.{int(minutes < 2)}f} CPU-minutes" + f", {len(mine)} seeds" * (len(mine) != 3)
        for told, name in [(about, first["task"]), *zip(BASELINES, BASELINES, strict=True)]:
            if f"{name}, linear" in first["scores"]:
                rows.append([told, *(both(mine, name, k) if k in shots_of(mine) else "" for k in counts)])
    return markdown([f"`linear` → `propagate`, {first['metric']} in %; labels per class:", *counts], rows)


def both(found: list[Record], name: str, shots: str) -> str:
    linear, spread = (grid(found, name, reader, shots) for reader in ("linear", "propagate"))
    return f"{100 * linear.mean():.1f} → {cell(spread)} ({gain(spread - linear)})"


if __name__ == "__main__":
    main()
