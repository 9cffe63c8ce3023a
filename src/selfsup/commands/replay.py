"""`replay`: the batch and the loss of one step of a run, made again. Imports torch only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfsup.base.checks import check_new_image, check_numbers
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, LabelsGiven, RunName, Target, TaskName
from selfsup.run import Run

if TYPE_CHECKING:
    from selfsup.reports.replay import Replayed


def replay(
    run: RunName,
    /,
    *,
    step: int,
    data: Data | None = None,
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    task: TaskName | None = None,
    out: Target = "replay.png",
    count: int = 16,
    from_start: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> Replayed:
    """Repeat one step of a run: its samples, an image of them with their free labels, and the loss.

    A step is a function of its number, the seed and the weights. These come from the last checkpoint, if it is not of a
    later step, by training on from there; otherwise from the start, at once if that takes less than a minute, or else
    with --from-start. The run itself stays as it is.

    Args:
        run: A run folder, finished or not.
        step: The number of the step, from 1 on, as metrics.jsonl and messages give it.
        data: The data that the run was trained on; by default those that it names.
        labels: Where the labels of the data are, for tasks that need them; by default as the run had them.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        task: The task of the run as module:Class, in Python the class, if it is one of your own.
        out: The image to write (.png, .jpg or .webp, in which clips move).
        count: How many samples of the batch to draw.
        from_start: Train from the first step on, however long it takes, and not from the checkpoint.
        device: auto, cpu, cuda or mps. The loss is the same to 1e-5 on a machine of the same kind.
        quiet: Hide progress.

    Raises:
        UserError: For a folder that is not a run, a step that it does not have, or data that are not those of the run.
        RunFailed: If an earlier step fails.
    """
    from selfsup.data.labels import name_columns
    from selfsup.reports.replay import data_of, replay_step
    from selfsup.tasks import find_task

    check_numbers(step=step, count=count)
    path = user_path(out)
    check_new_image(path)
    run = run if isinstance(run, Run) else Run(run)
    source = data_of(run, data, *name_columns(columns, labels))
    own = find_task(task) if isinstance(task, str) else task
    return replay_step(
        run, source, step, path, task=own, count=count, from_start=from_start, device=device, quiet=quiet
    )
