"""The sections of the report that show data: free labels, neighbours, map, confusion, label-free measures."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.knn import neighbours
from selfsup.evaluation.probe import fit_probe
from selfsup.reports.embedding_map import draw_map, layout
from selfsup.reports.finding import read_sample
from selfsup.reports.items import SIDE, Items
from selfsup.reports.media import figure, to_media
from selfsup.reports.page import Html, Section, join, table, tag
from selfsup.run import Run
from selfsup.source import Broken, Source
from selfsup.spec import Media
from selfsup.task import Panel
from selfsup.tasks import TASKS, find_task

PANELS, QUERIES, NEAREST = 4, 6, 8
CLASSES = 20  # more make a confusion matrix unreadable
PAIRS = 20
MEASURES = {
    "rankme": ("RankMe", "how many directions carry information, at most samples or dimensions (Garrido et al., 2023)"),
    "effective_dimension": ("effective dimension", "how many directions dominate (Gao et al., 2017)"),
    "alpha_req": ("α-ReQ", "decay of the spectrum; near 1 is considered good (Agrawal et al., 2022)"),
    "uniformity": ("uniformity", "0 is collapse; lower fills the sphere more evenly (Wang and Isola, 2020)"),
    "normalised_std": ("normalized std", "0 is collapse, 1 the same in all directions (Chen and He, 2021)"),
}


def free_labels(run: Run, source: Source, seed: int) -> Section:
    """Return the task's own image: the inputs of the encoder beside their free labels."""
    title = "Samples and their free labels"
    if run.task not in TASKS:  # a recipe never names code to import
        return Section(
            "inputs", title, tag("p", f"{run.task} is not a task of selfsup itself, so its image is not drawn.")
        )
    task_class = find_task(run.task)
    chosen = np.arange(len(source))
    if task_class.needs_labels:
        chosen = np.flatnonzero(source.labels.ids >= 0) if source.labels else chosen[:0]
    if not len(chosen):
        return Section("inputs", title, tag("p", f"{run.task} needs labels, and these data have none."))
    some = np.random.default_rng(seed).permutation(chosen)[:PANELS]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            task = task_class(run.fresh_encoder(), **run.recipe["task"]["hyperparameters"])
            # what a task stores for each sample goes by the numbers of all
            learned = task.samples(source if task_class.keeps_samples else source.take(some))
            apart = np.linspace(0, len(learned) - 1, min(PANELS, len(learned))).astype(np.int64)
            apart, views = some if task_class.keeps_samples else apart, task.views(run.spec)
            rows = task.eval().panels(views.finish(views.fetch(learned, apart, seed, 0).batch))
    except (UserError, Broken, RuntimeError, ValueError, TypeError, IndexError) as error:
        return Section(
            "inputs", title, tag("p", f"The image cannot be drawn for these data: {str(error).splitlines()[0]}")
        )
    drawn = [tag("div", *(_panel(panel, run.spec) for panel in row), class_="row") for row in rows]
    words = "Each row is one sample: the inputs of the encoder, and the labels that the task makes for them."
    return Section("inputs", title, join([tag("p", words), *drawn]))


def nearest_items(items: Items, seed: int, source: Source) -> Section:
    """Return random samples beside those whose features are most similar; sounds can be heard."""
    title = "Nearest neighbours"
    if len(items) < 2:
        return Section("neighbours", title, tag("p", "There are too few samples."))
    queries = np.sort(np.random.default_rng(seed).permutation(len(items))[:QUERIES])
    index, cosine = neighbours(items.features[queries], items.features, min(NEAREST + 1, len(items)))
    rows = []
    for query, found, similarities in zip(queries.tolist(), index.tolist(), cosine.tolist(), strict=True):
        cells = [tag("div", _item(items, query, "query", source), class_="query")]
        others = [(number, s) for number, s in zip(found, similarities, strict=True) if number != query]
        cells += [_item(items, number, f"{similarity:.2f}", source) for number, similarity in others[:NEAREST]]
        rows.append(tag("div", *cells, class_="row"))
    words = (
        f"Random samples, and the most similar of {len(items):,} by the cosine of their features, which is the number."
    )
    return Section("neighbours", title, join([tag("p", words), *rows]))


def the_map(items: Items, seed: int) -> Section:
    """Return the map of the samples."""
    part = "" if len(items) == items.total else f" of {items.total:,}"
    words = (
        f"{len(items):,}{part} samples, placed by t-SNE: similar ones are close, but the distances between groups and "
        "their sizes mean little. Point at a dot, or touch it, to see the sample."
    )
    return Section(
        "map", "Map of the embedding", join([tag("p", words), draw_map(items, layout(items.features, seed))])
    )


def confusion(train: Items, test: Items) -> Section:
    """Return the errors on `test` of a linear probe trained on `train`; both have ids of the same classes."""
    title = "Confusion matrix"
    used, seen = train.ids >= 0, test.ids >= 0
    if not seen.any() or len(np.unique(train.ids[used])) < 2:
        return Section("confusion", title, tag("p", "There are no labels of two classes, so nothing can be confused."))
    if 2 * len(train.classes) > used.sum():
        words = f"{len(train.classes):,} classes among {used.sum():,} labelled samples are too many for a probe."
        return Section("confusion", title, tag("p", words))
    predicted = fit_probe(train.features[used], train.ids[used], len(train.classes)).predict(test.features[seen])
    truth = test.ids[seen]
    counts = np.zeros((len(train.classes),) * 2, np.int64)
    np.add.at(counts, (truth, predicted), 1)
    words = (
        f"Linear probe on {used.sum():,} labelled samples, measured on {seen.sum():,} others: "
        f"{(predicted == truth).mean():.1%} are right. Rows are true classes, columns are predictions."
    )
    drawn = _matrix(counts, train.classes) if len(train.classes) <= CLASSES else _pairs(counts, train.classes)
    return Section("confusion", title, join([tag("p", words), drawn]))


def label_free(items: Items) -> Section:
    """Return the label-free measures."""
    title = "Without labels"
    try:
        module = importlib.import_module("selfsup.evaluation.label_free")
    except ImportError:
        return Section("label-free", title, tag("p", "This version of selfsup has no label-free measures."))
    rows: list[tuple[str, str, str]] = []
    for name, (word, meaning) in MEASURES.items():
        try:
            rows.append((word, tag("td", f"{getattr(module, name)(items.features):.3g}", class_="n"), meaning))
        except UserError as error:
            rows.append((word, "none", str(error)))
    words = (
        f"On {len(items):,} samples of {items.features.shape[1]} dimensions. None of these is an accuracy, and none "
        "ranks encoders of different kinds; together they tell a collapse from a representation."
    )
    return Section("label-free", title, join([tag("p", words), table(["measure", "value", "what it says"], rows)]))


def _panel(panel: Panel, spec: Any) -> Html:
    return figure(to_media(panel.content, spec), f"input with the label {panel.caption}", panel.caption)


def _item(items: Items, number: int, words: str, source: Source) -> Html:
    label = items.label(number)
    caption = join([words, f" · {label}" if label else ""])
    media: Media = items.images[number] or items.words[number]
    if source.kind == "audio" and items.numbers is not None:
        media = read_sample(source, int(items.numbers[number]), SIDE) or media
    return figure(media, items.name(number), caption)


def _matrix(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Html:
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [
        (name, *(
            tag("td", int(count) or "", class_="right" if r == c else "wrong", style=f"--share:{fractions[r, c]:.2f}")
            for c, count in enumerate(counts[r])
        ))
        for r, name in enumerate(classes)
    ]  # fmt: skip
    return tag(
        "div", table(["true", *classes], rows, "Number of samples of each true class by prediction"), class_="confusion"
    )


def _pairs(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Html:
    wrong = counts * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order if wrong.flat[place]]
    rows = [(classes[r], classes[c], int(counts[r, c]), int(counts[r].sum())) for r, c in pairs]
    return table(
        ["true class", "predicted as", "times", "of"], rows, f"The most frequent errors among {len(classes)} classes"
    )


def no_data(name: str, title: str, why: str) -> Section:
    """Return a section that had to be left out, with the reason."""
    return Section(name, title, tag("p", why))
