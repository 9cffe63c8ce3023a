"""Bisimulation on `dot`: does an encoder keep the dot that the actions move, and forget the distractors?

    python benchmarks/bisimulation.py --seeds 5 --results bisimulation.jsonl
    python benchmarks/bisimulation.py --seeds 1 --arms dbc --sweep 0.05,0.5,5        # the metric's weight

All arms learn from the same steps of 400 episodes of a random policy, with the same small convolutional encoder, the
same number of steps and batches; a seed is other episodes and other weights. R² of a ridge regression from the frozen
features to the place of the dot and to those of the distractors: learned from 300 of these episodes, its
regularization chosen on the other 100 ("seen", which a sweep goes by), and tested on 100 episodes whose distractors
have shapes that were never seen ("unseen"). Pixels have the same regression.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from torch import Tensor, nn

from results import Record, grouped, markdown, origin, write
from selfsup.data.trajectory import Dot, observations, transitions
from selfsup.encoders import build_encoder
from selfsup.nn.control.latent import Latent
from selfsup.nn.image.decoder import Decoder
from selfsup.spec import TrajectorySpec
from selfsup.task import Loss
from selfsup.tasks import find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.optim import build_optimizer
from selfsup.train.plan import Plan
from selfsup.views.trajectory import ObservationViews, TransitionViews

EPISODES, HELD, TESTED = 400, 100, 100
ALPHAS = (1.0, 10.0, 100.0, 1e3, 1e4)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "pixels": ("", {}),
    "untrained": ("", {}),
    "auto-encoder, 16 units": ("", {"latent_dim": 16}),
    "auto-encoder, 64 units": ("", {"latent_dim": 64}),
    "reward alone": ("deepmdp", {"transition_weight": 0.0}),
    "transition alone": ("deepmdp", {"reward_weight": 0.0}),
    "deepmdp": ("deepmdp", {}),
    "dbc, form of the code": ("dbc", {"form": "code"}),
    "dbc, form of the paper": ("dbc", {"form": "paper"}),
    "inverse": ("inverse", {}),
}
World = dict[str, Any]


class AutoEncoder(nn.Module):
    """Reconstruct the observation from a code: the mean squared error."""

    def __init__(self, encoder: Any, latent_dim: int) -> None:
        super().__init__()
        self.latent, self.decoder = Latent(encoder, latent_dim), Decoder(latent_dim, encoder.spec.image, width=16)

    def representation(self) -> nn.Module:
        return self.latent

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        return Loss(F.mse_loss(self.decoder(self.latent(batch["obs"])), batch["obs"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--encoder", default="nature-cnn")
    parser.add_argument("--arms", default=";".join(ARMS), help="separated by ;")
    parser.add_argument("--sweep", default="", help="weights of the metric, separated by commas")
    parser.add_argument("--curve", type=int, default=4, help="how often a run is measured")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a run is added")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = {name: arm for name, arm in ARMS.items() if any(name.startswith(part) for part in args.arms.split(";"))}
    found: list[Record] = []
    about = {"data": "dot", "encoder": args.encoder, "steps": args.steps, "batch": args.batch_size} | origin()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        learned, unseen = world("dot", seed * EPISODES, EPISODES), world("dot:test", seed * TESTED, TESTED)
        for name, (task, options) in wanted.items():
            weights = [float(w) for w in args.sweep.split(",") if w] or [None]
            for weight in weights:
                given = options | ({} if weight is None else {"metric_weight": weight})
                arm = name if weight is None else f"{name}, weight {weight:g}"
                for row in runs(name, task, given, learned, unseen, seed, args):
                    print(json.dumps({"name": arm, "seed": seed} | row), flush=True)
                found.append({"name": arm, "seed": seed} | about | row)
                write(args.results, found[-1])
    print(table(found))


def world(name: str, first: int, count: int) -> World:
    """Return the steps, the observations and the states of some episodes of `dot`, in memory."""
    dot = Dot(name)
    dot.numbers, dot.extents = np.arange(first, first + count), np.full(count, dot.extent(0))
    spec = dot.spec()
    steps, every = transitions(dot, actions=True, rewards=True), observations(dot)
    batch = TransitionViews(spec).fetch(steps, np.arange(len(steps)), 0, 0).batch
    seen = ObservationViews(spec).fetch(every, np.arange(len(every)), 0, 0).batch["x"]
    return {"dot": dot, "spec": spec, "steps": batch, "x": seen, "owner": every.owners, "state": dot.all_steps().state}


def runs(
    name: str, task_name: str, options: dict[str, Any], learned: World, unseen: World, seed: int, args: Any
) -> Any:
    """Train an arm, and yield what is measured on the way."""
    spec: TrajectorySpec = learned["spec"]
    torch.manual_seed(seed)
    if name == "pixels":
        pixels = [normal(x["x"], spec).flatten(1).numpy() for x in (learned, unseen)]
        yield probed(*pixels, learned, unseen)
        return
    encoder = build_encoder(args.encoder, spec)
    if name == "untrained":
        yield probed(*(features(encoder, x["x"], spec) for x in (learned, unseen)), learned, unseen)
        return
    if task_name:
        task: Any = find_task(task_name)(encoder, **resolve_task(task_name, learned["dot"], options)[2])
    else:
        task = AutoEncoder(encoder, **options)
    plan, steps, began = Plan(args.steps, args.batch_size, lr=args.lr), learned["steps"], time.process_time()
    optimizer, draw = build_optimizer(task, "adamw", args.lr, plan.weight_decay), np.random.default_rng(seed)
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr_at(step)
        rows = torch.from_numpy(draw.choice(len(steps["index"]), args.batch_size, replace=False))
        batch = {key: value[rows] for key, value in steps.items()}
        batch |= {key: normal(batch[key], spec) for key in ("obs", "next_obs")} | {"noise": batch["index"]}
        loss = task.loss(batch)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        if (step + 1) % (args.steps // args.curve) == 0:
            took = time.process_time() - began
            found = probed(*(features(task.representation(), x["x"], spec) for x in (learned, unseen)), learned, unseen)
            said = {key: round(float(value), 3) for key, value in loss.metrics.items()}
            yield found | {"step": step + 1, "loss": round(loss.value.item(), 4), "cpu_seconds": round(took, 1), **said}


def normal(x: Tensor, spec: TrajectorySpec) -> Tensor:
    """Return observations as an encoder takes them."""
    return TransitionViews(spec).finish({"obs": x, "next_obs": x[:0]})["obs"].contiguous()


def features(encoder: Any, x: Tensor, spec: TrajectorySpec) -> NDArray[np.float32]:
    """Return the features of observations, in evaluation mode."""
    training = encoder.training
    with torch.no_grad():
        found = torch.cat([encoder.eval()(normal(part, spec)) for part in x.split(500)])
    encoder.train(training)
    return found.numpy()


def probed(seen: NDArray[np.float32], new: NDArray[np.float32], learned: World, unseen: World) -> dict[str, float]:
    """Return R² of the dot's place and of the distractors' on held-out episodes and on unseen distractors."""
    mean, std = seen.mean(0), seen.std(0)
    (seen, new), rest = ((x - mean) / (std + 1e-6) for x in (seen, new)), learned["owner"] < EPISODES - HELD
    state, test = learned["state"], unseen["state"]
    centre = state[rest].mean(0)
    gram, moment = seen[rest].T @ seen[rest], seen[rest].T @ (state[rest] - centre)
    fits = [np.linalg.solve(gram + alpha * np.eye(len(gram), dtype=np.float32), moment) for alpha in ALPHAS]
    found: dict[str, float] = {"std": round(float(std.mean()), 3)}
    for what, columns in (("dot", slice(0, 2)), ("distractors", slice(2, None))):
        scores = [r2_score(state[~rest, columns], (seen[~rest] @ fit + centre)[:, columns]) for fit in fits]
        best = fits[int(np.argmax(scores))]
        score = r2_score(test[:, columns], (new @ best + centre)[:, columns])
        found |= {f"{what} seen": round(max(scores), 3), f"{what} unseen": round(score, 3)}
    return found


def table(found: list[Record]) -> str:
    """Return the table: each seed's R² of the dot with unseen distractors, and what else was read, over seeds."""
    seeds = sorted({one["seed"] for one in found})
    head = [
        "R²",
        *(f"dot, seed {seed}" for seed in seeds),
        "mean",
        "distractors, largest",
        "std of the latents",
        "CPU s",
    ]
    rows = []
    for mine in grouped(found, "name"):
        dot = {one["seed"]: one["dot unseen"] for one in mine}
        each = [f"{dot[seed]:.2f}" if seed in dot else "" for seed in seeds]
        spread = f"{min(one['std'] for one in mine):.2f} to {max(one['std'] for one in mine):.2f}"
        learned = "cpu_seconds" in mine[0]
        cost = f"{np.mean([one['cpu_seconds'] for one in mine]):.0f}" if learned else ""
        mean, most = np.mean(list(dot.values())), max(one["distractors unseen"] for one in mine)
        rows.append((mean, [mine[0]["name"], *each, f"{mean:.2f}", f"{most:.2f}", spread * learned, cost]))
    return markdown(head, [row for _, row in sorted(rows, reverse=True)])


if __name__ == "__main__":
    main()
