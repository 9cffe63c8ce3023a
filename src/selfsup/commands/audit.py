"""`audit`: can a free label be read off a trivial cue? Imports torch only when it is called."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_data_numbers, check_new_file, check_numbers
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, LabelsGiven, Target, TaskName
from selfsup.errors import UserError

if TYPE_CHECKING:
    from selfsup.shortcuts.result import Audit


def audit(
    task: TaskName,
    data: Data,
    /,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    cues: str = "all",
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    out: Target | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    **options: Any,
) -> Audit:
    """Train the task with encoders that see only one cheap cue each, and tell which cues are enough to solve it.

    Args:
        task: A name from `selfsup tasks`, or module:Class for your own.
        data: A folder of images, videos or sounds, a list file, an .npz file, a name or an array; at least 64 samples.
        minutes: Minutes of training, more than 0: two fifths for the shortcut probes, as much for a small encoder and
            the rest for counter-measures; 1 by default.
        steps: Instead of minutes, the optimizer steps of each encoder, at least 1, so that the result is the same on
            any machine.
        cues: All, or some, separated by commas: of images rim, colours, aberration, residual and border; of videos also
            energy, motion, seam, background and middle, but not aberration; of recordings length, floor, channel,
            level and ends.
        labels: For tasks that need labels: 'folders', a CSV file (path,label) or an .npz file with y.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        out: A file for an image of the result (.png, .pdf or .svg).
        seed: Seed of everything, at least 0.
        device: Where to compute: auto, cpu, cuda or mps.
        quiet: Hide progress.
        options: Options of the task (see `selfsup tasks NAME`) and of the kind of data (as size).

    Raises:
        UserError: For anything that is wrong with the arguments.
    """
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.shortcuts.trial import Trial

    check_numbers(minutes=minutes, steps=steps, seed=seed)
    check_data_numbers(options)
    if minutes is not None and steps is not None:
        raise UserError("give only one of --minutes and --steps")
    path = None if out is None else user_path(out)
    if path is not None:
        if path.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise UserError(f"--out must end in .png, .pdf or .svg, not {path.name!r}")
        check_new_file(path)
    names = [] if cues == "all" else [name.strip() for name in cues.split(",")]
    trial = Trial(
        task, open_data(data, *name_columns(columns, labels)), options, seed=seed, device=device, quiet=quiet,
        steps=steps, minutes=None if steps else minutes or 1.0,
    )  # fmt: skip
    result = trial.run(names)
    if path is None:
        return result
    result.draw().savefig(path, dpi=150)
    return replace(result, image=path)
