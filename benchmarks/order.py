"""Tasks of order on videos that they have not seen, what cues alone find there, and what the encoder is worth.

    python benchmarks/order.py --task shuffle_learn --data moving --steps 1500
    python benchmarks/order.py --task shuffle_learn --data emoji-anim:train --test emoji-anim:test --option fps=12
    python benchmarks/order.py --task odd_one_out --data moving --steps 1500 --cues energy
    python benchmarks/order.py --task arrow_of_time --data moving:elastic --steps 1500     # must stay at one half

Generated videos 0 to 999 are learned from and others asked about. The metrics are the task's own, over 4 passes. A cue
is learned by a probe in place of the encoder (see `audit`) with the same steps, at most 500. Few labels: those that the
data bring, at 1, 5 and 20 a class, propagated, minus the untrained encoder's, paired.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import selfsup
from few_labels import shots_of
from results import Record, cell, gain, grid, grouped, markdown, parsed, record, write
from selfsup.data.open import open_data
from selfsup.data.video import Moving
from selfsup.run import Run
from selfsup.shortcuts.trial import Trial
from selfsup.source import Source

PASSES, BATCH, PROBE_STEPS = 4, 64, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="shuffle_learn")
    parser.add_argument("--data", default="moving")
    parser.add_argument("--test", help="other videos; of `moving` those from 1,000 on")
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--option", action="append", default=[], help="of the task or the data: name=value")
    parser.add_argument("--cues", default="", help="of `audit`, separated by commas")
    parser.add_argument("--shots", default="1,5,20")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a run is added")
    args = parser.parse_args()
    train = open_data(args.data)
    test = Moving(args.data, 2000).take(np.arange(1000, 2000)) if isinstance(train, Moving) else open_data(args.test)
    options = parsed(args.option)
    found: list[Record] = []
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            run = selfsup.pretrain(
                train, task=args.task, encoder=args.encoder, steps=args.steps, seed=seed, device="cpu", workers=0,
                out=Path(folder) / "run", quiet=True, **options,
            )  # fmt: skip
            spent = round(time.process_time() - began, 1)
            evaluation = None
            if train.labels is not None and args.shots:
                evaluation = selfsup.evaluate(
                    run, data=train, test=test, shots=args.shots, protocol="propagate", scratch=False, seed=0,
                    device="cpu", quiet=True,
                )  # fmt: skip
            name, metrics = " ".join([args.task, *args.option]), asked(run, test)
            found.append(record(run, evaluation, args.data, name, cpu_s=spent, asked=len(test), metrics=metrics))
        print(f"seed {seed}: {metrics}", flush=True)
    cues = {cue: probed(cue, args, train, options) for cue in filter(None, args.cues.split(","))}
    found = [one | {"cues": cues} for one in found]
    for one in found:
        write(args.results, one)
    print(table(found))


def table(found: list[Record]) -> str:
    """Return the table: the task's metrics on other videos, cues alone, and propagated labels."""
    names = list(dict.fromkeys(name for one in found for name in one["metrics"]))
    cues = list(dict.fromkeys(cue for one in found for cue in one["cues"]))
    counts, rows = list(dict.fromkeys(k for one in found for k in shots_of([one]))), []
    for mine in grouped(found, "data", "name", "encoder", "steps"):
        first, cost = mine[0], f"{np.mean([one['cpu_s'] for one in mine]) / 60:.1f}"
        values = [
            cell(np.array([[one["metrics"][name]] for one in mine])) if name in first["metrics"] else ""
            for name in names
        ]
        read = [""] * 2 * len(counts)
        if "scores" in first:
            spread = [[grid(mine, name, "propagate", k) for name in (first["task"], "untrained")] for k in counts]
            read = [text for ours, untrained in spread for text in (cell(ours), gain(ours - untrained))]
        about = [f"`{first['name']}`", first["data"], first["encoder"], f"{first['steps']:,}"]
        rows.append([*about, *values, *(first["cues"].get(cue, "") for cue in cues), *read, cost])
    labels = [head for k in counts for head in (f"propagated, {k}", "minus untrained")]
    head = ["", "data", "encoder", "steps", *names, *(f"{cue} alone" for cue in cues), *labels, "CPU-minutes"]
    return markdown(head, rows)


@torch.no_grad()
def asked(run: Run, test: Source) -> dict[str, float]:
    """Return the mean of the task's metrics on videos that it has not learned from."""
    task, _ = run.load_task()
    views, found = task.eval().views(run.spec).for_device("cpu"), []
    for epoch in range(PASSES):
        for rows in np.array_split(np.arange(len(test)), len(test) // BATCH):
            batch = views.finish(views.fetch(test, rows, 10**6, epoch).batch)
            found.append({name: float(value) for name, value in task.loss(batch).metrics.items()})
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def probed(cue: str, args: argparse.Namespace, train: Source, options: dict[str, object]) -> str:
    """Return what a probe of one cue finds in held-out videos, with its interval."""
    trial = Trial(
        args.task, train, options, seed=0, device="cpu", quiet=True, steps=min(args.steps, PROBE_STEPS)
    )  # fmt: skip
    answers = trial.learn(trial.probes([cue]), {}, 1).answers
    return f"{100 * answers.scores[cue].mean():.1f} ±{100 * answers.gain(cue).half:.1f}"


if __name__ == "__main__":
    main()
