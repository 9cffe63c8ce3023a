"""Tasks that hide patches, on three-style emoji at 64 × 64 with the encoder `vit`.

`python recipes/masked.py [NAME]` runs all or one: pretraining on `emoji:train` without labels, seed 0, then few labels
on `emoji:test`. Not measured yet at this length; `benchmarks/methods.py --encoder vit` is the table of all methods
under one budget. A step of MAE at 75% takes 0.32 of the time of one that sees all patches (`benchmarks/masking.py
--batch 32 --rounds 3`, processor time on a busy machine, 0.30 to 0.40).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import selfsup


def measured(task: str, **options: Any) -> selfsup.evaluation.Evaluation:
    """Pretrain and measure, beside the untrained encoder, raw pixels and PCA."""
    run = selfsup.pretrain(
        "emoji:train", task=task, encoder="vit", steps=1000, seed=0, out=f"runs/{task}-recipe", quiet=True, **options
    )
    return selfsup.evaluate(
        run, data="emoji:train", test="emoji:test", shots="1,5,20", protocol="linear", scratch=False, quiet=True
    )


def mae() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task mae --encoder vit --steps 1000`."""
    return measured("mae")


def simmim() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task simmim --encoder vit --steps 1000`."""
    return measured("simmim")


def ijepa() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task ijepa --encoder vit --steps 1000`."""
    return measured("ijepa")


def data2vec() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task data2vec --encoder vit --steps 1000`."""
    return measured("data2vec")


RECIPES = {recipe.__name__: recipe for recipe in (mae, simmim, ijepa, data2vec)}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        began = time.process_time()
        print(RECIPES[name]())
        print(f"{name}: {time.process_time() - began:.0f} CPU seconds")
