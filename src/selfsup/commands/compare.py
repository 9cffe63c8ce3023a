"""`compare`: which pretext task suits these data, under one equal budget? Imports torch only when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_data_numbers, check_new_folder, check_numbers
from selfsup.base.paths import user_path
from selfsup.base.ranks import launched
from selfsup.commands.given import Data, LabelsGiven, Target
from selfsup.errors import RunFailed, UserError

if TYPE_CHECKING:
    from selfsup.comparison.result import Comparison
    from selfsup.task import Task

    TaskNames = str | Sequence[str | type[Task]]
else:
    TaskNames = str  # what the command line can give


def compare(
    data: Data,
    /,
    *,
    tasks: TaskNames,
    minutes: float = 30,
    labels: LabelsGiven | None = None,
    test: Data | None = None,
    test_labels: LabelsGiven | None = None,
    columns: str | None = None,
    encoder: str | None = None,
    shots: int = 10,
    draws: int = 5,
    scratch: bool = True,
    out: Target = "runs/compare",
    batch_size: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    **options: Any,
) -> Comparison:
    """Train each task under one equal budget and rank them, beside raw data, the untrained encoder and from scratch.

    With labels: successive halving by few-label accuracy, read by propagate; the winner is chosen on one held-out part
    and measured on another, or, of few labels, by cross-validation. Without labels: whole runs, ranked by label-free
    measures, which is weak evidence. Called again with the same arguments, it resumes where it was stopped, or returns
    the finished comparison.

    Args:
        data: A folder of images, a list file, an .npz file, a name (digits, mnist5k, torchvision:NAME) or an array.
        tasks: Names from `selfsup tasks` or module:Class, separated by commas, with options in brackets, such as
            rotation(flip=0); or all.
        minutes: Minutes for everything, more than 0: measuring speeds (at most a tenth), training all tasks, scoring,
            and training from scratch (at most a fifth).
        labels: Where the labels of the data are: 'folders', a CSV file (path,label) or an .npz file with y.
        test: Labelled data to measure on; by default a fifth of every class of the data, set aside first. Where that
            is fewer than 50 samples a class, every fifth is measured on in turn (cross-validation).
        test_labels: Where the labels of the test data are, in the same forms.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        encoder: The encoder of all tasks, named as for `pretrain`; by default that of the first task, resnet18 for most
            tasks on images.
        shots: How many labels per class are drawn, at least 1; lowered where there are too few to draw from.
        draws: How many times the labels are drawn, at least 5.
        scratch: Train from scratch too, on as many draws of the labels as there is time for.
        out: The folder of the comparison, for compare.json, compare.png and a run folder for each task.
        batch_size: Samples per step, at most the number of samples; by default as `pretrain`: 128, or all of fewer.
        precision: auto (bfloat16 where the processor has it), float32, bfloat16 or float16.
        seed: Seed of everything, at least 0.
        device: Where to compute: auto, cpu, cuda or mps.
        quiet: Hide progress.
        options: Options of the kind of data (size, channels, range, views; tokenizer).

    Raises:
        UserError: For anything that is wrong with the arguments.
        RunFailed: If no task can be run.
    """
    from selfsup.base.writing import only_here
    from selfsup.comparison.tournament import Tournament
    from selfsup.data.labels import name_columns

    check_numbers(minutes=minutes, shots=shots, draws=draws, batch_size=batch_size, seed=seed)
    check_data_numbers(options)
    if draws < 5:
        raise UserError(f"--draws must be at least 5 for an interval to choose by, not {draws}")
    if launched().world > 1:
        raise UserError("compare runs in a single process; train the winner in several with `selfsup pretrain`")
    if test is None and test_labels is not None:
        raise UserError("--test-labels are of --test, which was not given")
    labels, test_labels = name_columns(columns, labels, test_labels)
    folder = user_path(out)
    check_new_folder(folder)
    shared: dict[str, Any] = {"encoder": encoder, "batch_size": batch_size, "seed": seed, "data": options}
    with only_here(folder):
        tournament = Tournament(
            data, folder, shared, labels=labels, test=test, test_labels=test_labels, tasks=tasks, minutes=minutes,
            shots=shots, draws=draws, scratch=scratch, precision=precision, device=device, quiet=quiet,
        )  # fmt: skip
        tournament.run()
        if not tournament.result.finalists:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in tournament.state.failed.items())
            raise RunFailed(f"no task finished: {reasons}")
        return tournament.finish()
