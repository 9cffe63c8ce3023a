"""`report`: one HTML file that tells what a run did and what it is worth. Imports torch only when it is called."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.printing import Printable
from selfsup.errors import UserError
from selfsup.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup.evaluation.result import Evaluation
    from selfsup.reports.items import Items
    from selfsup.reports.page import Html, Section
    from selfsup.source import Source

    RunName = str | os.PathLike[str] | Run
    Data = str | os.PathLike[str] | NDArray[np.uint8] | Source
    Target = str | os.PathLike[str]
else:
    RunName = Data = Target = str  # what the command line can give

LOOKS = {"neighbours": "Nearest neighbours", "map": "Map of the embedding", "label-free": "Without labels"}


@dataclass(frozen=True)
class Reported(Printable):
    """The report that was written, its size in bytes, and what it had to leave out."""

    path: Path
    size: int
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "size": self.size, "notes": list(self.notes)}

    def __rich__(self) -> str:
        return "\n".join([f"{self.path}: {self.size / 1e6:.1f} MB, one file, opens in any browser", *self.notes])


def report(
    run: RunName,
    /,
    *,
    data: Data | None = None,
    test: Data | None = None,
    labels: str | None = None,
    test_labels: str | None = None,
    out: Target | None = None,
    scratch: bool = True,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Reported:
    """Write what a run did and what it is worth as one HTML file that needs no network.

    The few-label numbers are those of the run's evaluation.json; where there is none, or it is of other data, they are
    measured on the labelled data given here, as `evaluate` does. Images, neighbours, map, confusion matrix and
    label-free measures come from up to 2,000 random samples of these data, else of those that the run was trained on;
    where they are gone, the report says so.

    Args:
        run: A run folder, finished or not.
        data: Labelled data; by default the data of the run.
        test: Labelled data to measure on; by default a fifth of every class of the data, set aside.
        labels: Where the labels of the data are: 'folders', a CSV file (path,label) or an .npz file with y.
        test_labels: The same for the test data.
        out: The file to write; by default report.html in the run folder.
        scratch: Whether to train from scratch too where the few-label numbers are measured, which takes the longest.
        seed: Which samples are shown; seed of the evaluation.
        device: auto, cpu, cuda or mps.
        quiet: No progress bar.

    Raises:
        UserError: For a folder that is no run, or data that cannot be opened.
        RunFailed: If the file cannot be written.
    """
    from selfsup.base.writing import write_atomically
    from selfsup.data.open import open_data
    from selfsup.reports import story
    from selfsup.reports.few_labels import few_labels
    from selfsup.reports.looks import free_labels, no_data
    from selfsup.reports.page import page
    from selfsup.train.device import make_fabric

    check_numbers(seed=seed)
    run = run if isinstance(run, Run) else Run(run)
    path = Path(out) if out is not None else run.folder / "report.html"
    check_new_file(path)
    source, note = _source(run, data, labels)
    held_out = open_data(test, test_labels) if test is not None else None
    saved, unmeasured = _evaluation(run, source, held_out, data is not None, scratch, seed, device, quiet)
    placed = make_fabric(device, "float32").device
    notes = [note, unmeasured]

    sections = [story.what_was_done(run, note)]
    sections.append(
        free_labels(run, source, seed) if source else no_data("inputs", "Samples and their free labels", note)
    )
    sections += [story.training(run, story.read_lines(run.folder / "metrics.jsonl")), few_labels(saved, unmeasured)]
    sections += _looks(run, source, held_out, note, seed, placed, quiet)
    sections.append(story.skipped(story.read_lines(run.folder / "skipped.jsonl")))
    written = page(f"{run.task} · {run.encoder_name}", _lead(run, saved), sections)
    write_atomically(path, written)
    return Reported(path, len(written), tuple(note for note in notes if note))


def _source(run: Run, data: Any, labels: str | None) -> tuple[Source | None, str]:
    """Return the data to look at, None where they are gone, and what has to be said about them."""
    from selfsup.data import open_data
    from selfsup.data.labels import with_labels

    noted = run.recipe.get("data", {})
    if data is None and str(noted.get("name")).startswith("hf:"):
        return None, f"The run was trained on {noted['name']}, which is downloaded only where --data names it."
    try:
        source = open_data(str(noted.get("name")) if data is None else data)
    except UserError as error:
        if data is not None:
            raise
        return None, f"The data of the run are no longer to be found ({error}). Give them with --data to see samples."
    try:
        trained_on = with_labels(source, noted["labels"]) if noted.get("labels") else source
        same = trained_on.fingerprint() == noted.get("fingerprint")
    except UserError:
        trained_on, same = source, False
    source = with_labels(source, labels) if labels else trained_on if data is None else source
    if same:
        return source, ""
    if data is None:
        return source, f"{source.name} has changed since the run was trained on it."
    return source, f"The samples below are of {source.name}, not of the data of the run."


def _evaluation(
    run: Run,
    source: Source | None,
    test: Source | None,
    asked: bool,
    scratch: bool,
    seed: int,
    device: str,
    quiet: bool,
) -> tuple[Evaluation | None, str]:
    """Return the numbers of the few-label evaluation, as saved or as measured now, or why there are none."""
    from selfsup.commands.evaluate import evaluate
    from selfsup.evaluation.result import Evaluation

    path = run.folder / "evaluation.json"
    saved = Evaluation.load(path) if path.exists() else None
    if not asked or source is None or (saved and saved.about.get("data", {}).get("name") == source.name):
        return saved, "" if saved else "Few-label numbers were not measured: give labelled data with --data."
    if not run.done:
        return saved, "" if saved else "Few-label numbers were not measured: the run is unfinished."
    if source.labels is None or not (source.labels.ids >= 0).any():
        return saved, "" if saved else f"Few-label numbers were not measured: {source.name} has no labels."
    return evaluate(run, data=source, test=test, scratch=scratch, seed=seed, device=device, quiet=quiet), ""


def _looks(
    run: Run, source: Source | None, test: Source | None, note: str, seed: int, device: Any, quiet: bool
) -> list[Section]:
    """Return what is seen with the encoder's eyes, or why nothing is."""
    from selfsup.reports import looks
    from selfsup.reports.items import gather
    from selfsup.source import Broken

    if source is None or not run.done:
        why = note if source is None else "The run is unfinished: its encoder is written at the end."
        return [looks.no_data(name, title, why) for name, title in LOOKS.items()]
    encoder = run.load()
    try:
        items = gather(encoder, source, run.spec, device, seed, quiet)
        others = gather(encoder, test, run.spec, device, seed, quiet) if test is not None else None
    except Broken as error:
        why = f"The data cannot be read: {error}."
        return [looks.no_data(name, title, why) for name, title in LOOKS.items()]
    parts = [looks.nearest_items(items, seed), looks.the_map(items, seed)]
    if items.classes:
        parts.append(looks.confusion(*_halves(items, others, seed)))
    return [*parts, looks.label_free(items)]


def _halves(items: Items, test: Items | None, seed: int) -> tuple[Items, Items]:
    """Return items to train on and to test on, with the same numbering of classes."""
    from selfsup.evaluation.parts import align
    from selfsup.evaluation.probe import stratified_folds
    from selfsup.source import Labels

    if test is None:
        held_out = stratified_folds(items.ids, 5, seed) == 0
        return items.take(~held_out), items.take(held_out)
    own, others = align(Labels(items.ids, items.classes), Labels(test.ids, test.classes))
    return replace(items, classes=own.classes), replace(test, ids=others.ids, classes=others.classes)


def _lead(run: Run, saved: Evaluation | None) -> Html:
    from selfsup.reports.few_labels import headline
    from selfsup.reports.page import join, tag

    steps, state = run.recipe["plan"]["steps"], "finished" if run.done else "unfinished"
    cards = [tag("div", tag("dt", "run"), tag("dd", state, tag("small", f"{steps:,} steps planned")))]
    for name, accuracy, words in headline(saved):
        cards.append(tag("div", tag("dt", name), tag("dd", accuracy, tag("small", words))))
    folder = tag(
        "p",
        f"Run folder {run.folder}. ",
        f"{saved.about['metric'].capitalize()} on held-out samples." if saved else "",
        class_="soft",
    )
    return join([folder, tag("dl", *cards, class_="cards")])
