"""Every method with the same budget of CPU time: few labels, retrieval across styles, rank, seconds, memory.

    python benchmarks/methods.py --tasks simclr,byol,mae --cpu-minutes 5 --out methods.jsonl

Data: three-style emoji (`emoji:train` without labels, `emoji:test` for the test), 8 categories. Labels are drawn by
base emoji, all three styles of which count as one label; 10 draws; the linear probe chooses its penalty on the drawn
labels. R@1: how often the nearest other image of the test part is the same emoji in another style. The
baselines are raw pixels, the untrained encoder and training from scratch on the same labels; `METHOD tuned` starts from
the method's encoder instead and is otherwise the same. Each method runs in a process of its own. The number of steps
follows from --epochs, or from the CPU time of a few steps. A row that is already in --out is not measured again. The
trained runs stay in --runs, for the gallery. A method may have options: `--tasks "simclr min_scale=0.5"`.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.evaluation.baselines.pixels import Pixels
from selfsup.evaluation.draws import interval, nested_draws
from selfsup.evaluation.features import extract
from selfsup.evaluation.few_labels import LR, train_on_labels
from selfsup.evaluation.label_free import rankme
from selfsup.evaluation.metrics import accuracy
from selfsup.evaluation.probe import fit_probe
from selfsup.evaluation.retrieval import retrieval
from selfsup.spec import ImageSpec
from selfsup.task import Encoder
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.semi.supervised import Supervised
from selfsup.train.device import make_fabric
from selfsup.train.recalibrate import recalibrate

SHOTS, DRAWS, STYLES = (1, 5, 10, 20), 10, 3
BASELINES, TUNED = ("raw pixels", "untrained", "from scratch"), " tuned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--cpu-minutes", type=float, default=5.0)
    parser.add_argument("--epochs", type=float, help="instead of minutes; with the method's default encoder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", help="by default convnet, or the small one that the method needs")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("methods.jsonl"))
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure = baseline if args.one.startswith(BASELINES) else tuned if args.one.endswith(TUNED) else method
        row = measure(args)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return
    images = [name for name in TASKS if find_task(name).kind == "image" and not find_task(name).needs_labels]
    wanted = [*BASELINES, "untrained vit-mini", *images] if args.tasks == "all" else args.tasks.split(",")
    done = [json.loads(line)["name"] for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for name in wanted:
        if name not in done:
            subprocess.run([sys.executable, *sys.argv, "--one", name], check=False)
    for line in args.out.read_text().splitlines():
        show(json.loads(line))


def method(args: argparse.Namespace) -> dict[str, object]:
    task, *words = args.one.split()
    options = {key: json.loads(value) for key, _, value in (word.partition("=") for word in words)}
    task_class = find_task(task)
    encoder = args.encoder or (task_class.default_encoder if args.epochs else task_class.small_encoder)

    def train(out: Path, **budget: float) -> tuple[selfsup.Run, float]:
        before = time.process_time()
        run = selfsup.pretrain(
            "emoji:train", task=task, encoder=encoder, size=args.size, seed=args.seed, out=out, device=args.device,
            workers=0 if args.device == "cpu" else None, quiet=True, **budget, **options,
        )  # fmt: skip
        return run, time.process_time() - before

    budget = {"epochs": args.epochs} if args.epochs else {}
    if not budget:
        with tempfile.TemporaryDirectory() as folder:
            train(Path(folder) / "first", steps=3)  # compiles
            few, more = train(Path(folder) / "few", steps=3)[1], train(Path(folder) / "more", steps=9)[1]
        budget = {"steps": max(10, int(args.cpu_minutes * 60 / max((more - few) / 6, 1e-3)))}
    began = time.monotonic()
    run, seconds = train(args.runs / args.one, **budget)
    wall = time.monotonic() - began
    row = measured(run.load(), run.spec, args.device)
    plan = run.recipe["plan"]
    about = {"encoder": encoder, "steps": plan["steps"], "batch": plan["batch_size"], "size": args.size}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if args.device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    return {"name": args.one, **about, "cpu_s": seconds, "wall_s": wall, "mb": memory, "seed": args.seed, **row}


def baseline(args: argparse.Namespace) -> dict[str, object]:
    train = open_data("emoji:train")
    spec = train.spec(args.size)
    torch.manual_seed(args.seed)
    if args.one == "raw pixels":
        return {"name": args.one, **measured(Pixels(), spec, args.device)}
    what = next(what for what in BASELINES if args.one.startswith(what))
    name = args.one.removeprefix(what).strip() or args.encoder or "convnet"
    if what == "untrained":
        encoder = build_encoder(name, spec)
        recalibrate(encoder, train, spec, seed=args.seed, device=args.device)  # as a run does
        return {"name": args.one, "encoder": name, **measured(encoder, spec, args.device)}
    return {"name": args.one, "encoder": name, **trained(lambda: build_encoder(name, spec), spec, args, "trained")}


def tuned(args: argparse.Namespace) -> dict[str, object]:
    run = selfsup.Run(args.runs / args.one.removesuffix(TUNED))
    encoder, about = run.load(), {"encoder": run.recipe["encoder"]["name"], "steps": run.recipe["plan"]["steps"]}
    return {"name": args.one, **about, **trained(lambda: copy.deepcopy(encoder), run.spec, args, "finetune")}


def trained(make: Callable[[], Encoder], spec: ImageSpec, args: argparse.Namespace, protocol: str) -> dict[str, object]:
    """Train on the labels alone, from the encoder that `make` returns."""
    train, test, fabric = open_data("emoji:train"), open_data("emoji:test"), make_fabric(args.device, "float32")
    scores: dict[int, list[float]] = {}
    for number, drawn in enumerate(draws(train)):
        for shots, rows in drawn.items():
            classifier = train_on_labels(
                lambda: Supervised(make(), num_classes=len(train.labels.classes)), train, rows, spec, fabric,
                args.seed + number, lr=LR[protocol],
            )  # fmt: skip
            logits = extract(classifier, test, spec, args.device)[1]
            scores.setdefault(shots, []).append(accuracy(test.labels.ids, logits.argmax(1)))
    return {"accuracy": scores}


def draws(train: Arrays, together: int = STYLES) -> list[dict[int, np.ndarray]]:
    """Return draws of base emoji, `together` consecutive images each, as the numbers of their images."""
    drawn = nested_draws(train.labels.ids[::together], SHOTS, DRAWS, 0)
    return [{k: (together * rows[:, None] + np.arange(together)).ravel() for k, rows in draw.items()} for draw in drawn]


def measured(encoder: torch.nn.Module, spec: object, device: str) -> dict[str, object]:
    scores, x = probed(encoder, spec, device, "emoji", STYLES)
    found = retrieval(x, np.arange(len(x)) // STYLES, ks=(1,))
    return {"accuracy": scores, "r1": found.recall[1], "rankme": rankme(x)}


def probed(
    encoder: torch.nn.Module, spec: object, device: str, data: str, together: int
) -> tuple[dict[int, list[float]], np.ndarray]:
    """Return the accuracies of a linear probe by labels per class, and the features of the test part."""
    train, test = open_data(f"{data}:train"), open_data(f"{data}:test")
    (_, x), (_, test_x) = (extract(encoder, part, spec, device) for part in (train, test))
    y, test_y, classes = train.labels.ids, test.labels.ids, len(train.labels.classes)
    scores: dict[int, list[float]] = {}
    for draw in draws(train, together):
        for shots, rows in draw.items():
            probe = fit_probe(x[rows], y[rows], classes)
            scores.setdefault(shots, []).append(accuracy(test_y, probe.predict(test_x)))
    return scores, test_x


def show(row: dict[str, object]) -> None:
    cells = [interval(values) for values in row["accuracy"].values()]
    text = "  ".join(f"{100 * cell.mean:5.1f} ±{100 * cell.half:4.1f}" for cell in cells)
    more = "".join(f"  {key} {row[key]:.3g}" for key in ("r1", "rankme", "steps", "cpu_s", "mb") if key in row)
    print(f"{row['name']:18} {text}{more}")


if __name__ == "__main__":
    main()
