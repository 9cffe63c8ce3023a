"""What can be read of the state off an observation: R² of numbers, F1 of classes, for each variable, with few labels.

Frozen features of single observations are read with a few labelled frames, beside the pixels, their principal
components, a histogram of colours and an untrained encoder. All frames of an episode are on one side of the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.base.progress import counting
from selfsup.errors import UserError
from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.draws import nested_subsets
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.features import feature_batches
from selfsup.evaluation.few_labels import make_score
from selfsup.evaluation.frozen import FrozenEncoder, project
from selfsup.evaluation.measuring import Sampling
from selfsup.evaluation.metrics import weighted_f1
from selfsup.evaluation.probe import fit_probe
from selfsup.evaluation.problems import about_steps
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.ridge import fit_ridge
from selfsup.evaluation.state_parts import StateParts
from selfsup.evaluation.targets import TARGETS
from selfsup.run import Run
from selfsup.spec import TrajectorySpec
from selfsup.train.recalibrate import recalibrate

DISTRACTOR = "distractor"  # names of variables begin so that should not be readable: no part of the headline
BINS = 4  # of a channel, of the histogram


def measure_states(
    run: Run,
    encoders: Sequence[FrozenEncoder],
    parts: StateParts,
    sampling: Sampling,
    *,
    device: torch.device,
    quiet: bool,
) -> Evaluation:
    """Return the evaluation of a run's encoder on states, beside its baselines.

    Args:
        run: The finished run.
        encoders: The encoder of the run, and others as baselines.
        parts: The observations.
        sampling: How labelled observations are drawn.
        device: Where features are computed.
        quiet: No progress.

    Raises:
        UserError: More labels asked for than there are, or nothing new to measure on.
    """
    spec: Any = run.spec
    shots, count, seed = sampling
    each = -(-count // parts.num_folds)
    splits = [parts.split(fold) for fold in range(parts.num_folds)]
    if min(len(test) for _, test in splits) < 2:
        raise UserError("every observation to measure on looks exactly like one to learn from: give other --test data")
    draws = [nested_subsets(len(train), shots, each, seed + f) for f, (train, _) in enumerate(splits)]
    for one in encoders:
        if one.untrained:
            recalibrate(one.encoder, parts.moments[0], spec, seed=seed, device=device)
    modules: dict[str, nn.Module] = {one.name: one.encoder for one in encoders} | state_baselines(spec)
    values: dict[tuple[str, str, int | None], list[dict[str, float]]] = {}
    pixels = baseline(spec.kind).NAME
    with counting("reading states", len(modules) + 1, quiet) as advance:
        for name, module in modules.items():
            x = _features(module, parts, spec, device)
            for fold, (train, test) in enumerate(splits):
                pool, tested = x[train], x[test]
                rows = {name: (pool, tested)}
                if name == pixels:
                    first, second = project(pool, tested)
                    rows["PCA"] = first["own"], second["own"]
                for row, (pool, tested) in rows.items():
                    for number, drawn in enumerate(draws[fold]):
                        for k, chosen in drawn.items():
                            if k is not None or not number:  # `all` is the same in each draw
                                found = read_states(pool, tested, parts, train, test, chosen)
                                values.setdefault((row, "linear", k), []).append(found)
            advance(1)
    about = _about(run, parts, splits, draws, sampling)
    return Evaluation(about, tuple(make_score(*key, _headed(about, found)) for key, found in values.items()))


def read_states(
    pool: NDArray[np.float32],
    tested: NDArray[np.float32],
    parts: StateParts,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> dict[str, float]:
    """Return R² or F1 of each variable: learned from the `chosen` rows of the `pool` (n, d), measured on others.

    `train` and `test` are the numbers of the rows of both in `parts`. Ridge regression with a penalty for each variable
    by its exact leave-one-out error; logistic regression with a penalty by cross-validation. R² is relative to the
    variance over all that is measured on, whatever fold it is in.
    """
    found: dict[str, float] = {}
    x, rows = pool[chosen], train[chosen]
    numbers = [variable for variable in parts.variables if not variable.classes]
    if numbers:
        y = np.stack([variable.values for variable in numbers], 1)
        seen = y[rows]  # nothing beyond it is predicted: a few labels would else give any number
        predicted = fit_ridge(x, seen, shared=False).predict(tested).clip(seen.min(0), seen.max(0))
        error = ((predicted - y[test]) ** 2).mean(0)
        variance = y[parts.fold >= 0].var(0)
        found = dict(zip((one.name for one in numbers), (1 - error / variance).tolist(), strict=True))
    for variable in parts.variables:
        if variable.classes:
            ids = variable.values[rows]
            several = len(np.unique(ids)) > 1
            guess = fit_probe(x, ids, variable.classes).predict(tested) if several else np.full(len(test), ids[0])
            found[variable.name] = weighted_f1(variable.values[test], guess)
    return {variable.name: found[variable.name] for variable in parts.variables}


def state_baselines(spec: TrajectorySpec) -> dict[str, nn.Module]:
    """Return modules by the names of their rows: the pixels, and how many of them have which colour."""
    one = baseline(spec.kind)
    module = one.module(spec)
    assert module is not None
    return {one.NAME: module, "colour histogram": Colours(spec)}


class Colours(nn.Module):
    """(B, stack · C, H, W) -> (B, stack · 4^C): the fraction of pixels of each colour, 4 bins a channel."""

    def __init__(self, spec: TrajectorySpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        image, channels = self.spec.image, self.spec.channels
        mean, std = (torch.tensor(part, device=x.device).view(-1, 1, 1) for part in (image.mean, image.std))
        bins = ((x * std + mean) * BINS).long().clamp(0, BINS - 1).unflatten(1, (-1, channels))
        colour = (bins * BINS ** torch.arange(channels, device=x.device).view(-1, 1, 1)).sum(2).flatten(2)
        counts = F.one_hot(colour, BINS**channels).float().mean(2)
        return counts.flatten(1)


def _features(module: nn.Module, parts: StateParts, spec: Any, device: torch.device) -> NDArray[np.float32]:
    found = [x for some in parts.moments for _, x in feature_batches(module, some, spec, device=device)]
    return np.concatenate(found)


def _headed(about: Mapping[str, Any], found: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return for each draw the headline first, then each variable, then the means of categories."""
    rows = []
    for values in found:
        row = {about["metric"]: float(np.mean([values[name] for name in about["headline of"]])), **values}
        for name, one in about["means"].items():
            row[name] = float(np.mean([values[variable] for variable in one["of"]]))
        rows.append(row)
    return rows


def _about(
    run: Run, parts: StateParts, splits: Sequence[Any], draws: Sequence[Any], sampling: Sampling
) -> dict[str, Any]:
    metric = "F1" if all(one.classes for one in parts.variables) else "R²"
    measured = [one for one in parts.variables if ("F1" if one.classes else "R²") == metric]
    headline = [one.name for one in measured if not one.name.startswith(DISTRACTOR)] or [one.name for one in measured]
    categories: dict[tuple[str, str], list[str]] = {}
    for one in parts.variables:
        categories.setdefault((one.category, "F1" if one.classes else "R²"), []).append(one.name)
    test = np.unique(np.concatenate([rows for _, rows in splits]))
    variables: dict[str, dict[str, Any]] = {}
    for one in parts.variables:
        chance = 0.0
        if one.classes:
            truth = one.values[test]
            chance = weighted_f1(truth, np.full(len(truth), np.bincount(truth).argmax()))
        variables[one.name] = {"metric": "F1" if one.classes else "R²", "classes": one.classes, "chance": chance}
    means = {
        f"mean of {category} ({one})": {"metric": one, "of": names}
        for (category, one), names in categories.items()
        if len(names) > 1
    }
    data, *others = parts.sources
    dropped = int((parts.fold >= 0).sum()) - len(test)
    warnings = list(parts.notes)
    if (used := len(parts.fold)) < parts.counts["asked"]:
        warnings.append(f"of {parts.counts['asked']:,} observations, {used:,} drawn ones are used")
    if dropped:
        warnings.append(f"{dropped:,} observations to measure on look exactly like others to learn from: left out")
    steps = int(run.recipe["plan"]["steps"])
    warnings += about_steps(steps)
    samples = [len(np.unique(some.owners)) for some in parts.moments]
    level = float(np.mean([variables[name]["chance"] for name in headline]))
    return {
        "run": str(run.folder), "task": run.task, "encoder": run.encoder_name, "steps": steps,
        "target": "states", "metric": metric, "unit": TARGETS["states"].unit, "variables": variables,
        "headline of": headline, "means": means,
        "draws": sampling.draws, "folds": parts.num_folds, "seed": sampling.seed,
        "data": {
            "name": data.name, "samples": samples[0], "frames": len(parts.moments[0]),
            "fingerprint": data.fingerprint(),
        },
        "test": {
            "name": others[0].name if others else data.name, "samples": samples[-1], "frames": len(test),
            "held out": not others, "fingerprint": others[0].fingerprint() if others else None,
        },
        "labels": {"all" if k is None else str(k): len(rows) for k, rows in draws[0][0].items()},
        "duplicates": {"same": dropped},
        "chance": {"value": level, "words": "always the mean" if metric == "R²" else "always the commonest value"},
        "warnings": warnings,
        "protocols": {name: one.about for name, one in EVALUATORS.items() if "states" in one.targets}
        | dict(baseline(run.spec.kind).ABOUT)
        | {"colour histogram": f"the fraction of pixels of each colour, {BINS} bins a channel"},
    }  # fmt: skip
