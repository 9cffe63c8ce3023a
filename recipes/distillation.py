"""DINO, iBOT and DINOv2 on three-style emoji at 64 × 64 with the encoder `vit`.

`python recipes/distillation.py [NAME]` runs all or one: pretraining on `emoji:train` without labels, seed 0, then few
labels on `emoji:test`. Not measured yet at this length; `benchmarks/methods.py --encoder vit` is the table of all
methods under one budget.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import selfsup


def measured(task: str, **options: Any) -> selfsup.evaluation.Evaluation:
    """Pretrain and measure, beside the untrained encoder, raw pixels and PCA."""
    run = selfsup.pretrain(
        "emoji:train", task=task, encoder="vit", steps=400, seed=0, out=f"runs/{task}-recipe", quiet=True, **options
    )
    return selfsup.evaluate(
        run, data="emoji:train", test="emoji:test", shots="1,5,20", protocol="linear", scratch=False, quiet=True
    )


def dino() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task dino --encoder vit --steps 400`."""
    return measured("dino")


def ibot() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task ibot --encoder vit --steps 400`."""
    return measured("ibot")


def dinov2() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji:train --task dinov2 --encoder vit --steps 400`."""
    return measured("dinov2")


RECIPES = {recipe.__name__: recipe for recipe in (dino, ibot, dinov2)}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        began = time.process_time()
        print(RECIPES[name]())
        print(f"{name}: {time.process_time() - began:.0f} CPU seconds")
