"""A step of a run made again: its batch, what the samples are labelled, and its loss."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfsup.base.printing import Printable
from selfsup.errors import RunFailed, UserError
from selfsup.pretraining import rebuild
from selfsup.reports.report import find_data
from selfsup.reports.sheets import save_panels
from selfsup.request import Built
from selfsup.run import Run
from selfsup.source import Source
from selfsup.task import Task, Views
from selfsup.train.checkpoint import CHECKPOINT, step_saved
from selfsup.train.fit import NotFinite, fit
from selfsup.train.log import read_lines
from selfsup.train.plan import Plan
from selfsup.views.loader import batches

SHORT = 60.0  # seconds of training that nobody is asked about
SHOWN = 20  # paths on the screen


@dataclass(frozen=True, repr=False)
class Replayed(Printable):
    """A step, from 1 on: the `paths` of its batch, the image of the first ones, and its loss.

    `loss` is None where it was not made again, for the reason in `note`. `logged` is that of metrics.jsonl, a mean over
    the steps from `first` to `last`, None where there is none.
    """

    step: int
    paths: tuple[str, ...]
    image: Path
    lr: float
    loss: float | None
    logged: float | None
    first: int
    last: int
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values; a loss that is not finite as text."""
        values = {**vars(self), "paths": list(self.paths), "image": str(self.image)}
        return values if self.loss is None or math.isfinite(self.loss) else {**values, "loss": str(self.loss)}

    def __rich__(self) -> str:
        paths = [f"  {path}" for path in self.paths[:SHOWN]]
        more = [f"  and {len(self.paths) - SHOWN:,} more (--json has all)"] if len(self.paths) > SHOWN else []
        lines = [f"step {self.step:,}: {len(self.paths):,} samples, learning rate {self.lr:.3g}", *paths, *more]
        if self.loss is not None:
            lines.append(f"loss {self.loss:.6f}")
        if self.logged is not None:
            of = f", the mean of steps {self.first:,} to {self.last:,}" if self.first < self.last else ""
            lines.append(f"logged {self.logged:.6f}{of}")
        return "\n".join([*lines, *([self.note] if self.note else []), str(self.image)])


def data_of(run: Run, data: Any, labels: Any) -> Source:
    """Return the data that a run was trained on; raise `UserError` for any others."""
    source, note = find_data(run, data, labels)
    if source is None:
        raise UserError(f"a step is repeated on the data of the run. {note}")
    if source.fingerprint() != run.recipe["data"].get("fingerprint"):
        raise UserError(f"{source.name} is not what {run.folder} was trained on, or has changed: give that as --data")
    return source


def replay_step(
    run: Run,
    source: Source,
    step: int,
    image: Path,
    *,
    task: type[Task] | None,
    count: int,
    from_start: bool,
    device: str,
    quiet: bool,
) -> Replayed:
    """Make a step of a run again, from its last checkpoint before it, or else from the start; the run stays as it is.

    Without `from_start` the loss is left out where many steps would have to be made again. Raises `UserError` for a
    step that the run does not have, `RunFailed` where an earlier one fails.
    """
    built, plan, low_res = rebuild(run, source, task=task, device=device)
    if not 1 <= step <= plan.steps:
        raise UserError(f"--step must be from 1 to {plan.steps:,}, the steps of {run.folder}, not {step}")
    views = low_res if low_res is not None and step <= plan.low_res_steps else built.views
    stream = batches(
        built.source, views, batch_size=plan.batch_size, seed=plan.seed, start=step - 1, steps=step, workers=0,
        block=plan.block,
    )  # fmt: skip
    batch = next(iter(stream)).batch
    paths = tuple(built.source.path(int(index)) for index in batch["index"])
    whole = getattr(built.source, "group_size", 1)  # samples that a batch takes together
    few = {key: value[: -(-count // whole) * whole] for key, value in batch.items()}
    with torch.no_grad():
        panels = built.task.eval().panels(views.finish(few))
    save_panels(panels[:count], run.spec, image)

    logged, first, last, pace = _logged(run, step)
    checkpoint = run.folder / CHECKPOINT
    saved = step_saved(checkpoint) or 0
    begin = saved if saved < step and not from_start else 0
    seconds = (step - begin) * plan.batch_size / pace if pace else 0.0
    note, loss = "", None
    if seconds > SHORT and not from_start:
        note = (
            f"its loss: {step - begin:,} steps have to be made again, in about {_words(seconds)}; --from-start does so"
        )
    else:
        loss = _loss(built, plan, low_res, step, checkpoint if begin else None, quiet)
    return Replayed(step, paths, image, plan.lr_at(step - 1), loss, logged, first, last, note)


def _loss(built: Built, plan: Plan, low_res: Views | None, step: int, checkpoint: Path | None, quiet: bool) -> float:
    """Return the loss of a step: the run is resumed from a copy of the checkpoint, and stopped before and after it."""
    found: list[float] = []

    def note(line: dict[str, Any]) -> None:
        found.append(line["loss"])

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if checkpoint is not None:
            (folder / CHECKPOINT).parent.mkdir()
            shutil.copyfile(checkpoint, folder / CHECKPOINT)
        for until in (step - 1, step):
            if until == 0:
                continue
            try:
                fit(
                    built.task, built.source, built.views, plan, built.fabric, low_res=low_res, folder=folder,
                    until=until, loggers=(), on_log=note, quiet=quiet or until == step,
                )  # fmt: skip
            except NotFinite as error:
                if error.step != step:
                    raise RunFailed(
                        f"the loss is {error.value} at step {error.step} already: repeat that one"
                    ) from None
                return error.value
    return found[-1]


def _logged(run: Run, step: int) -> tuple[float | None, int, int, float]:
    """Return the loss in metrics.jsonl that covers a step, its first and last step, and samples a second."""
    path = run.folder / "metrics.jsonl"
    lines = list(read_lines(path.read_bytes(), step=int, loss=float)) if path.exists() else []
    pace = float(lines[-1].get("samples_per_s") or 0.0) if lines else 0.0
    before = 0
    for line in lines:
        if line["step"] >= step:
            return line["loss"], before + 1, line["step"], pace
        before = line["step"]
    return None, step, step, pace


def _words(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.0f} minutes"
