"""Colorization and split-brain on 4,797 emoji of 64 pixels, with 10 labels for each of 8 classes; the cost of labels.

`python recipes/colour.py [NAME]` runs all or one. Pretraining is without labels, seed 0, one CPU thread; the accuracy
is that of a linear probe on 10 labels per class, 5 draws, on the emoji of `emoji:test`, with its 95% interval.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import selfsup
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.evaluation.result import Evaluation
from selfsup.nn.image.lab import ab_at, coloured, grey, to_light
from selfsup.tasks.image.colorization import Colorization
from selfsup.views.loader import batches


def measured(task: str, steps: int, **options: Any) -> Evaluation:
    """Pretrain on emoji and measure the representation beside the untrained encoder's."""
    run = selfsup.pretrain(
        "emoji:train", task=task, encoder="convnet", steps=steps, out=f"runs/{task}-recipe", quiet=True, **options
    )
    return selfsup.evaluate(
        run, data="emoji:train", test="emoji:test", shots="10", protocol="linear,knn", scratch=False, quiet=True
    )


def colorization() -> Evaluation:
    """`selfsup pretrain emoji:train --task colorization --encoder convnet --steps 254`.

    Seed 0, 280 CPU seconds: 31.9 ± 4.5% (kNN 34.1 ± 2.8%); untrained 33.1 ± 2.6% (31.7 ± 4.8%), raw pixels
    36.3 ± 4.2%: no gain after so few steps.
    """
    return measured("colorization", 254)


def split_brain() -> Evaluation:
    """`selfsup pretrain emoji:train --task split_brain --encoder convnet --steps 214`.

    Seed 0, 217 CPU seconds: 34.0 ± 3.3% (kNN 34.0 ± 2.5%); untrained as above: no gain after so few steps.
    """
    return measured("split_brain", 214)


def label_making(encoder: str = "convnet", size: int = 64, batch_size: int = 64, rounds: int = 7) -> float:
    """Return the time to make input and labels as a fraction of that of the forward pass: the median of several rounds.

    One thread, CPU time, on a busy machine: 7% with batches of 64 and of 128, 5 rounds.
    """
    source = open_data("emoji")
    spec = source.spec(size)
    task = Colorization(build_encoder(encoder, spec))
    views = task.views(spec).for_device(torch.device("cpu"))
    fetched = next(iter(batches(source, views, batch_size=batch_size, seed=0, start=0, steps=1, workers=0)))
    x, fractions = views.finish(fetched.batch)["x"], []
    for _ in range(rounds):
        began = time.process_time()
        light = to_light(x, spec)
        seen, ab = grey(light, spec), ab_at(light, task.side)
        places, _ = task.bins.places(ab), coloured(ab)
        made = time.process_time()
        task.bins(task.predict(seen), places)
        fractions.append((made - began) / (time.process_time() - made))
    return sorted(fractions)[rounds // 2]


RECIPES: dict[str, Callable[[], Any]] = {f.__name__: f for f in (colorization, split_brain, label_making)}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        began = time.process_time()
        print(RECIPES[name]())
        print(f"{name}: {time.process_time() - began:.0f} CPU seconds", flush=True)
