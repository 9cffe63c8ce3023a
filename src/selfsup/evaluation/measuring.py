"""The evaluation itself: every representation by every protocol, further metrics, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.drawn import Poolings
from selfsup.evaluation.draws import Shots
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.extra_metrics import EXTRA_METRICS, Measured, measure_features, task_views, view_features
from selfsup.evaluation.few_labels import TRAINED, Classifier, Values, make_score, read_features, train_on_draws
from selfsup.evaluation.frozen import FrozenEncoder, encode, encode_tokens, has, project
from selfsup.evaluation.labels_saved import Saved, labels_saved
from selfsup.evaluation.parts import Parts, labels_of
from selfsup.evaluation.problems import about_classes, about_copies, about_steps, overlap
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.score import Score, count_labels
from selfsup.evaluation.targets import draw_labels
from selfsup.run import Run
from selfsup.source import Source
from selfsup.train.recalibrate import recalibrate

UNLABELLED = 30_000  # samples without a label that are used, at most


class Sampling(NamedTuple):
    """How labels are drawn: the numbers of labels (None: all), how many draws, and their seed."""

    shots: Sequence[Shots]
    draws: int
    seed: int


class Frozen(NamedTuple):
    """A frozen representation, and its features of both parts; `encoder` is None where no module makes them."""

    name: str
    encoder: nn.Module | None
    spec: Any
    pool: Poolings  # of the training samples, and after them of those without a label
    test: Poolings
    per_feature: bool = True  # see `Drawn`

    def of(self, used: NDArray[np.bool_], tested: NDArray[np.bool_]) -> Frozen:
        """Return the same of some samples of both parts."""
        if used.all() and tested.all():
            return self
        pool, test = ({k: x[rows] for k, x in part.items()} for part, rows in ((self.pool, used), (self.test, tested)))
        return self._replace(pool=pool, test=test)


def measure(
    run: Run,
    encoders: Sequence[FrozenEncoder],
    parts: Parts,
    sampling: Sampling,
    *,
    protocols: Sequence[str],
    metrics: Sequence[str],
    classifiers: Sequence[Classifier],
    fabric: Fabric,
    quiet: bool,
) -> Evaluation:
    """Return the evaluation of a run's encoder beside its baselines.

    Args:
        run: the finished run.
        encoders: the encoder of the run, and others as baselines.
        parts: the labelled data.
        sampling: how labels are drawn from the training part.
        protocols: keys of `EVALUATORS`, and others that are those of `classifiers`.
        metrics: keys of `EXTRA_METRICS`.
        classifiers: rows that are trained whole on each draw.
        fabric: where it is computed.
        quiet: no progress.

    Raises:
        UserError: labels that do not allow it, before the work begins.
    """
    target, spec, (shots, count, seed) = parts.target, run.spec, sampling
    draw_labels(parts.train, shots, count, seed, target)
    for part in (parts.train, parts.test):
        part.conform(spec)
    raw = baseline(spec.kind)
    pool = parts.pool(UNLABELLED if target.by_class else 0, seed)
    (kept, x), (test_kept, test_x) = raw.features((pool, parts.test), spec, quiet)
    own = Frozen(raw.NAME, raw.module(spec), spec, {"own": x}, {"own": test_x}, raw.STANDARDISED)
    for one in encoders:
        if one.untrained:
            recalibrate(one.encoder, pool, one.spec, seed=seed, device=fabric.device)
    rows = [*_encoded(encoders, (pool, parts.test), protocols, fabric.device, quiet), own]
    num_train = int((kept < len(parts.train)).sum())
    pool, train, test = pool.take(kept), parts.train.take(kept[:num_train]), parts.test.take(test_kept)
    values: Values = {}
    copies: dict[str, list[str]] = {}
    for fold in range(parts.num_folds):
        used, tested = np.ones(len(pool), bool), np.ones(len(test), bool)
        if parts.folds is not None:
            used[:num_train], tested = parts.folds[kept[:num_train]] != fold, parts.folds[test_kept] == fold
        fold_pool = pool.take(np.flatnonzero(used))
        fold_train, fold_test = train.take(np.flatnonzero(used[:num_train])), test.take(np.flatnonzero(tested))
        draws = draw_labels(fold_train, shots, -(-count // parts.num_folds), seed + fold, target)
        labels, truth = labels_of(fold_train), target.truth(labels_of(fold_test))
        *encoded, own = (row.of(used, tested) for row in rows)
        for row in (*encoded, Frozen("PCA", None, spec, *project(own.pool["own"], own.test["own"])), own):
            names = [name for name in protocols if name in EVALUATORS]
            names = [name for name in names if EVALUATORS[name].features != "tokens" or "tokens" in row.pool]
            _add(
                values,
                read_features(row.name, names, row.pool, row.test, labels, truth, draws, target, row.per_feature),
            )
        for classifier in classifiers:  # the draws are numbers of the first samples of the pool
            _add(values, train_on_draws(classifier, fold_pool, fold_test, draws, spec, fabric, seed + fold, quiet))
        features = encoded[0].pool["own"][: len(fold_train)], encoded[0].test["own"]
        images = raw.images(own.pool["own"][: len(fold_train)], own.test["own"], spec)
        for kind, paths in overlap(fold_train, fold_test, features, images).items():
            copies.setdefault(kind, []).extend(paths)
    scores = [make_score(*key, found) for key, found in values.items()]
    labels, truth = labels_of(train), target.truth(labels_of(test))
    found: dict[str, dict[str, float]] = {}
    shown = ""
    for row in rows:
        if metrics and row.encoder is not None:
            several = np.empty((0, 0, 0), np.float32)
            if any(EXTRA_METRICS[name].needs_views for name in metrics):
                views, shown = task_views(run.fresh_task(), test, row.spec)
                several = view_features(row.encoder, test, row.spec, views, fabric.device, seed)
            ids = truth if target.by_class else None
            found[row.name] = measure_features(metrics, Measured(row.test["own"], ids, several, seed))
    warnings = about_copies(copies, len(test))
    if target.by_class:
        warnings += about_classes(labels, labels_of(test), shots)
        if len(parts.unlabelled) > UNLABELLED:
            warnings.append(f"of {len(parts.unlabelled):,} samples without a label, {UNLABELLED:,} drawn ones are used")
    unreadable = len(parts.train) - len(train) + (len(parts.test) - len(test) if parts.folds is None else 0)
    if unreadable:
        warnings.append(f"{unreadable:,} samples could not be read and are left out")
    steps = int(run.recipe["plan"]["steps"])
    warnings += about_steps(steps)
    num_classes, level = len(labels.classes), target.chance(truth)
    about: dict[str, Any] = {
        "run": str(run.folder), "task": run.task, "encoder": run.encoder_name,
        "steps": steps,
        "target": target.name, "metric": next(iter(target.metrics)), "unit": target.unit, "classes": num_classes,
        "draws": count, "folds": parts.num_folds, "seed": seed,
        "data": {
            "name": train.name, "samples": len(train), "unlabelled": len(pool) - len(train),
            "fingerprint": parts.data.fingerprint(),
        },
        "test": {
            "name": test.name, "samples": len(test), "held out": parts.held_out,
            "fingerprint": None if parts.test_data is None else parts.test_data.fingerprint(),
        },
        "labels": {
            "all" if k is None else str(k): len(drawn) / (num_classes if target.by_class else 1)
            for k, drawn in draws[0].items()
        },
        "unreadable": unreadable, "duplicates": {kind: len(paths) for kind, paths in copies.items()},
        "chance": {"value": level, "words": target.guess},
        "warnings": warnings,
        "protocols": {name: one.about for name, one in EVALUATORS.items()} | TRAINED | dict(raw.ABOUT),
    }  # fmt: skip
    if target.by_class:
        about["majority"] = level
    if shown:
        about["views"] = shown
    saved, about["saved against"] = _saved(scores, about, protocols)
    return Evaluation(about, tuple(scores), saved, found)


def _add(values: Values, found: Values) -> None:
    for key, metrics in found.items():
        values.setdefault(key, []).extend(metrics)


def _encoded(
    encoders: Sequence[FrozenEncoder],
    parts: tuple[Source, Source],
    protocols: Sequence[str],
    device: torch.device,
    quiet: bool,
) -> Iterator[Frozen]:
    """Yield the features of each encoder that the protocols need; only the first encoder has to have all of them."""
    needed = {EVALUATORS[name].features: name for name in protocols if name in EVALUATORS}
    for place, one in enumerate(encoders):
        name, encoder, spec, _ = one
        x, test_x = encode(one, parts, device, "poolings" in needed, quiet)
        if "tokens" in needed and (place == 0 or has(encoder, "tokens")):
            tokens = encode_tokens(encoder, parts, spec, device, needed["tokens"], quiet)
            x, test_x = {**x, "tokens": tokens[0]}, {**test_x, "tokens": tokens[1]}
        yield Frozen(name, encoder, spec, x, test_x)


def _saved(
    scores: Sequence[Score], about: dict[str, Any], protocols: Sequence[str]
) -> tuple[dict[str, tuple[Saved, ...]], dict[str, str]]:
    """Return, by protocol, how many labels training from scratch needs to be as good as the run's encoder, and which.

    A protocol that uses the unlabelled pool is held against training from scratch that uses it too, and that without,
    whichever is better on average: nobody shall say that the unlabelled samples were the difference.
    """

    def curve(name: str, protocol: str) -> dict[float, tuple[float, ...]]:
        own = [score for score in scores if (score.representation, score.protocol) == (name, protocol)]
        # where `all` is as many labels as some other number, its several draws count more
        return {count_labels(about, s.shots): s.values for s in sorted(own, key=lambda score: len(score.values))}

    rows = {
        name: found
        for name, protocol in (("from scratch", "trained"), ("from scratch + pool", "self-trained"))
        if (found := curve(name, protocol))
    }
    saved, against = {}, {}
    for protocol in protocols:
        ours, uses_pool = curve(about["task"], protocol), protocol in EVALUATORS and EVALUATORS[protocol].prepare
        rivals = {name: one for name, one in rows.items() if uses_pool or name == "from scratch"}
        if ours and rivals:
            against[protocol] = max(rivals, key=lambda name: np.mean([np.mean(v) for v in rivals[name].values()]))
            saved[protocol] = tuple(labels_saved(ours, rivals[against[protocol]], seed=about["seed"]))
    return saved, against
