"""A cue that goes along with the class where labels are drawn and not where they are needed: does suppressing it help?

    python benchmarks/spurious.py --data mnist5k --steps 600 --seeds 3
    python benchmarks/spurious.py --data mnist5k --cue corner --pretext vicreg --seeds 3
    python benchmarks/spurious.py --results spurious.jsonl    # a line of JSON a seed
    python benchmarks/spurious.py --quick    # a smoke test: one seed, few images and steps

Each image gets one of as many colours as there are classes: a `tint` of all of it, or of a square in its upper left
`corner`. In DATA:train it is that of the class for `--correlation` of the images and any for the others; in DATA:test
it is any: the shift. What colour an image has is known for free (`--table`), as the scanner of a slide is. The encoder
learns without labels from the training part, by a pretext alone, with the colour suppressed, and with it kept, and is
read with few labels of the training part: on the test part with the shift, and on the same without it. `cue` is how
well the colour itself is read, chance 1 / classes. Intervals are over seeds of pretraining and draws, crossed
(`draws.crossed`); the last column is the gain over the pretext alone under shift, paired.
"""

from __future__ import annotations

import argparse
import colorsys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import selfsup
from reading import READERS, scores, some
from results import Record, Scores, cell, gain, grid, grouped, markdown, parsed, record, write
from selfsup.data.image import Arrays
from selfsup.data.labels import with_labels
from selfsup.data.open import open_data

CORNER = 4  # a fourth of the side
Parts = dict[str, tuple[Arrays, NDArray[np.int64]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--cue", choices=("tint", "corner"), default="tint")
    parser.add_argument("--correlation", type=float, default=0.95)
    parser.add_argument("--pretext", default="simclr")
    parser.add_argument("--option", action="append", default=[], help="of the pretext: name=value")
    parser.add_argument("--suppress-weight", type=float, default=1.0)
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shots", default="5,20,100")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a seed is added")
    parser.add_argument("--quick", action="store_true", help="1 seed, 2 draws, 200 images, 15 steps")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.draws, args.steps, args.shots = 1, 2, 15, "5"
    found: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            parts, told = colour(args, seed), Scores()
            runs = pretrained(args, parts["train"], seed, Path(folder) / str(seed))
            run = runs["pretext alone"]
            for name, each in runs.items():
                told |= read_all(name, each.load(), each.spec, parts, args)
            torch.manual_seed(seed)
            told |= read_all("untrained", run.fresh_encoder(), run.spec, parts, args)
            name = " ".join([args.pretext, *args.option])
            found.append(record(run, None, args.data, name, cue=args.cue, correlation=args.correlation, scores=told))
            write(args.results, found[-1])
    print(table(found))


def colour(args: argparse.Namespace, seed: int) -> Parts:
    """Return `train`, `test` and `as trained`: the images of a part, and the number of the colour of each."""
    generator, parts = np.random.default_rng(seed), {}
    for name, part, correlation in (
        ("train", "train", args.correlation), ("test", "test", 0.0), ("as trained", "test", args.correlation),
    ):  # fmt: skip
        source: Any = open_data(f"{args.data}:{part}")
        source = some(source, 200) if args.quick else source
        pixels, picked = source.several(np.arange(len(source)))
        y, classes = source.labels.ids, len(source.labels.classes)
        cue = np.where(generator.random(len(y)) < correlation, y, generator.integers(0, classes, len(y)))
        hues = np.array([colorsys.hsv_to_rgb(i / classes, 0.7, 1.0) for i in range(classes)])[cue]
        x = np.repeat(pixels[picked][..., :1], 3, 3).astype(np.float64)
        if args.cue == "tint":
            x = x * hues[:, None, None]
        else:
            side = x.shape[1] // CORNER
            x[:, :side, :side] = 255 * hues[:, None, None]
        parts[name] = Arrays(x.round().astype(np.uint8), source.labels, f"{args.data}:{name}"), cue
    return parts


def pretrained(args: argparse.Namespace, train: tuple[Arrays, Any], seed: int, out: Path) -> dict[str, selfsup.Run]:
    """Pretrain without labels: by the pretext alone, with the colour suppressed, and with it kept."""
    options = parsed(args.option)
    if not options and args.pretext == "simclr":
        options = {"min_scale": 0.5}
    out.mkdir(parents=True)
    table = out / "table.csv"
    table.write_text("path,colour\n" + "".join(f"{i},colour {cue}\n" for i, cue in enumerate(train[1])))
    common = {"encoder": args.encoder, "steps": args.steps, "seed": seed, "device": "cpu", "quiet": True}
    common |= {"batch_size": 32} if args.quick else {}
    with_table = {"task": "metadata", "pretext": args.pretext, "options": options, "table": str(table), "flip": 0.0}
    asked: dict[str, dict[str, Any]] = {
        "pretext alone": {"task": args.pretext, **options},
        "colour suppressed": {**with_table, "suppress": "colour", "suppress_weight": args.suppress_weight},
        "colour kept": {**with_table, "keep": "colour"},
    }
    return {
        name: selfsup.pretrain(train[0], out=out / name.replace(" ", "-"), **common, **more)
        for name, more in asked.items()
    }


def read_all(name: str, encoder: Any, spec: Any, parts: Parts, args: argparse.Namespace) -> Scores:
    """Return the accuracies under shift and without it, and of the colour."""
    readers, train = READERS[:1] if args.quick else READERS, parts["train"][0]
    told = {}
    for what, part in (("shift", "test"), ("no shift", "as trained")):
        told |= scores(
            f"{name}, {what}", encoder, spec, train, parts[part][0], args.shots, args.draws, readers,
            name == "untrained",
        )  # fmt: skip
    cues = [with_labels(parts[part][0], [f"colour {cue}" for cue in parts[part][1]]) for part in ("train", "test")]
    most = args.shots.rpartition(",")[2]
    return told | scores(f"{name}, cue", encoder, spec, *cues, most, args.draws, READERS[:1])


def table(found: list[Record]) -> str:
    """Return the table: accuracy under shift and without it, how well the cue is read, and the gain under shift."""
    rows = []
    for mine in grouped(found, "data", "cue", "name", "steps"):
        first = mine[0]
        readers = [reader for reader in READERS if f"pretext alone, shift, {reader}" in first["scores"]]
        counts = list(first["scores"][f"pretext alone, shift, {readers[0]}"])
        heads = [(what, reader, k) for what in ("shift", "no shift") for reader in readers for k in counts]
        for name in dict.fromkeys(row.split(", ")[0] for row in first["scores"]):
            cells = [cell(grid(mine, f"{name}, {what}", reader, k)) for what, reader, k in heads]
            cue = cell(grid(mine, f"{name}, cue", READERS[0], counts[-1]))
            ours, plain = (
                [grid(mine, f"{one}, shift", reader, counts[-1]) for reader in readers]
                for one in (name, "pretext alone")
            )
            gains = [gain(x - y) if name != "pretext alone" else "" for x, y in zip(ours, plain, strict=True)]
            rows.append([name, *cells, cue, *gains])
    told = [f"{what}, {reader}, {k}" for what, reader, k in heads]
    gained = [f"gain under shift, {reader}, {counts[-1]}" for reader in readers]
    return markdown(["", *told, f"cue, {counts[-1]}", *gained], rows)


if __name__ == "__main__":
    main()
