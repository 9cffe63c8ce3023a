"""The plan of a run, how long and how to train: from the options, the task's defaults and the general ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from selfsup.errors import UserError
from selfsup.nn.norm import keeps_statistics
from selfsup.task import Task
from selfsup.train.optim import warmup_cosine

LR = {"adamw": 2e-3, "sgd": 0.05, "lars": 0.15}  # at a batch of `BATCH`
WEIGHT_DECAY = {"adamw": 0.05, "sgd": 5e-4, "lars": 1e-6}
BATCH = 128
WIDE = 768  # of a transformer: ViT-B's and BERT-base's; from here on the rates are those of the papers
TRAINED = 0.1  # of the peak rate, for an encoder that begins trained and is not wide
KEPT = 0.01  # the same if its BatchNorm keeps its statistics, and so does not hold the activations where they were
EPOCHS = 100  # if no budget was given


class Milestone(NamedTuple):
    """A point where the steps of a run were planned again (`train.clock`): how many were done, how far, and when."""

    step: int
    progress: float  # 0 to 1
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The length, batch, optimizer and schedule of a run.

    `batch_size` is the global one; `lr` the peak; `clip` the largest gradient norm; `betas` are AdamW's; `micro_batch`
    is how many samples a process holds in memory at once (see `train.micro`); a run by the clock has `milestones`.
    `low_res_first` is the fraction of the steps, from the first one on, with images of half the size.
    `drop_tokens` is the fraction of the patches that the trained encoder, a transformer, does not see.
    `encoder_lr` is the peak of an encoder that begins trained, which is frozen while the rest warms up; `layer_decay`
    is the rate of each of its layers as a fraction of that of the layer above (see `optim.build_optimizer`).
    `l2_sp` draws the encoder back to the weights that it began with (see `anchor.Anchor`).
    `block` is how many neighbours are shuffled together (see `views.order.places`); 0 leaves it to the source.
    """

    steps: int
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    micro_batch: int | None = None
    seed: int = 0
    milestones: tuple[Milestone, ...] = ()
    encoder_lr: float | None = None
    low_res_first: float = 0.0
    drop_tokens: float = 0.0
    layer_decay: float | None = None
    l2_sp: float | None = None
    block: int = 0

    @property
    def low_res_steps(self) -> int:
        """Return the number of the first steps that see images of half the size."""
        return round(self.low_res_first * self.steps)

    def progress(self, step: float) -> float:
        """Return how far the schedule is after some steps, 0 to 1: in proportion from milestone to milestone."""
        if not self.milestones:
            return step / self.steps
        steps, progress, _ = zip(Milestone(0, 0.0, 0.0), *self.milestones, Milestone(self.steps, 1.0, 0.0), strict=True)
        return float(np.interp(step, steps, progress))

    def steps_at(self, step: int) -> int:
        """Return how many steps the run had when it made this one: as planned before the later milestones."""
        before = Milestone(0, 0.0, 0.0)
        for one in self.milestones:
            if step < one.step:
                pace = (one.progress - before.progress) / (one.step - before.step)
                return round(before.step + (1 - before.progress) / pace)
            before = one
        return self.steps

    def lr_at(self, step: int, child: str = "") -> float:
        """Return the learning rate of a step: the peak times warm-up and cosine; the first step is not wasted on zero.

        `child`: of the task; that of an `encoder` that begins trained warms up when the other parts have.
        """
        progress = self.progress(step + 0.5)
        if child == "encoder" and self.encoder_lr is not None:
            if progress <= self.warmup:
                return 0.0
            progress = (progress - self.warmup) / (1 - self.warmup)
        return self.peak(child) * warmup_cosine(progress, self.warmup)

    def peak(self, child: str = "") -> float:
        """Return the highest learning rate of a child of the task."""
        return self.lr if child != "encoder" or self.encoder_lr is None else self.encoder_lr


def make_plan(
    task_class: type[Task],
    batch_size: int,
    given: Mapping[str, Any],
    *,
    encoder: Any = None,
    trained: bool = False,
    **rest: Any,
) -> Plan:
    """Return the plan: given options (not None), else the task's defaults, else the general ones.

    The learning rate follows the encoder, where none was given. AdamW trains a wide transformer at the rate of the
    papers: `Task.wide_lr` for 256 samples, in proportion to the batch. An encoder that begins `trained` gets a tenth of
    the other parts' rate, a hundredth if its BatchNorm keeps its statistics, unless it is wide, whose rate is as low
    already.
    """
    given = {key: value for key, value in given.items() if value is not None}
    values = dict(task_class.defaults) | given
    if given.get("optimizer", task_class.defaults.get("optimizer")) != task_class.defaults.get("optimizer"):
        values = given  # the task's rates are for its own optimizer
    optimizer = values.setdefault("optimizer", "adamw")
    ratio = batch_size / values.pop("batch_size", BATCH)
    scale = math.sqrt(ratio) if optimizer == "adamw" else ratio
    wide = optimizer == "adamw" and is_wide(encoder)
    if "lr" not in given:
        of_width = task_class.wide_lr * batch_size / 256
        values["lr"] = of_width if wide else values.get("lr", LR[optimizer]) * scale
    if trained:
        slower = KEPT if keeps_statistics(encoder) else TRAINED
        values["encoder_lr"] = values["lr"] * (1.0 if wide or "lr" in given else slower)
    values.setdefault("weight_decay", WEIGHT_DECAY[optimizer])
    return Plan(batch_size=batch_size, **values, **rest)


def default_batch(task_class: type[Task], samples: int, world: int = 1) -> int:
    """Return the batch if none was given: the task's or the general one, at most all samples, equal on all processes.

    `samples`: how many the task learns from, which for texts are pieces of the documents.
    """
    return min(task_class.defaults.get("batch_size", BATCH), max(1, samples // world) * world)


def is_wide(encoder: Any) -> bool:
    """Return whether an encoder is a transformer as wide as those for which the papers give rates."""
    has_tokens = getattr(encoder, "has_tokens", hasattr(encoder, "tokens"))
    return bool(has_tokens) and encoder.dim >= WIDE


def read_budget(steps: int | None, epochs: float | None, minutes: float | None) -> dict[str, float]:
    """Return the one budget that was given, by its unit; 100 epochs if none was. Raises `UserError` for several."""
    given = {k: v for k, v in {"steps": steps, "epochs": epochs, "minutes": minutes}.items() if v is not None}
    if len(given) > 1:
        raise UserError(f"give only one of --steps, --epochs and --minutes, not {' and '.join(given)}")
    return given or {"epochs": EPOCHS}
