"""A cue that goes along with the class where labels are drawn and not where they are needed: does suppressing it help?

    python benchmarks/spurious.py --data mnist5k --steps 600 --seeds 3
    python benchmarks/spurious.py --data mnist5k --cue corner --pretext vicreg --seeds 3
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
from reading import READERS, Read, read, some
from results import cell, parsed
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
    parser.add_argument("--quick", action="store_true", help="1 seed, 2 draws, 200 images, 15 steps")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.draws, args.steps, args.shots = 1, 2, 15, "5"
    found: dict[str, list[dict[str, Read]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            parts = colour(args, seed)
            for name, (encoder, spec) in encoders(args, parts["train"], seed, Path(folder) / str(seed)).items():
                found.setdefault(name, []).append(read_all(encoder, spec, parts, args, name == "untrained"))
    show(found, args)


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


def encoders(args: argparse.Namespace, train: tuple[Arrays, Any], seed: int, out: Path) -> dict[str, tuple[Any, Any]]:
    """Pretrain without labels: by the pretext alone, with the colour suppressed, and with it kept; one untrained."""
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
    found = {}
    for name, more in asked.items():
        run = selfsup.pretrain(train[0], out=out / name.replace(" ", "-"), **common, **more)
        found[name] = run.load(), run.spec
    torch.manual_seed(seed)
    return found | {"untrained": (run.fresh_encoder(), run.spec)}


def read_all(encoder: Any, spec: Any, parts: Parts, args: argparse.Namespace, untrained: bool) -> dict[str, Read]:
    """Return the accuracies under shift and without it, and of the colour."""
    shots, readers = list(map(int, args.shots.split(","))), READERS[:1] if args.quick else READERS
    train, read_off = parts["train"][0], {}
    for what in ("test", "as trained"):
        read_off[what] = read(encoder, spec, train, parts[what][0], shots, args.draws, readers, untrained)
    cues = [with_labels(parts[part][0], [f"colour {cue}" for cue in parts[part][1]]) for part in ("train", "test")]
    return read_off | {"cue": read(encoder, spec, *cues, shots[-1:], args.draws, READERS[:1])}


def show(found: dict[str, list[dict[str, Read]]], args: argparse.Namespace) -> None:
    shots, readers = list(map(int, args.shots.split(","))), READERS[:1] if args.quick else READERS
    print(f"{args.data}, {args.cue}, correlation {args.correlation}, {args.pretext}, {args.steps} steps")
    heads = [f"{what}, {reader}, {k}" for what in ("shift", "no shift") for reader in readers for k in shots]
    gain = f"gain under shift, {' and '.join(readers)}, {shots[-1]}"
    print("| | " + " | ".join([*heads, f"cue, {shots[-1]}", gain]) + " |\n" + "|---" * (len(heads) + 3) + "|")
    plain = found["pretext alone"]
    for name, rows in found.items():
        cells = [
            cell(grid(rows, what, reader, k)) for what in ("test", "as trained") for reader in readers for k in shots
        ]
        gains = [grid(rows, "test", reader, shots[-1]) - grid(plain, "test", reader, shots[-1]) for reader in readers]
        gained = "" if rows is plain else ", ".join(cell(gain, "+") for gain in gains)
        print("| " + " | ".join([name, *cells, cell(grid(rows, "cue", "linear", shots[-1])), gained]) + " |")


def grid(rows: list[dict[str, Read]], what: str, reader: str, k: int) -> NDArray[np.float64]:
    """Return the accuracies (seeds, draws)."""
    return np.array([row[what][reader, k] for row in rows])


if __name__ == "__main__":
    main()
