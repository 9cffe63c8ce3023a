"""Frozen features of frames, read with few labelled frames, beside the frames themselves and an untrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.base.progress import counting
from selfsup.errors import UserError
from selfsup.evaluation.baselines import baseline, frame_baselines
from selfsup.evaluation.draws import nested_subsets
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.features import feature_batches
from selfsup.evaluation.few_labels import Values, make_score, read_features
from selfsup.evaluation.frame_parts import FrameParts
from selfsup.evaluation.frozen import FrozenEncoder, has
from selfsup.evaluation.measuring import Sampling
from selfsup.evaluation.problems import about_classes, about_copies, about_steps
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.targets import TARGETS, Draws
from selfsup.run import Run
from selfsup.train.recalibrate import recalibrate
from selfsup.views import window_views

BATCH = 64  # windows at a time: encoders of sounds make much of each


def measure_frames(
    run: Run,
    encoders: Sequence[FrozenEncoder],
    parts: FrameParts,
    sampling: Sampling,
    *,
    protocols: Sequence[str],
    device: torch.device,
    quiet: bool,
) -> Evaluation:
    """Return the evaluation of a run's encoder on frames, beside its baselines.

    Args:
        run: the finished run.
        encoders: the encoder of the run, and others as baselines; those without frames are left out.
        parts: the labelled frames.
        sampling: how labelled frames are drawn from the training samples.
        protocols: keys of `EVALUATORS`.
        device: where it is computed.
        quiet: no progress.

    Raises:
        UserError: more labels asked for than there are, or labels of one class alone.
    """
    target, spec, (shots, count, seed) = TARGETS["frames"], run.spec, sampling
    each = -(-count // parts.num_folds)
    for fold in range(parts.num_folds):
        _draw(parts, fold, shots, each, seed)
    training = parts.training_samples()
    for one in encoders:
        if one.untrained:
            recalibrate(one.encoder, training, spec, seed=seed, device=device)
    own: Any = encoders[0].encoder
    times = own.frame_times()
    modules = {one.name: (one.encoder, True) for one in encoders if has(one.encoder, "frames")}
    modules |= {name: (one, baseline(spec.kind).STANDARDISED) for name, one in frame_baselines(spec).items()}
    features, read = {}, np.ones(len(parts.sample), bool)
    for name, (module, _) in modules.items():
        features[name], found = read_frames(module, parts, times, spec, device, quiet)
        read &= found
    used = parts.some(read)
    values: Values = {}
    for fold in range(parts.num_folds):
        train, test = np.flatnonzero(used.fold != fold), np.flatnonzero(used.fold == fold)
        draws = _draw(used, fold, shots, each, seed)
        labels, truth = used.labels.take(train), used.labels.ids[test]
        for name, (_, per_feature) in modules.items():
            x = features[name][read]
            pool, tested = {"own": x[train]}, {"own": x[test]}
            metrics_by_row = read_features(name, protocols, pool, tested, labels, truth, draws, target, per_feature)
            for key, metrics in metrics_by_row.items():
                values.setdefault(key, []).extend(metrics)
    scores = tuple(make_score(*key, found) for key, found in values.items())
    return Evaluation(_about(run, used, draws, sampling, int((~read).sum())), scores)


def read_frames(
    encoder: Any, parts: FrameParts, times: NDArray[np.float64], spec: Any, device: torch.device, quiet: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the features (n, dim) float32 of the frames, and which of them (n,) could be read.

    `times` (T,) are those of the frames by which places are counted; an encoder of another rate is read at the frame
    that is nearest in time.
    """
    place = np.abs(encoder.frame_times() - times[:, None]).argmin(1)[parts.place]
    features, read = np.empty((0, 0), np.float32), np.zeros(len(place), bool)
    needed, window = np.unique(parts.window, return_inverse=True)
    bounds = np.searchsorted(needed, np.cumsum([0, *map(len, parts.windows)]))
    order = np.argsort(window, kind="stable")
    with counting("reading frames", len(needed), quiet) as advance:
        for number, spans in enumerate(parts.windows):
            first, offset = bounds[number], sum(map(len, parts.windows[:number]))
            some = spans.take(needed[first : bounds[number + 1]] - offset)
            if not len(some):
                continue
            for found, x in feature_batches(_Frames(encoder), some, spec, BATCH, device, window_views(spec)):
                rows = order[np.isin(window[order], found + first)]
                if not features.size:
                    features = np.zeros((len(place), x.shape[2]), np.float32)
                features[rows] = x[np.searchsorted(found, window[rows] - first), place[rows]]
                read[rows] = True
                advance(len(found))
    return features, read


class _Frames(nn.Module):
    """A module by its `frames`."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder.frames(x)


def _draw(parts: FrameParts, fold: int, shots: Sequence[int | None], draws: int, seed: int) -> Draws:
    """Return draws of the frames that a fold is not measured on; `UserError` for one with a single class."""
    ids = parts.labels.ids[parts.fold != fold]
    asked = [count for count in shots if count is not None]
    if asked and max(asked) > len(ids):
        raise UserError(f"{max(asked):,} labelled frames asked for, but there are {len(ids):,} to draw from")
    found = nested_subsets(len(ids), shots, draws, seed + fold)
    for number in (count for draw in found for count, rows in draw.items() if len(np.unique(ids[rows])) < 2):
        what = "all" if number is None else f"{number:,} drawn"
        raise UserError(f"{what} labelled frames are of one class; at least two are needed: give more --shots")
    return found


def _about(run: Run, parts: FrameParts, draws: Draws, sampling: Sampling, unreadable: int) -> dict[str, Any]:
    target, labels = TARGETS["frames"], parts.labels
    train, test = (np.flatnonzero(measured) for measured in (parts.fold < 0, parts.fold >= 0))
    train = test if parts.num_folds > 1 else train
    truth, test_samples = labels.ids[test], int((parts.folds >= 0).sum())
    data, *others = parts.sources
    copies = parts.copies()
    warnings = about_copies({"same": copies, "near": [], "alike": []}, test_samples)
    warnings += about_classes(labels.take(train), labels.take(test), [None])
    drawn_of = parts.counts["labelled"] - unreadable
    if len(parts.sample) < drawn_of:
        warnings.append(f"of {drawn_of:,} labelled frames, {len(parts.sample):,} drawn ones are used")
    if unreadable:
        warnings.append(f"{unreadable:,} frames could not be read and are left out")
    steps = int(run.recipe["plan"]["steps"])
    warnings += about_steps(steps)
    level = target.chance(truth)
    return {
        "run": str(run.folder), "task": run.task, "encoder": run.encoder_name, "steps": steps,
        "target": target.name, "metric": next(iter(target.metrics)), "unit": target.unit,
        "classes": len(labels.classes), "draws": sampling.draws, "folds": parts.num_folds, "seed": sampling.seed,
        "groups": parts.counts.get("groups"),
        "data": {
            "name": data.name, "samples": int((parts.folds[: len(data)] > -2).sum()), "frames": len(train),
            "fingerprint": data.fingerprint(),
        },
        "test": {
            "name": others[0].name if others else data.name, "samples": test_samples, "frames": len(test),
            "held out": not others, "fingerprint": others[0].fingerprint() if others else None,
        },
        "frames": {"all": parts.counts["asked"], "labelled": parts.counts["labelled"]},
        "labels": {"all" if k is None else str(k): len(drawn) for k, drawn in draws[0].items()},
        "unreadable": unreadable, "duplicates": {"same": len(copies)},
        "chance": {"value": level, "words": target.guess}, "majority": level,
        "warnings": warnings,
        "protocols": {name: one.about for name, one in EVALUATORS.items() if target.name in one.targets}
        | dict(baseline(run.spec.kind).ABOUT),
    }  # fmt: skip
