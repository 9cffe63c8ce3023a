"""From a checked request to an evaluation: every representation by every protocol, and what to beware of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.few_labels import FROZEN, read_features, train_on_draws
from selfsup.evaluation.frozen import Poolings, encode, encode_tokens, has, principal_components
from selfsup.evaluation.labels_saved import Saved, labels_saved
from selfsup.evaluation.problems import about_classes, check_classes, overlap
from selfsup.evaluation.readings import take_readings, task_views, view_features
from selfsup.evaluation.reference import Reference
from selfsup.evaluation.result import Evaluation, Score
from selfsup.evaluation.targets import Target, chance, draw_labels, read_shots, truth
from selfsup.run import Run
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.semi.s4l import S4L
from selfsup.tasks.semi.supervised import Supervised


class Request(NamedTuple):
    """What `evaluate` was asked for, opened and checked."""

    run: Run
    encoder: nn.Module
    train: Source
    test: Source
    pool: Callable[[NDArray[np.int64]], Source]  # those of train with these numbers, then those without a label
    target: Target
    shots: str | Sequence[int | None] | None
    protocols: tuple[str, ...]
    readings: tuple[str, ...]
    draws: int
    scratch: bool
    semi: bool
    reference: Reference | None
    seed: int
    held_out: bool  # the test part was set aside from the data
    quiet: bool


def measure(asked: Request, fabric: Fabric) -> Evaluation:
    """Return the evaluation. Raises `UserError` for labels that do not allow it, before the work begins."""
    target, spec = asked.target, asked.run.spec
    shots = _checked(asked)
    pixels: list[NDArray[np.float32]] = []
    parts: list[Source] = []
    read: list[NDArray[np.int64]] = []
    own = baseline(spec.kind)
    for part in (asked.train, asked.test):
        part.conform(spec)
    found = own.features((asked.train, asked.test), spec, asked.quiet)
    for part, (numbers, features) in zip((asked.train, asked.test), found, strict=True):
        parts.append(part.take(numbers))
        read.append(numbers)
        pixels.append(features)
    train, test = parts
    assert train.labels is not None
    assert test.labels is not None
    y, wanted = truth(target, train.labels), truth(target, test.labels)
    draws = draw_labels(train, shots, asked.draws, asked.seed, target)
    classes = len(train.labels.classes)

    scores: list[Score] = []
    shown = ""
    readings: dict[str, dict[str, float]] = {}
    ids = test.labels.ids if target.name == "classes" else None
    frozen = tuple(protocol for protocol in asked.protocols if protocol in FROZEN)
    copies: tuple[dict[str, int], list[str]] = ({}, [])
    for name, module, mine, x, test_x in _frozen(asked, (train, test), (pixels[0], pixels[1]), fabric):
        readers = tuple(p for p in frozen if p != "attentive" or "tokens" in x)
        scores += read_features(
            name, x, test_x, y, wanted, classes, draws, readers, target, own.STANDARDISED or name != own.NAME
        )
        if asked.readings and module is not None:
            several = None
            if "label-free" in asked.readings:
                views, shown = task_views(asked.run.fresh_task(), mine)
                several = view_features(module, test, mine, views, fabric.device, asked.seed)
            readings[name] = take_readings(asked.readings, test_x["own"], ids, several, asked.seed)
        if name == asked.run.task:
            copies = overlap(train, test, x["own"], test_x["own"])
    for name, protocol, make in _trained(asked, classes):
        pool = asked.pool(read[0])  # the draws are numbers of its first part
        scores += train_on_draws(name, make, pool, test, draws, spec, fabric, asked.seed, asked.quiet, protocol)

    unreadable = len(asked.train) + len(asked.test) - len(train) - len(test)
    warnings = copies[1] + (about_classes(train.labels, test.labels, shots) if target.name == "classes" else [])
    if unreadable:
        warnings.append(f"{unreadable:,} samples could not be read and are left out")
    level, guess = chance(target, wanted)
    about: dict[str, Any] = {
        "run": str(asked.run.folder), "task": asked.run.task, "encoder": asked.run.encoder_name,
        "target": target.name, "metric": next(iter(target.metrics)), "unit": target.unit, "classes": classes,
        "draws": asked.draws, "seed": asked.seed,
        "data": {"name": train.name, "samples": len(train)},
        "test": {"name": test.name, "samples": len(test), "held out": asked.held_out},
        "labels": {
            "all" if k is None else str(k): len(rows) / (classes if target.name == "classes" else 1)
            for k, rows in draws[0].items()
        },
        "unreadable": unreadable, "duplicates": copies[0], "chance": {"value": level, "words": guess},
        "warnings": warnings, "protocols": _PROTOCOLS | dict(own.ABOUT),
    }  # fmt: skip
    if target.name == "classes":
        about["majority"] = level
    if "label-free" in asked.readings:
        about["views"] = shown
    return Evaluation(about, tuple(scores), _saved(scores, about, asked), readings)


_PROTOCOLS = {
    "linear": "logistic (numbers: ridge) regression on standardised features; penalty, and of an encoder with maps the "
    "pooling (its own, mean, 2×2), by cross-validation on the drawn labels",
    "knn": "cosine, weighted votes, k by leave-one-out on the drawn labels",
    "attentive": "one learned query over the tokens, then linear; AdamW, 300 steps, weight decay by a held-out fifth "
    "of the drawn labels",
    "trained": "AdamW 0.002, batch up to 32, 30 passes, 200 to 400 steps, the views of the run; "
    "s4l: 400 steps of 64 samples and 64 labelled ones, all upright, with the pretext of the run",
    "finetune": "as trained, from the pretrained encoder, AdamW 0.0005",
}


def _checked(asked: Request) -> list[int | None]:
    """Return the shots, once everything that can be wrong with the labels is known not to be."""
    train, test, target = asked.train.labels, asked.test.labels, asked.target
    assert train is not None
    assert test is not None
    if target.name == "classes":
        check_classes(train, test, asked.train.name)
    truth(target, train)
    truth(target, test)
    shots = read_shots(asked.shots, target, train)
    draw_labels(asked.train, shots, asked.draws, asked.seed, target)
    return shots


def _frozen(
    asked: Request,
    parts: tuple[Source, Source],
    pixels: tuple[NDArray[np.float32], NDArray[np.float32]],
    fabric: Fabric,
) -> Iterator[tuple[str, nn.Module | None, Any, Poolings, Poolings]]:
    """Yield the name, module and spec of each frozen representation, and its features of both parts."""
    spec = asked.run.spec
    torch.manual_seed(asked.seed + 1)
    encoders: list[tuple[str, nn.Module, Any]] = [
        (asked.run.task, asked.encoder, spec),
        ("untrained", asked.run.fresh_encoder(), spec),
    ]
    if asked.reference is not None:
        encoders.append((asked.reference.name, asked.reference.encoder, asked.reference.spec))
    for name, encoder, mine in encoders:
        x, test_x = encode(encoder, parts, mine, fabric.device, "linear" in asked.protocols, asked.quiet)
        if "attentive" in asked.protocols and (name == asked.run.task or has(encoder, "tokens")):
            tokens = encode_tokens(encoder, parts, mine, fabric.device, asked.quiet)
            x, test_x = {**x, "tokens": tokens[0]}, {**test_x, "tokens": tokens[1]}
        yield name, encoder, mine, x, test_x
    yield "PCA", None, spec, *principal_components(*pixels)
    own = baseline(spec.kind)
    yield own.NAME, own.module(), spec, {"own": pixels[0]}, {"own": pixels[1]}


def _trained(asked: Request, classes: int) -> Iterator[tuple[str, str, Callable[[], Task]]]:
    """Yield the name, protocol and factory of each classifier that is trained whole on the drawn labels."""
    run, given = asked.run, asked.run.recipe["task"]["hyperparameters"]
    options = {key: given[key] for key in Supervised.hyperparameters().keys() & given.keys() - {"num_classes"}}
    if "finetune" in asked.protocols:
        pretrained: Any = asked.encoder.cpu().requires_grad_(True)
        yield run.task, "finetune", lambda: Supervised(copy.deepcopy(pretrained), num_classes=classes, **options)
    if asked.scratch:
        yield "from scratch", "trained", lambda: Supervised(run.fresh_encoder(), num_classes=classes, **options)
    if asked.semi:
        own = run.task in TASKS and not find_task(run.task).needs_labels
        pretext = {"pretext": run.task, "options": given} if own else {}
        yield (
            "s4l",
            "trained",
            lambda: S4L(run.fresh_encoder(), num_classes=classes, rotate_labelled=False, **options, **pretext),
        )


def _saved(scores: Sequence[Score], about: dict[str, Any], asked: Request) -> dict[str, tuple[Saved, ...]]:
    """Return, by protocol, what training from scratch needs to be as good as the run's encoder."""

    def curve(name: str, protocol: str) -> dict[float, tuple[float, ...]]:
        mine = [score for score in scores if (score.representation, score.protocol) == (name, protocol)]
        mine.sort(
            key=lambda score: len(score.values)
        )  # several draws count more than all labels, where both are as many
        return {about["labels"]["all" if s.shots is None else str(s.shots)]: s.values for s in mine}

    scratch = curve("from scratch", "trained")
    if not scratch:
        return {}
    found = {protocol: curve(asked.run.task, protocol) for protocol in asked.protocols}
    return {p: tuple(labels_saved(ours, scratch, seed=asked.seed)) for p, ours in found.items() if ours}
