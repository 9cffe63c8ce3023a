"""The student and the teacher of one run, read by the same linear probe, beside the untrained encoder.

    python benchmarks/teacher.py --tasks dino,ibot,dinov2,ijepa --steps 200 --seeds 3

Data and draws of the labels are those of `emoji_probe.py`. An interval is over the seeds of pretraining, which also
give the untrained encoder its weights; 20 labels per class.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean

import torch

import selfsup
from emoji_probe import STYLES, probed
from selfsup.evaluation.draws import interval

SHOTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default="dino,ibot,dinov2,ijepa")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for name in args.tasks.split(","):
        rows: dict[str, list[float]] = {}
        for seed in range(args.seeds):
            for encoder, score in one(name, seed, args).items():
                rows.setdefault(encoder, []).append(100 * score)
        cells = {encoder: interval(values) for encoder, values in rows.items()}
        print(name, {encoder: f"{cell.mean:.1f} ± {cell.half:.1f}" for encoder, cell in cells.items()}, flush=True)


def one(name: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = selfsup.pretrain(
            "emoji:train", task=name, encoder="vit-mini", size=args.size, steps=args.steps, batch_size=args.batch_size,
            seed=seed, out=Path(folder) / "run", device="cpu", quiet=True,
        )  # fmt: skip
        task, _ = run.load_task()
        last = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
        print(name, seed, {key: last[key] for key in ("loss", "chance", "entropy", "start_left") if key in last})
        torch.manual_seed(seed)
        encoders = {"untrained": run.fresh_encoder(), "student": task.encoder, "teacher": task.representation()}
        return {
            what: fmean(probed(e.eval(), run.spec, "cpu", "emoji", STYLES)[0][SHOTS]) for what, e in encoders.items()
        }


if __name__ == "__main__":
    main()
