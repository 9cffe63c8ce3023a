"""`show`: a picture of what a task sees and of the labels that it makes. Imports torch only when it is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.checks import check_new_file, check_numbers
from selfsup.errors import UserError
from selfsup.printing import Printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup.data import Source
    from selfsup.task import Task

    Data = str | os.PathLike[str] | NDArray[np.uint8] | Source
    Target = str | os.PathLike[str]
    TaskName = str | type[Task]
else:
    Data = Target = TaskName = str  # what the command line can give


@dataclass(frozen=True)
class Shown(Printable):
    """The picture that `show` wrote; `text`: what it shows, where that can be read."""

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
    size: int | None = None,
    count: int = 6,
    seed: int = 0,
    **hyperparameters: Any,
) -> Shown:
    """Draw what goes into a task, beside the free label; or, with --views PRESET DATA, the views of a preset.

    Args:
        task: A name of `selfsup tasks`, or module:Class for your own. With --views it is left out.
        data: A folder of pictures, a list file, an .npz file, a name or an array.
        views: simclr, mocov2, byol, swav, dino, mae, lejepa or vicreg.
        run: A run folder of this task: its options, and what it predicts.
        out: The picture to write (.png, .jpg or .webp).
        labels: For tasks that need labels: 'folders', a CSV file (path,label) or an .npz file with y.
        size: Pixels a side of what the encoder gets; by default the data's own, at most 224.
        count: How many samples.
        seed: Which samples.
        hyperparameters: The task's own options; see `selfsup tasks NAME`.

    Raises:
        UserError: For anything that is wrong with the arguments.
    """
    import torch

    from selfsup.data import open_data
    from selfsup.encoders import build_encoder
    from selfsup.modalities import make_spec, modality
    from selfsup.pretraining import prepare_task
    from selfsup.reports.pictures import draw_panels
    from selfsup.run import Run
    from selfsup.views.loader import batches
    from selfsup.views.sheet import contact_sheet

    check_numbers(size=size, count=count, seed=seed)
    path = Path(out)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--out must end in .png, .jpg or .webp, not {path.name!r}")
    check_new_file(path)
    if views is not None:
        if data is not None:
            raise UserError("--views takes data alone, without a task: selfsup show --views simclr DATA")
        contact_sheet(views, open_data(task), path, size, count, seed)  # type: ignore[arg-type]
        return Shown(path)
    if data is None:
        raise UserError("selfsup show takes a task and data: selfsup show rotation DATA")
    source = open_data(data, labels)
    trained = None if run is None else Run(run)
    if trained is not None:
        name = task if isinstance(task, str) else task.__name__
        if trained.task != name:
            raise UserError(f"{trained.folder} is a run of {trained.task}, not of {name}")
        if hyperparameters or size is not None:
            raise UserError("--run brings its own options and size: leave yours out")
        hyperparameters = trained.recipe["task"]["hyperparameters"]
    _, kind, hyperparameters, source = prepare_task(task, source, hyperparameters)
    spec = make_spec(source, size=size) if trained is None else trained.spec
    modality(spec).check(source, spec)
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
    draw_panels(rows, spec).save(path)
    told = [f"{panel.image}\n    {panel.caption}" for row in rows for panel in row if isinstance(panel.image, str)]
    return Shown(path, "\n".join(told))
