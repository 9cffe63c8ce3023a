"""`demo`: the main job from end to end on data that comes with a package. Imports torch only when it is called."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group

from selfsup.base.paths import user_path
from selfsup.base.printing import Printable

if TYPE_CHECKING:
    from selfsup.evaluation.labels_saved import Saved
    from selfsup.evaluation.result import Evaluation
    from selfsup.run import Run

DATA, TEST, N = "mnist5k:train", "mnist5k:test", 15


@dataclass(frozen=True, repr=False)
class Demo(Printable):
    """The run, what the suggested labels made of it, its evaluation on drawn labels, and how long it all took."""

    run: Run
    suggested: Evaluation  # with the suggested labels alone
    evaluation: Evaluation
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        saved = self.saved()
        return {
            "run": self.run.as_json(), "suggested": self.suggested.as_json(), "evaluation": self.evaluation.as_json(),
            "needed": None if math.isinf(saved.needed) else saved.needed, "seconds": self.seconds,
        }  # fmt: skip

    def saved(self) -> Saved:
        """Return how many labels per class training from scratch needs to be as good as the suggested ones are."""
        from selfsup.evaluation.labels_saved import labels_saved

        rival = self.evaluation.about["saved against"]["propagate"]
        scratch = {
            self.evaluation.labels(score.shots): score.values
            for score in self.evaluation.scores
            if score.representation == rival
        }
        ours = self.suggested.score("rotation", "propagate", None)
        return labels_saved({self.suggested.labels(None): ours.values}, scratch)[0]

    def __rich__(self) -> Group:
        saved, classes = self.saved(), self.evaluation.about["classes"]
        tested = self.evaluation.about["test"]["samples"]
        needs = (
            "does not reach that with all 4,000"
            if math.isinf(saved.needed)
            else f"needs {saved.needed * classes:,.0f} labels for that"
        )
        return Group(
            self.evaluation.__rich__(),
            f"\n{N} suggested labels → {saved.accuracy:.1%} of {tested:,} other digits; "
            f"{self.evaluation.about['saved against']['propagate']} {needs}. {self.seconds:.0f} seconds.",
            f"\nIn {self.run.folder}/: recipe.json encoder.safetensors metrics.jsonl evaluation.json labels.png "
            "to-label.csv to-label.png few.csv",
            "\nNow on your own images:",
            "  selfsup show rotation FOLDER -o image.png",
            "  selfsup pretrain FOLDER --task rotation --encoder resnet18 --minutes 30 --out runs/mine",
            "  selfsup label runs/mine FOLDER                  (a page in your browser: fifteen clicks, then the rest)",
            "  selfsup evaluate runs/mine --data FOLDER --labels labels.csv      (path,label: a few are enough)",
            "  selfsup embed runs/mine FOLDER --out embeddings.parquet",
        )


def demo(*, out: str = "runs/demo", epochs: float = 20, seed: int = 0) -> Demo:
    """Pretrain on 4,000 unlabelled digits, label 15 of them, and measure on 1,000 others, in three to six minutes.

    Args:
        out: The run folder.
        epochs: Passes over the unlabelled digits.
        seed: Seed of everything.
    """
    from selfsup.commands.evaluate import evaluate
    from selfsup.commands.pretrain import pretrain
    from selfsup.commands.show import show
    from selfsup.commands.suggest import suggest
    from selfsup.data.open import open_data
    from selfsup.labelling.table import write_table

    began = time.monotonic()
    console = Console(stderr=True)
    console.print(
        "1/4  4,000 handwritten digits without labels, rotated by 0°, 90°, 180° or 270°: which rotation was it?"
    )
    run = pretrain(
        DATA, task="rotation", encoder="convnet", epochs=epochs, batch_size=64, out=out, seed=seed, pad=3, flip=0.0,
        low_res_first=0.5,
    )  # fmt: skip
    console.print("2/4  An image of what the encoder sees, and of the labels that cost nothing")
    folder = user_path(out)
    show("rotation", DATA, out=folder / "labels.png", pad=3, flip=0.0)
    console.print(
        f"3/4  The {N} digits to label first; you would write what they are, here the data set's own file does"
    )
    chosen = suggest(run, DATA, n=N, out=folder / "to-label.csv", sheet=folder / "to-label.png", seed=seed)
    labels = open_data(DATA).labels
    assert labels is not None
    few = [(sample.path, labels.classes[labels.ids[sample.number]]) for sample in chosen.samples]
    write_table(folder / "few.csv", ("path", "label"), few)
    suggested: Any = evaluate(
        run, data=DATA, labels=str(folder / "few.csv"), test=TEST, shots="all", protocol="propagate", scratch=False,
        seed=seed,
    )  # fmt: skip
    console.print("4/4  What the encoder is worth on 1,000 other digits with labels drawn at random, and from scratch")
    evaluation: Any = evaluate(
        run, data=DATA, test=TEST, shots="1,50,all", protocol="linear,propagate", seed=seed
    )  # fmt: skip
    return Demo(run, suggested, evaluation, time.monotonic() - began)
