"""Alignment (`evaluate --target alignment`): does the nearest observation of another camera show the same moment?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from selfsup.base.printing import Printable
from selfsup.data.trajectory import Episodes, observations
from selfsup.errors import UserError
from selfsup.evaluation.baselines.pixels import Pixels
from selfsup.evaluation.features import feature_batches
from selfsup.evaluation.frozen import COMPONENTS, FrozenEncoder
from selfsup.evaluation.rows import principal_components
from selfsup.evaluation.saving import save_beside
from selfsup.evaluation.state_probes import Colours
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.train.recalibrate import recalibrate

CHANCE = 1 / 3  # the mean distance of two uniformly random times, as a fraction of the whole


class Aligned(NamedTuple):
    """How well two sequences are aligned: `error` from 0 to 1, chance 1/3; `tau` from -1 to 1, chance 0."""

    error: float
    tau: float


def align(first: NDArray[np.float32], second: NDArray[np.float32]) -> Aligned:
    """Compare embeddings (T, d) of the same T >= 2 moments by nearest neighbours (Sermanet et al., 2018, IV-A).

    The error is the mean of |t - t̂| / (T - 1), where t̂ is the time of the row of `second` that is nearest to row t of
    `first`. Tau is Kendall's: whether pairs of times keep their order, the difference of those that do and do not as a
    fraction of all.
    """
    found = np.argmin(_squared_distances(first, second), 1)
    count = len(first)
    error = float(np.abs(found - np.arange(count)).mean() / (count - 1))
    before, after = np.triu_indices(count, 1)
    return Aligned(error, float(np.sign(found[after] - found[before]).mean()))


def _squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return found


@dataclass(frozen=True, repr=False)
class Alignment(Printable):
    """Alignment errors and Kendall's tau of each representation and pair of cameras, means over episodes.

    `rows`: by representation and pair ("left to right"), (error, tau, standard error of the error over episodes).
    """

    about: dict[str, Any]
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]]

    def error(self, representation: str) -> float:
        """Return the mean error over the pairs of cameras."""
        return float(np.mean([row[0] for row in self.rows[representation].values()]))

    def tau(self, representation: str) -> float:
        """Return the mean tau over the pairs of cameras."""
        return float(np.mean([row[1] for row in self.rows[representation].values()]))

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = {
            name: {pair: dict(zip(("error", "tau", "se"), row, strict=True)) for pair, row in pairs.items()}
            for name, pairs in self.rows.items()
        }
        return {"about": self.about, "rows": rows}

    def __rich__(self) -> Table:
        about = self.about
        table = Table(
            title=f"alignment error on {about['data']} ({about['episodes']:,} episodes), lower is better",
            caption=f"± standard error over episodes; chance {CHANCE:.3f}, and 0 of tau",
        )
        for column in ("representation", "cameras", "error", "Kendall's tau"):
            table.add_column(column, justify="left" if column in ("representation", "cameras") else "right")
        for name, pairs in self.rows.items():
            for place, (pair, (error, tau, half)) in enumerate(pairs.items()):
                table.add_row("" if place else name, pair, f"{error:.3f} ±{half:.3f}", f"{tau:.2f}")
        return table


def measure_alignment(
    task: str,
    encoders: Sequence[FrozenEncoder],
    source: Source,
    spec: TrajectorySpec,
    *,
    seed: int,
    device: torch.device | str,
    folder: Path | None = None,
) -> Alignment:
    """Return how well the cameras of each episode are aligned by encoders, beside pixels, PCA and colours.

    Nothing is learned from the episodes but the principal components, and the BatchNorm statistics of `untrained` ones.
    Raises `UserError` for data with one camera, or without an episode of two observations.
    """
    if not isinstance(source, Episodes) or len(source.cameras) < 2:
        raise UserError(f"--target alignment compares cameras, and {source.name} has not two")
    source = source.take(np.flatnonzero(source.extents > 1))
    if not len(source):
        raise UserError(f"no episode of {source.name} has two observations, so there is nothing to align")
    for one in encoders:
        if one.untrained:
            recalibrate(one.encoder, observations(source), spec, seed=seed, device=device)
    modules: dict[str, nn.Module] = {one.name: one.encoder for one in encoders}
    modules |= {"pixels": Pixels(), "colour histogram": Colours(spec)}
    seen = {name: _embeddings(module, source, spec, device) for name, module in modules.items()}
    seen["PCA"] = _components(seen["pixels"])
    rows = {name: _pairs(cameras) for name, cameras in seen.items()}
    about = {"task": task, "data": source.name, "episodes": len(source), "cameras": list(source.cameras)}
    result = Alignment(about, rows)
    save_beside(result.as_json(), folder, "alignment.json")
    return result


def _embeddings(
    module: nn.Module, source: Episodes, spec: TrajectorySpec, device: torch.device | str
) -> dict[str, list[NDArray[np.float32]]]:
    """Return for each camera the embeddings (T, d) of every episode; those with a broken frame are left out."""
    found: dict[str, NDArray[np.float32]] = {}
    read = np.ones(int(source.extents.sum()), bool)
    for camera in source.cameras:
        seen = replace(spec, cameras=(camera, *(name for name in source.cameras if name != camera)))
        parts = list(feature_batches(module, observations(source), seen, device=device))
        numbers, features = (np.concatenate(part) for part in zip(*parts, strict=True))
        found[camera] = np.zeros((len(read), features.shape[1]), np.float32)
        found[camera][numbers] = features
        read &= np.isin(np.arange(len(read)), numbers)
    ends = source.extents.cumsum()
    whole = [slice(end - count, end) for end, count in zip(ends, source.extents, strict=True)]
    return {camera: [x[part] for part in whole if read[part].all()] for camera, x in found.items()}


def _components(pixels: dict[str, list[NDArray[np.float32]]]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the first principal components of what all cameras see."""
    every = torch.from_numpy(np.concatenate([x for episodes in pixels.values() for x in episodes]))
    mean = every.mean(0)
    axes, _ = principal_components(every - mean, COMPONENTS)
    return {
        camera: [((torch.from_numpy(x) - mean) @ axes).numpy() for x in episodes] for camera, episodes in pixels.items()
    }


def _pairs(cameras: dict[str, list[NDArray[np.float32]]]) -> dict[str, tuple[float, float, float]]:
    rows = {}
    for a, b in permutations(cameras, 2):
        found = np.array([align(first, second) for first, second in zip(cameras[a], cameras[b], strict=True)])
        error = found[:, 0].std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else float("nan")
        rows[f"{a} to {b}"] = (float(found[:, 0].mean()), float(found[:, 1].mean()), float(error))
    return rows
