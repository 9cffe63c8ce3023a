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
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import selfsup
from few_labels import cell, grid, number
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
    args = parser.parse_args()
    train = open_data(args.data)
    test = Moving(args.data, 2000).take(np.arange(1000, 2000)) if isinstance(train, Moving) else open_data(args.test)
    options = {key: number(value) for key, value in (item.split("=", 1) for item in args.option)}
    metrics, found = [], []
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = selfsup.pretrain(
                train, task=args.task, encoder=args.encoder, steps=args.steps, seed=seed, device="cpu", workers=0,
                out=Path(folder) / "run", quiet=True, **options,
            )  # fmt: skip
            metrics.append(asked(run, test))
            if train.labels is not None and args.shots:
                found.append(
                    selfsup.evaluate(
                        run, data=train, test=test, shots=args.shots, protocol="propagate", scratch=False, seed=0,
                        device="cpu", quiet=True,
                    )
                )  # fmt: skip
        print(f"seed {seed}: {metrics[-1]}", flush=True)
    print(
        f"{args.task} on {args.data}, {args.encoder}, {args.steps} steps, {args.seeds} seeds, {len(test)} other videos"
    )
    for name in metrics[0]:
        print(f"{name:42}{cell(np.array([[one[name]] for one in metrics])):>15}")
    for cue in filter(None, args.cues.split(",")):
        print(f"{cue + ' alone: ' + 'accuracy':42}{probed(cue, args, train, options):>15}")
    if found:
        print(f"{'propagated labels a class':42}" + "".join(f"{k:>15}" for k in args.shots.split(",")))
        rows: dict[str, list[NDArray[np.float64]]] = {}
        for name in dict.fromkeys(score.representation for score in found[0].scores):
            rows[name] = [grid(found, name, "propagate", int(k)) for k in args.shots.split(",")]
            print(f"{name:42}" + "".join(f"{cell(x):>15}" for x in rows[name]))
        gains = [x - y for x, y in zip(rows[args.task], rows["untrained"], strict=True)]
        print(f"{'minus untrained, paired':42}" + "".join(f"{cell(x, '+'):>15}" for x in gains))


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
