"""Colorization and split-brain on 4,797 emoji of 64 pixels, with 10 labels per class of 8; what making labels costs.

`python recipes/colour.py [NAME]` runs all or one. Pretraining is without labels, seed 0, one CPU thread; the accuracy
is that of a linear probe on 10 labels per class, 5 draws, on the fifth of the emoji that is set aside, with its 95%
interval.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import selfsup
from selfsup.data import open_data
from selfsup.encoders import build_encoder
from selfsup.nn.lab import ab_at, coloured, to_light
from selfsup.tasks.image.colorization import Colorization
from selfsup.views.loader import batches


def measured(task: str, steps: int, **options: Any) -> selfsup.evaluation.Evaluation:
    """Pretrain on emoji and measure the representation beside the untrained encoder's."""
    run = selfsup.pretrain(
        "emoji", task=task, encoder="convnet", steps=steps, out=f"runs/{task}-recipe", quiet=True, **options
    )
    return selfsup.evaluate(run, data="emoji", shots="10", protocol="linear", scratch=False, quiet=True)


def colorization() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji --task colorization --encoder convnet --steps 300`. Not measured yet."""
    return measured("colorization", 300)


def split_brain() -> selfsup.evaluation.Evaluation:
    """`selfsup pretrain emoji --task split_brain --encoder convnet --steps 300`. Not measured yet."""
    return measured("split_brain", 300)


def label_making(encoder: str = "convnet", size: int = 64, batch_size: int = 64, rounds: int = 7) -> float:
    """Return the median share of the forward pass that making the input and the labels takes, in interleaved rounds.

    Measured with the defaults but batches of 32 and 3 rounds, one thread, processor time, on a busy machine: 10%.
    """
    source = open_data("emoji")
    spec = source.spec(size)
    task = Colorization(build_encoder(encoder, spec))
    views = task.views(spec).for_device(torch.device("cpu"))
    fetched = next(iter(batches(source, views, batch_size=batch_size, seed=0, start=0, steps=1, workers=0)))
    x, shares = views.finish(fetched.batch)["x"], []
    for _ in range(rounds):
        began = time.process_time()
        light = to_light(x, spec)
        grey, ab = task.grey(light), ab_at(light, task.side)
        places, _ = task.bins.places(ab), coloured(ab)
        made = time.process_time()
        task.bins.cross_entropy(task.predict(grey), places)
        shares.append((made - began) / (time.process_time() - made))
    return sorted(shares)[rounds // 2]


RECIPES: dict[str, Callable[[], Any]] = {f.__name__: f for f in (colorization, split_brain, label_making)}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        began = time.process_time()
        print(RECIPES[name]())
        print(f"{name}: {time.process_time() - began:.0f} CPU seconds", flush=True)
