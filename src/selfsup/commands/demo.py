"""`demo`: the main job from end to end on data that comes with a package. Imports torch only when it is called."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group

from selfsup.base.paths import user_path
from selfsup.base.printing import Printable

if TYPE_CHECKING:
    from selfsup.evaluation.result import Evaluation
    from selfsup.run import Run


@dataclass(frozen=True)
class Demo(Printable):
    """The run, its evaluation and how long it all took."""

    run: Run
    evaluation: Evaluation
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"run": self.run.as_json(), "evaluation": self.evaluation.as_json(), "seconds": self.seconds}

    def __rich__(self) -> Group:
        shots = 10
        task = self.evaluation.about["task"]
        ours = self.evaluation.score(task, "linear", shots).mean
        pixels = self.evaluation.score("raw pixels", "linear", shots).mean
        scratch = self.evaluation.score("from scratch", "trained", shots).mean
        return Group(
            self.evaluation.__rich__(),
            f"\nWith {shots} labels per class: {ours:.1%} on the features of {task}, {pixels:.1%} on raw pixels, "
            f"{scratch:.1%} trained from scratch. {self.seconds:.0f} seconds.",
            f"\nIn {self.run.folder}/: recipe.json encoder.safetensors metrics.jsonl evaluation.json labels.png",
            "\nNow on your own images:",
            "  selfsup show rotation FOLDER -o image.png",
            "  selfsup pretrain FOLDER --task rotation --encoder resnet18 --minutes 30 --out runs/mine",
            "  selfsup evaluate runs/mine --data FOLDER --labels labels.csv      (path,label: a few are enough)",
            "  selfsup embed runs/mine FOLDER --out embeddings.parquet",
        )


def demo(*, out: str = "runs/demo", epochs: float = 20, seed: int = 0) -> Demo:
    """Pretrain on 4,000 unlabelled digits, evaluate with few labels on 1,000 others: two minutes on two CPU cores.

    Args:
        out: The run folder.
        epochs: Passes over the unlabelled digits.
        seed: Seed of everything.
    """
    from selfsup.commands.evaluate import evaluate
    from selfsup.commands.pretrain import pretrain
    from selfsup.commands.show import show

    began = time.monotonic()
    console = Console(stderr=True)
    console.print(
        "1/3  4,000 handwritten digits without labels, rotated by 0°, 90°, 180° or 270°: which rotation was it?"
    )
    run = pretrain(
        "mnist5k:train", task="rotation", encoder="convnet", epochs=epochs, out=out, seed=seed, pad=3, flip=0.0
    )  # fmt: skip
    console.print("2/3  An image of what the encoder sees, and of the labels that cost nothing")
    folder = user_path(out)
    show("rotation", "mnist5k:train", out=folder / "labels.png", pad=3, flip=0.0)
    console.print("3/3  What the encoder is worth on 1,000 other digits, with few labels")
    evaluation = evaluate(run, data="mnist5k:train", test="mnist5k:test", shots="1,5,10,50,all", seed=seed)
    return Demo(run, evaluation, time.monotonic() - began)
