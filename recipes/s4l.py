"""S4L with 10 labels per class: one loss for 100 labelled and 3,900 unlabelled digits, beside its alternatives.

python recipes/s4l.py [RUN]
"""

from __future__ import annotations

import sys
import time

import selfsup


def s4l(out: str = "runs/s4l-recipe", draws: int = 5) -> selfsup.evaluation.Evaluation:
    """Pretrain rotation for 10 epochs, then measure it beside s4l and training from scratch, on the same labels."""
    run = selfsup.pretrain(
        "mnist5k:train", task="rotation", encoder="convnet", epochs=10, pad=3, flip=0.0, seed=0, out=out, quiet=True
    )
    return selfsup.evaluate(
        run, data="mnist5k:train", test="mnist5k:test", shots="10", draws=draws, seed=0, semi=True, quiet=True
    )


if __name__ == "__main__":
    began = time.process_time()
    print(s4l(*sys.argv[1:2]))
    print(f"{time.process_time() - began:.0f} CPU seconds")
