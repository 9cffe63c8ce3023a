"""`show`: an image of what a task sees and of the labels that it makes. Imports torch only when it is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_data_numbers, check_new_file, check_numbers
from selfsup.base.printing import Printable
from selfsup.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup.source import Source
    from selfsup.task import Task

    Data = str | os.PathLike[str] | NDArray[np.uint8] | Source
    Target = str | os.PathLike[str]
    TaskName = str | type[Task]
else:
    Data = Target = TaskName = str  # what the command line can give


@dataclass(frozen=True)
class Shown(Printable):
    """The image that `show` wrote; `text`: what it shows, where that can be read."""

    path: Path
    text: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "text": self.text}

    def __rich__(self) -> str:
        return f"{self.text}\n{self.path}".lstrip()

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def show(
    task: TaskName,
    data: Data | None = None,
    /,
    *,
    views: str | None = None,
    run: Target | None = None,
    out: Target = "show.png",
    labels: str | None = None,
    count: int = 6,
    seed: int = 0,
    **options: Any,
) -> Shown:
    """Draw what goes into a task, beside the free label; or, with --views PRESET DATA, the views of a preset.

    Args:
        task: A name of `selfsup tasks`, or module:Class for your own. With --views it is left out.
        data: A folder of images, a list file, an .npz file, a name or an array.
        views: simclr, mocov2, byol, swav, dino, mae, lejepa or vicreg.
        run: A run folder of this task: its options, and what it predicts.
        out: The image to write (.png, .jpg or .webp).
        labels: For tasks that need labels: 'folders', a CSV file (path,label) or an .npz file with y.
        count: How many samples.
        seed: Which samples.
        options: Those of the task, see `selfsup tasks NAME`, and of the kind of data (size, channels; tokenizer).

    Raises:
        UserError: For anything that is wrong with the arguments.
    """
    import torch

    from selfsup.data import make_spec, split_options
    from selfsup.data.open import open_data
    from selfsup.encoders import build_encoder
    from selfsup.reports.sheets import save_panels
    from selfsup.run import Run
    from selfsup.tasks.resolve import resolve_task
    from selfsup.views.image.sheet import contact_sheet
    from selfsup.views.loader import batches

    check_numbers(count=count, seed=seed)
    check_data_numbers(options)
    path = Path(out)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--out must end in .png, .jpg or .webp, not {path.name!r}")
    check_new_file(path)
    if views is not None:
        if data is not None:
            raise UserError("--views takes data alone, without a task: selfsup show --views simclr DATA")
        contact_sheet(views, open_data(task), path, options.get("size"), count, seed)  # type: ignore[arg-type]
        return Shown(path)
    if data is None:
        raise UserError("selfsup show takes a task and data: selfsup show rotation DATA")
    source = open_data(data, labels)
    trained = None if run is None else Run(run)
    about_data, hyperparameters = split_options(source.kind, options)
    if trained is not None:
        name = task if isinstance(task, str) else task.__name__
        if trained.task != name:
            raise UserError(f"{trained.folder} is a run of {trained.task}, not of {name}")
        if options:
            raise UserError("--run brings its own options and size: leave yours out")
        hyperparameters = trained.recipe["task"]["hyperparameters"]
    _, kind, hyperparameters, source = resolve_task(task, source, hyperparameters)
    spec = make_spec(source, **about_data) if trained is None else trained.spec
    source.conform(spec)
    module = (
        kind(build_encoder(kind.small_encoder, spec), **hyperparameters)
        if trained is None
        else trained.load_task(kind)[0]
    )
    source, seen = module.samples(source), module.views(spec)
    count = min(count, len(source))
    torch.manual_seed(seed)
    fetched = next(iter(batches(source, seen, batch_size=count, seed=seed, start=0, steps=1, workers=0)))
    with torch.no_grad():
        rows = module.eval().panels(seen.finish(fetched.batch), guess=trained is not None)
    save_panels(rows, spec, path)
    told = [f"{panel.content}\n    {panel.caption}" for row in rows for panel in row if isinstance(panel.content, str)]
    return Shown(path, "\n".join(told))
