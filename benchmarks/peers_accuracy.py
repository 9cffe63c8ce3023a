"""Our methods beside lightly's own modules: few-label accuracy with everything else equal, and seconds a step.

    pip install 'selfsup[bench]'
    python benchmarks/peers_accuracy.py --steps 300                       # accuracy, then speed; resumes from --out
    python benchmarks/peers_accuracy.py --methods simclr --only speed

Accuracy: the same encoder from the same seed, the same views (ours feed both sides, batch by batch), steps, optimizer
and loop; only heads and loss are lightly's, of the same width. Linear probe on the frozen features, labels drawn as in
benchmarks/emoji_probe.py (with `--data mnist5k` image by image), over `--seeds` seeds of pretraining. Speed: our loop
as `pretrain` runs it, against lightly's modules in a plain loop with lightly's transforms and a DataLoader of two
workers, each in a process of its own, taking turns, without the batches that were made ahead; float32 on both sides,
and also our default precision where that differs. "With our memory": lightly's process keeps freed memory too
(`train.device.keep_memory`), which it does not do by itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lightly import loss as lightly_loss
from lightly import transforms as lightly_transforms
from lightly.models import modules as lightly_modules
from lightly.models import utils as lightly_utils
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from emoji_probe import STYLES, probed
from selfsup.commands.doctor import processor
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.evaluation.draws import interval
from selfsup.task import Loss, Task
from selfsup.tasks import find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.device import keep_memory, make_fabric
from selfsup.train.fit import fit
from selfsup.train.plan import make_plan
from selfsup.train.precision import PRECISIONS, resolve_precision

LIGHTLY, KEPT = "lightly", "lightly with our memory"
WARM, STEPS = 6, 6  # two workers have made the first four batches of a DataLoader ahead
# forked, as is usual on Linux: a spawned process would spawn its workers, which takes longer than the steps
LOADER = {"shuffle": True, "drop_last": True, "num_workers": 2, "multiprocessing_context": "fork"}


class Peer(Task):
    """lightly's heads and loss for one method, on the views of ours."""

    def __init__(self, encoder: Any, ours: Task) -> None:
        super().__init__(encoder)
        self.views_of, self.targets = [ours], None
        self.build(encoder.dim)

    def build(self, dim: int) -> None: ...

    def views(self, spec: Any) -> Any:
        return self.views_of[0].views(spec)

    def panels(self, batch: Any, guess: bool = False) -> Any: ...

    def loss(self, batch: Any) -> Loss:
        crops = [*batch["x"].unbind(1), *(batch["local"].unbind(1) if "local" in batch else ())]
        return Loss(self.of_crops(crops))

    def add_targets(self, *modules: nn.Module) -> None:
        self.targets = nn.ModuleList(copy.deepcopy(module).requires_grad_(False) for module in modules)
        self.online = [modules]

    def after_step(self) -> None:
        if self.targets is not None:
            momentum = cosine_schedule(round(self.progress * 1000), 1001, 0.99, 1.0)
            for target, online in zip(self.targets, self.online[0], strict=True):
                lightly_utils.update_momentum(online, target, momentum)


class PeerSimCLR(Peer):
    def build(self, dim: int) -> None:
        self.head = lightly_modules.SimCLRProjectionHead(dim, 512, 128)
        self.criterion = lightly_loss.NTXentLoss(temperature=0.2)

    def of_crops(self, crops: list[torch.Tensor]) -> torch.Tensor:
        return self.criterion(*(self.head(self.encoder(x)) for x in crops))


class PeerBarlow(PeerSimCLR):
    def build(self, dim: int) -> None:
        self.head = lightly_modules.BarlowTwinsProjectionHead(dim, 1024, 1024)
        self.criterion = lightly_loss.BarlowTwinsLoss()


class PeerVICReg(PeerSimCLR):
    def build(self, dim: int) -> None:
        self.head = lightly_modules.heads.VICRegProjectionHead(dim, 1024, 1024, 3)
        self.criterion = lightly_loss.VICRegLoss()


class PeerBYOL(Peer):
    def build(self, dim: int) -> None:
        self.head = lightly_modules.BYOLProjectionHead(dim, 512, 128)
        self.predictor = lightly_modules.BYOLPredictionHead(128, 512, 128)
        self.criterion = lightly_loss.NegativeCosineSimilarity()
        self.add_targets(self.encoder, self.head)

    def of_crops(self, crops: list[torch.Tensor]) -> torch.Tensor:
        predictions = [self.predictor(self.head(self.encoder(x))) for x in crops]
        with torch.no_grad():
            targets = [self.targets[1](self.targets[0](x)) for x in crops]
        return (self.criterion(predictions[0], targets[1]) + self.criterion(predictions[1], targets[0])) / 2


class PeerSwAV(Peer):
    def build(self, dim: int) -> None:
        self.head = lightly_modules.SwaVProjectionHead(dim, 512, 128)
        self.prototypes = lightly_modules.SwaVPrototypes(128, 300)
        self.criterion = lightly_loss.SwaVLoss()

    def of_crops(self, crops: list[torch.Tensor]) -> torch.Tensor:
        self.prototypes.normalize()
        scores = [self.prototypes(nn.functional.normalize(self.head(self.encoder(x)), dim=1)) for x in crops]
        return self.criterion(scores[:2], scores[2:]).squeeze()  # it is of shape (1,)


class PeerDINO(Peer):
    def build(self, dim: int) -> None:
        self.head = lightly_modules.DINOProjectionHead(dim, 512, 128, 1024, batch_norm=True)
        layer = self.head.last_layer
        layer.weight = layer.weight.detach()  # weight_norm computes it, and deepcopy copies only leaves
        self.criterion = lightly_loss.DINOLoss(1024, teacher_temp=0.04, warmup_teacher_temp_epochs=0)
        self.add_targets(self.encoder, self.head)

    def of_crops(self, crops: list[torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            targets = [self.targets[1](self.targets[0](x)) for x in crops[:2]]
        return self.criterion(targets, [self.head(self.encoder(x)) for x in crops], teacher_temp=0.04)


class PeerMAE(Peer):
    def build(self, dim: int) -> None:
        vit, width = self.encoder.model, 64
        self.vit = lightly_modules.MaskedVisionTransformerTIMM(vit)
        tokens = self.vit.sequence_length
        self.embed = nn.Linear(dim, width)
        self.decoder = lightly_modules.MaskedVisionTransformerDecoderTIMM(
            num_patches=tokens - vit.num_prefix_tokens, embed_dim=width, depth=2, num_heads=2,
            num_prefix_tokens=vit.num_prefix_tokens,
        )  # fmt: skip
        self.patch = self.encoder.patch
        self.predict = nn.Linear(width, self.patch**2 * self.encoder.spec.channels)

    def loss(self, batch: Any) -> Loss:
        return Loss(self.of_crops([batch["x"]]))

    def of_crops(self, crops: list[torch.Tensor]) -> torch.Tensor:
        x, size, prefix = crops[0], self.vit.sequence_length, self.vit.vit.num_prefix_tokens
        keep, mask = lightly_utils.random_token_mask((len(x), size), 0.75, mask_class_token=not prefix, device=x.device)
        tokens = self.embed(self.vit.encode(x, idx_keep=keep))
        masked = lightly_utils.repeat_token(self.decoder.mask_token, (len(x), size)).to(tokens.dtype)
        masked = lightly_utils.set_at_index(masked, keep, tokens)
        out = self.predict(lightly_utils.get_at_index(self.decoder(masked), mask))
        target = lightly_utils.get_at_index(lightly_utils.patchify(x, self.patch), mask - prefix)
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        return ((out - (target - mean) / (var + 1e-6).sqrt()) ** 2).mean()


PEERS = {
    "simclr": (PeerSimCLR, lambda size: lightly_transforms.SimCLRTransform(size, cj_strength=0.5, gaussian_blur=0.0)),
    "byol": (
        PeerBYOL,
        lambda size: lightly_transforms.BYOLTransform(
            lightly_transforms.BYOLView1Transform(size, gaussian_blur=0.0),
            lightly_transforms.BYOLView2Transform(size, gaussian_blur=0.0),
        ),
    ),
    "barlow": (
        PeerBarlow,
        lambda size: lightly_transforms.BYOLTransform(
            lightly_transforms.BYOLView1Transform(size, gaussian_blur=0.0),
            lightly_transforms.BYOLView2Transform(size, gaussian_blur=0.0),
        ),
    ),
    "vicreg": (PeerVICReg, lambda size: lightly_transforms.VICRegTransform(size, gaussian_blur=0.0)),
    "swav": (
        PeerSwAV,
        lambda size: lightly_transforms.SwaVTransform((size, round(size * 96 / 224)), (2, 6), gaussian_blur=0.0),
    ),
    "dino": (
        PeerDINO,
        lambda size: lightly_transforms.DINOTransform(
            size, local_crop_size=round(size * 96 / 224), gaussian_blur=(0.0, 0.0, 0.0)
        ),
    ),
    "mae": (PeerMAE, lambda size: lightly_transforms.MAETransform(size)),
}


class Images(Dataset):  # type: ignore[type-arg]
    def __init__(self, x: np.ndarray, transform: Any) -> None:
        self.x, self.transform = x, transform

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.x[index]))


def pair(name: str, encoder: str, spec: Any, source: Any, seed: int) -> tuple[Task, Task]:
    """Return ours and lightly's task on encoders with the same weights."""
    _, task_class, options, _ = resolve_task(name, source, {})
    torch.manual_seed(seed)
    first = build_encoder(encoder, spec)
    second = copy.deepcopy(first)
    ours = task_class(first, **options)
    torch.manual_seed(seed)
    return ours, PEERS[name][0](second, ours)


def encoder_of(name: str) -> str:
    return "vit" if name == "mae" else "convnet"


def accuracy(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    source = open_data(f"{args.data}:train")
    spec = source.spec(args.size)
    plan = make_plan(find_task(name), args.batch_size, {}, steps=args.steps, micro_batch=None, seed=seed)
    row: dict[str, Any] = {key: getattr(args, key) for key in ("data", "steps", "size", "batch_size")}
    for side, task in zip(("ours", "lightly"), pair(name, encoder_of(name), spec, source, seed), strict=True):
        fabric = make_fabric(args.device, "float32")
        fit(task, source, task.views(spec), plan, fabric, quiet=True)
        row[side] = probed(task.encoder.eval(), spec, args.device, args.data, STYLES if args.data == "emoji" else 1)[0]
    return {"method": name, "seed": seed, **row}


def serve(side: str, name: str, args: argparse.Namespace, pipe: Any) -> None:
    """Train in this process, as a user of `side` would, and send the seconds of `STEPS` steps on request."""
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    source = open_data("emoji:train")
    spec = source.spec(args.size)
    ours, theirs = pair(name, encoder_of(name), spec, source, 0)
    run = (
        our_loop(ours, name, source, side, args) if side in PRECISIONS else their_loop(theirs, name, source, side, args)
    )
    pipe.send([])  # ready
    while pipe.recv():
        pipe.send(run())


def our_loop(task: Task, name: str, source: Any, precision: str, args: argparse.Namespace) -> Callable[[], list[float]]:
    fabric = make_fabric("cpu", precision)
    plan = make_plan(find_task(name), args.batch_size, {}, steps=WARM + STEPS, micro_batch=None, seed=0)
    views, ended = task.views(source.spec(args.size)), list[float]()
    after_step = task.after_step

    def stamped() -> None:
        after_step()
        ended.append(time.perf_counter())

    task.after_step = stamped  # type: ignore[method-assign]

    def run() -> list[float]:
        ended.clear()
        fit(task, source, views, plan, fabric, quiet=True)
        return list(np.diff(ended)[-STEPS:])

    return run


def their_loop(task: Peer, name: str, source: Any, side: str, args: argparse.Namespace) -> Callable[[], list[float]]:
    if side == KEPT:
        keep_memory()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    dataset = Images(source.x, PEERS[name][1](args.size))

    def run() -> list[float]:
        ended: list[float] = []
        for batch in DataLoader(dataset, args.batch_size, **LOADER):
            task.of_crops(list(batch)).backward()
            optimizer.step()
            optimizer.zero_grad()
            task.after_step()
            ended.append(time.perf_counter())
            if len(ended) == WARM + STEPS:
                break
        return list(np.diff(ended)[-STEPS:])

    return run


def speed(args: argparse.Namespace, name: str) -> None:
    """Time each side in a process of its own, which is idle while the others run."""
    spawn = multiprocessing.get_context("spawn")
    sides = {}
    default = resolve_precision("auto", torch.device("cpu"))
    for side in dict.fromkeys(("float32", default, LIGHTLY, KEPT)):
        here, there = spawn.Pipe()
        process = spawn.Process(target=serve, args=(side, name, args, there))
        process.start()
        there.close()  # so that waiting ends when the process does
        here.recv()
        sides[side] = process, here
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, (_, pipe) in sides.items():
            pipe.send(True)
            seconds[side].append(median(pipe.recv()))
    for process, pipe in sides.values():
        pipe.send(False)
        process.join()
    middle = {side: median(values) for side, values in seconds.items()}
    told = ", ".join(f"{side} {value:.3f} s" for side, value in middle.items())
    print(f"{name:8} a step: {told}", flush=True)
    for side in (side for side in sides if side in PRECISIONS):
        for peer in (LIGHTLY, KEPT):
            ratios = [mine / theirs for mine, theirs in zip(seconds[side], seconds[peer], strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{name:8}   {side} / {peer}: {median(ratios):.2f} ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default=",".join(PEERS))
    parser.add_argument("--only", choices=["accuracy", "speed"])
    parser.add_argument("--data", choices=["emoji", "mnist5k"], default="emoji")
    parser.add_argument("--device", default="cpu", help="of accuracy")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "torchvision", "lightly", "timm"))
    print(f"{processor()}, {args.threads} threads; {packages}; {args.data}, {args.size} pixels")
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for name in args.methods.split(","):
        rows = []
        for seed in range(args.seeds if args.only != "speed" else 0):
            row = next((row for row in done if (row["method"], row["seed"]) == (name, seed)), None)
            if row is None:
                row = json.loads(json.dumps(accuracy(args, name, seed)))
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
        for side in ("ours", "lightly") if rows else ():
            cells = [interval([v for row in rows for v in row[side][shots]]) for shots in rows[0][side]]
            shown = "  ".join(f"{100 * cell.mean:5.1f} ±{100 * cell.half:4.1f}" for cell in cells)
            print(f"{name:8} {args.seeds} seeds {side:8} {shown}", flush=True)
        if args.only != "accuracy":
            speed(args, name)


if __name__ == "__main__":
    main()
