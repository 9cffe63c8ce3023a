"""The report of a run: which data it shows, its sections, and the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selfsup.base.printing import Printable
from selfsup.base.writing import write_atomically
from selfsup.data import open_data
from selfsup.data.labels import LabelsGiven, with_labels
from selfsup.errors import UserError
from selfsup.evaluation.parts import align
from selfsup.evaluation.probe import stratified_folds
from selfsup.evaluation.result import Evaluation
from selfsup.reports import samples, story
from selfsup.reports.dense import patch_sections
from selfsup.reports.few_labels import few_labels, headline
from selfsup.reports.items import Items, gather
from selfsup.reports.page import Html, Section, join, page, tag
from selfsup.run import Run
from selfsup.source import Broken, Labels, Source

BY_ENCODER = {"neighbours": "Nearest neighbours", "map": "Map of the embedding", "label-free": "Without labels"}


@dataclass(frozen=True, repr=False)
class Reported(Printable):
    """The report that was written, its size in bytes, and notes about what it leaves out."""

    path: Path
    size: int
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"path": str(self.path), "size": self.size, "notes": list(self.notes)}

    def __rich__(self) -> str:
        return "\n".join([f"{self.path}: {self.size / 1e6:.1f} MB, one file, opens in any browser", *self.notes])


def find_data(run: Run, data: Any, labels: LabelsGiven | None) -> tuple[Source | None, str]:
    """Return the data to show, None if they are gone, and a note about them."""
    noted = run.recipe.get("data", {})
    if data is None and str(noted.get("name")).startswith("hf:"):
        return None, f"The run was trained on {noted['name']}, which is downloaded only if --data names it."
    try:
        source = open_data(str(noted.get("name")) if data is None else data)
    except UserError as error:
        if data is not None:
            raise
        reason = str(error).partition("; ")[0]  # names of other data are no help here
        return None, f"The data of the run can no longer be found ({reason}). Give them with --data to see samples."
    try:
        trained_on = with_labels(source, noted["labels"]) if noted.get("labels") else source
        same = trained_on.fingerprint() == noted.get("fingerprint")
    except UserError:
        trained_on, same = source, False
    source = with_labels(source, labels) if labels is not None else trained_on if data is None else source
    if same:
        return source, ""
    if data is None:
        return source, f"{source.name} has changed since the run was trained on it."
    return source, f"The samples below are of {source.name}, not of the data of the run."


def load_evaluation(run: Run) -> Evaluation | None:
    """Return the run's evaluation.json, None if there is none."""
    path = run.folder / "evaluation.json"
    return Evaluation.load(path) if path.exists() else None


def why_not_evaluate(
    run: Run, source: Source | None, test: Source | None, saved: Evaluation | None, given: bool
) -> str | None:
    """Return why the few-label numbers are not measured now, '' where saved ones are shown; None if they should be.

    `given`: whether the user gave data, test data or labels. Saved numbers are of these where their fingerprints, which
    include the labels, are the same.
    """
    if saved and (not given or (source is not None and _measured_on(saved, source, test))):
        return ""
    if not given or source is None:
        reason = "give labelled data with --data"
    elif not run.done:
        reason = "the run is unfinished"
    elif source.labels is None or not (source.labels.ids >= 0).any():
        reason = f"{source.name} has no labels"
    else:
        return None
    shown = "; those of evaluation.json are of other data or labels" if saved else ""
    return f"Few-label numbers were not measured: {reason}{shown}."


def _measured_on(saved: Evaluation, source: Source, test: Source | None) -> bool:
    """Tell whether saved numbers are of these data and labels; test data that are not given may be any."""
    data, tested = (saved.about.get(part, {}).get("fingerprint") for part in ("data", "test"))
    return data == source.fingerprint() and (test is None or tested == test.fingerprint())


def write_report(
    run: Run,
    path: Path,
    source: Source | None,
    test: Source | None,
    evaluation: Evaluation | None,
    notes: tuple[str, str],
    *,
    seed: int,
    device: torch.device,
    quiet: bool,
) -> Reported:
    """Write the report; `notes` are about the data, and about numbers that were not measured."""
    about_data, unmeasured = notes
    sections = [
        story.what_was_done(run, about_data),
        samples.free_labels(run, source, seed)
        if source
        else samples.no_data("inputs", "Samples and their free labels", about_data),
        story.training(run, story.read_lines(run.folder / "metrics.jsonl")),
        few_labels(evaluation, unmeasured),
        *_by_encoder(run, source, test, evaluation, about_data, seed, device, quiet),
        story.skipped(story.read_lines(run.folder / "skipped.jsonl")),
    ]
    written = page(f"{run.task} · {run.encoder_name}", _lead(run, evaluation), sections)
    write_atomically(path, written)
    return Reported(path, len(written), tuple(filter(None, notes)))


def _by_encoder(
    run: Run,
    source: Source | None,
    test: Source | None,
    evaluation: Evaluation | None,
    note: str,
    seed: int,
    device: Any,
    quiet: bool,
) -> list[Section]:
    """Return the sections that need the encoder, or why they are empty."""
    if source is None or not run.done:
        why = note if source is None else "The run is unfinished: its encoder is written at the end."
        return [samples.no_data(name, title, why) for name, title in BY_ENCODER.items()]
    encoder = run.load()
    try:
        items = gather(encoder, source, run.spec, device, seed, quiet)
        others = gather(encoder, test, run.spec, device, seed, quiet) if test is not None else None
    except Broken as error:
        why = f"The data cannot be read: {error}."
        return [samples.no_data(name, title, why) for name, title in BY_ENCODER.items()]
    parts = [samples.nearest_items(items, seed, source), samples.the_map(items, seed)]
    parts += patch_sections(encoder, source, run.spec, evaluation, run.folder, device, seed)
    if items.classes:
        parts.append(samples.confusion(*_halves(items, others, seed)))
    return [*parts, samples.label_free(items)]


def _halves(items: Items, test: Items | None, seed: int) -> tuple[Items, Items]:
    """Return items to train on and to test on, with the same numbering of classes."""
    if test is None:
        held_out = stratified_folds(items.ids, 5, seed) == 0
        return items.take(~held_out), items.take(held_out)
    own, others = align(Labels(items.ids, items.classes), Labels(test.ids, test.classes))
    return replace(items, classes=own.classes), replace(test, ids=others.ids, classes=others.classes)


def _lead(run: Run, saved: Evaluation | None) -> Html:
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
