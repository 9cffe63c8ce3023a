"""The panels of a task on a user's data: what goes into the encoder, its free label, and what a run predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfsup.base.printing import Printable
from selfsup.data import make_spec, split_options
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.reports.sheets import save_panels
from selfsup.run import Run
from selfsup.source import Source
from selfsup.task import Panel, Task
from selfsup.tasks import find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.views import plain_views
from selfsup.views.loader import batches


@dataclass(frozen=True, repr=False)
class Shown(Printable):
    """The image that `show` wrote, and the `text` of panels that are texts."""

    path: Path
    text: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "text": self.text}

    def __rich__(self) -> str:
        return f"{self.text}\n{self.path}".lstrip()

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def show_task(
    task: str | type[Task],
    source: Source,
    options: Mapping[str, Any],
    run: Run | None,
    path: Path,
    count: int,
    seed: int,
) -> Shown:
    """Write the panels of a task: `options` are its own and those of the kind of data; a `run` brings both.

    Raises `UserError` for whatever does not fit together.
    """
    about_data, hyperparameters = split_options(source.kind, options)
    if run is not None:
        name = task if isinstance(task, str) else task.__name__
        if run.task != name:
            raise UserError(f"{run.folder} is a run of {run.task}, not of {name}")
        if options:
            raise UserError("--run brings its own options and size: leave yours out")
        own = (find_task(task) if isinstance(task, str) else task).hyperparameters()
        needed = [key for key, parameter in own.items() if parameter.default is parameter.empty]
        given = run.recipe["task"]["hyperparameters"]  # a queue for other data need not suit the number of these
        hyperparameters = {key: given[key] for key in needed if key in given}
    _, task_class, hyperparameters, source = resolve_task(task, source, hyperparameters)
    spec = make_spec(source, task_class.data_defaults, **about_data) if run is None else run.spec
    source.conform(spec)
    if run is None:
        module = task_class(build_encoder(task_class.encoder_for(source.kind, small=True), spec), **hyperparameters)
    else:
        module, _ = run.load_task(task_class)
    source, views = module.samples(source), module.views(spec)
    torch.manual_seed(seed)
    whole = getattr(source, "group_size", 1)  # samples that a batch takes together
    size = -(-min(count, len(source)) // whole) * whole
    stream = batches(source, views, batch_size=size, seed=seed, start=0, steps=1, workers=0)
    batch = views.finish(next(iter(stream)).batch)
    with torch.no_grad():
        rows = module.eval().panels(batch, guess=run is not None)[:count]
    x = batch.get("x")
    if spec.kind == "image" and x is not None and x.ndim == 5:  # several views: nobody sees what they are views of
        rows = [[original, *row] for original, row in zip(_originals(source, spec, batch["index"]), rows, strict=False)]
    save_panels(rows, spec, path)
    told = [f"{panel.content}\n    {panel.caption}" for row in rows for panel in row if isinstance(panel.content, str)]
    return Shown(path, "\n".join(told))


def _originals(source: Source, spec: Any, indices: torch.Tensor) -> list[Panel]:
    plain = plain_views(spec)
    x = plain.finish(plain.fetch(source, indices.numpy(), 0, 0).batch)["x"]
    return [Panel(image, "original") for image in x]
