"""`report`: one HTML file on what a run did and how well it works. Imports torch only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, LabelsGiven, RunName, Target
from selfsup.errors import UserError
from selfsup.run import Run

if TYPE_CHECKING:
    from selfsup.reports.report import Reported


def report(
    run: RunName,
    /,
    *,
    data: Data | None = None,
    test: Data | None = None,
    labels: LabelsGiven | None = None,
    test_labels: LabelsGiven | None = None,
    columns: str | None = None,
    out: Target | None = None,
    scratch: bool = True,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Reported:
    """Write a report on a run, what it did and how well it works, as one HTML file that needs no network.

    The few-label numbers are those of the run's evaluation.json; if there is none, or it is of other data or other
    labels than those given here, they are measured on these, as `evaluate` does. Images, neighbours, map, confusion
    matrix and label-free measures come from up to 2,000 random samples of these data, or else of those on which the run
    was trained; if they are gone, the report says so.

    Args:
        run: A run folder, finished or not.
        data: Labelled data; by default the data of the run.
        test: Labelled data to measure on; by default a fifth of every class of the data, set aside.
        labels: Where the labels of the data are: 'folders', a CSV file (path,label) or an .npz file with y.
        test_labels: The same for the test data.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        out: The file to write; by default report.html in the run folder.
        scratch: Also train from scratch when the few-label numbers are measured, which takes longest.
        seed: Seed of the choice of samples, and of the evaluation.
        device: auto, cpu, cuda or mps.
        quiet: Hide progress.

    Raises:
        UserError: For a folder that is not a run, or data that cannot be opened.
        RunFailed: If the file cannot be written.
    """
    from selfsup.commands.evaluate import evaluate
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.reports.report import find_data, load_evaluation, why_not_evaluate, write_report
    from selfsup.train.device import make_fabric

    check_numbers(seed=seed)
    labels, test_labels = name_columns(columns, labels, test_labels)
    run = run if isinstance(run, Run) else Run(run)
    path = user_path(out) if out is not None else run.folder / "report.html"
    check_new_file(path)
    source, note = find_data(run, data, labels)
    held_out = open_data(test, test_labels) if test is not None else None
    evaluation = load_evaluation(run)
    given = any(one is not None for one in (data, test, labels))
    reason = why_not_evaluate(run, source, held_out, evaluation, given)
    if reason is None and source is not None:
        evaluation = None
        try:
            found: Any = evaluate(
                run, data=source, test=held_out, scratch=scratch, seed=seed, device=device, quiet=quiet
            )
            evaluation = found
        except UserError as error:  # such as one label per class: the rest of the report needs none
            reason = f"Few-label numbers were not measured: {error}."
    return write_report(
        run, path, source, held_out, evaluation, (note, reason or ""),
        seed=seed, device=make_fabric(device, "float32").device, quiet=quiet,
    )  # fmt: skip
