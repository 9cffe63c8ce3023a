"""`show`: an image of the inputs of a task and of the labels that it makes. Imports torch only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_data_numbers, check_new_image, check_numbers
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, LabelsGiven, Target, TaskName
from selfsup.errors import UserError, unknown

if TYPE_CHECKING:
    from selfsup.reports.show import Shown


def show(
    task: TaskName,
    data: Data | None = None,
    /,
    *,
    preset: str | None = None,
    run: Target | None = None,
    out: Target = "show.png",
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    count: int = 6,
    seed: int = 0,
    **options: Any,
) -> Shown:
    """Draw the inputs of a task beside their free labels; or, with --preset NAME or --views NAME and DATA alone, views.

    Args:
        task: A name from `selfsup tasks`, or module:Class for your own. Left out, views are drawn: those of --preset.
        data: A folder of images, a list file, an .npz file, a name or an array.
        preset: The published views to draw: simclr (for --views alone), mocov2, byol, swav, dino, mae, lejepa or
            vicreg.
        run: A run folder of this task: its options are taken, and its predictions are shown.
        out: The image to write (.png, .jpg or .webp, in which clips move).
        labels: For tasks that need labels: 'folders', a CSV file (path,label) or an .npz file with y.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        count: How many samples to draw.
        seed: Seed of the choice of samples and of their views.
        options: Those of the task, see `selfsup tasks NAME`, and of the kind of data (size, channels, range, views;
            tokenizer).

    Raises:
        UserError: For anything that is wrong with the arguments.
    """
    from selfsup.data import split_options
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.reports.show import Shown, show_task
    from selfsup.run import Run
    from selfsup.views.image.sheet import contact_sheet

    check_numbers(count=count, seed=seed)
    check_data_numbers(options)
    path = user_path(out)
    check_new_image(path)
    if preset is None and data is None and options.get("views") is not None:
        preset = "simclr"
    if preset is not None:
        if data is not None:
            raise UserError("--preset takes data alone, without a task: selfsup show --preset simclr DATA")
        about_data, others = split_options("image", options)
        for name in others:
            raise unknown("option of show --preset", name, about_data)
        contact_sheet(preset, open_data(task), path, about_data, count, seed)  # type: ignore[arg-type]
        return Shown(path)
    if data is None:
        raise UserError("selfsup show takes a task and data: selfsup show rotation DATA")
    trained = None if run is None else Run(run)
    return show_task(task, open_data(data, *name_columns(columns, labels)), options, trained, path, count, seed)
