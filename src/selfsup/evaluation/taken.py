"""Objects (`evaluate --target objects`): which one was taken from a scene, and where did it lie?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn

from selfsup.base.printing import Printable
from selfsup.data.trajectory import Episodes, Instants, observations
from selfsup.errors import UserError, unknown
from selfsup.evaluation.baselines.pixels import Pixels
from selfsup.evaluation.features import extract, feature_batches
from selfsup.evaluation.frozen import COMPONENTS, FrozenEncoder
from selfsup.evaluation.retrieval import retrieval
from selfsup.evaluation.rows import principal_components
from selfsup.evaluation.saving import save_beside
from selfsup.evaluation.state_probes import Colours
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.train.recalibrate import recalibrate

BOX = ("taken_left", "taken_top", "taken_right", "taken_bottom")  # states: fractions of the first frame of the scene


@dataclass(frozen=True, repr=False)
class Objects(Printable):
    """R@1 of each representation: whether the nearest image of an object shows the kind that was taken.

    `located`: for encoders of scenes and objects how often the heat map is highest on the object, beside the part of
    the scene that it fills; empty where its place is not known.
    """

    about: dict[str, Any]
    rows: Mapping[str, float]
    located: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"about": self.about, "rows": dict(self.rows), "located": dict(self.located)}

    def __rich__(self) -> Table:
        about = self.about
        table = Table(
            title=f"the object that was taken, on {about['data']} ({about['episodes']:,} episodes)",
            caption=f"chance: {about['chance']:.3f} of {about['kinds']} kinds"
            + (f"; {about['filled']:.3f} of a scene is object" if self.located else ""),
        )
        for column in ("representation", "R@1", "heat map on it"):
            table.add_column(column, justify="left" if column == "representation" else "right")
        for name, recall in self.rows.items():
            table.add_row(name, f"{recall:.3f}", f"{self.located[name]:.3f}" if name in self.located else "")
        return table


def measure_objects(
    task: str,
    encoders: Sequence[FrozenEncoder],
    source: Source,
    spec: TrajectorySpec,
    *,
    camera: str,
    seed: int,
    device: torch.device | str,
    folder: Path | None = None,
) -> Objects:
    """Return how well encoders find what was taken between the first and the last observation, beside colours.

    The query is the embedding of the scene before minus that after. `camera` shows in the last observation what was
    taken: it is embedded by an encoder's `objects` or, without that, by the same difference, last minus first. Both are
    compared by their cosine. Labels are the kinds of objects.

    Raises `UserError` for data without that camera, or without labels.
    """
    if not isinstance(source, Episodes) or source.labels is None:
        raise UserError(f"--target objects needs episodes with labels, the kinds of objects; {source.name} has none")
    if camera not in source.cameras:
        raise unknown("camera of the object", camera, source.cameras)
    source = source.take(np.flatnonzero((source.extents > 1) & (source.labels.ids >= 0)))
    if not len(source):
        raise UserError(f"no labelled episode of {source.name} has an observation before and one after")
    assert source.labels is not None
    scene = source.conform(spec).cameras[0]
    for one in encoders:
        if one.untrained:
            recalibrate(one.encoder, observations(source), spec, seed=seed, device=device)
    modules: dict[str, nn.Module] = {one.name: one.encoder for one in encoders}
    modules |= {"pixels": Pixels(), "mean colour": nn.AdaptiveAvgPool2d(1), "colour histogram": Colours(spec)}
    rows, located, filled = {}, {}, 0.0
    ids = source.labels.ids
    for name, module in modules.items():
        read = {at: _features(module, source, spec, *at, device) for at in ((scene, False), (scene, True))}
        taken = read[scene, False] - read[scene, True]
        own = getattr(module, "objects", None)
        if own is not None:
            objects = _features(_Called(own, module), source, spec, camera, True, device)
        else:
            objects = _features(module, source, spec, camera, True, device)
            objects = objects - _features(module, source, spec, camera, False, device)
        rows[name] = _recall(taken, objects, ids)
        if name == "pixels":
            axes, _ = principal_components(
                torch.from_numpy(read[scene, False] - read[scene, False].mean(0)), COMPONENTS
            )
            rows["PCA"] = _recall(taken @ axes.numpy(), objects @ axes.numpy(), ids)
        if own is not None and set(BOX) <= set(source.states):
            located[name], filled = _located(module, objects, source, spec, scene, device)
    about = {
        "task": task, "data": source.name, "episodes": len(source), "kinds": len(np.unique(ids)),
        "chance": float((np.bincount(ids) / len(ids)).max()), "filled": filled,
    }  # fmt: skip
    result = Objects(about, rows, located)
    save_beside(result.as_json(), folder, "objects.json")
    return result


def _recall(queries: NDArray[np.float32], gallery: NDArray[np.float32], ids: NDArray[np.int64]) -> float:
    read = np.isfinite(queries).all(1) & np.isfinite(gallery).all(1)
    return retrieval(queries[read], ids[read], gallery[read], ids[read], ks=(1,)).recall[1]


class _Called(nn.Module):
    """A method of an encoder as a module."""

    def __init__(self, method: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.method, self.encoder = method, encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.method(x)


def _at(source: Episodes, spec: TrajectorySpec, camera: str, last: bool) -> tuple[Instants, TrajectorySpec]:
    """Return the first or last observation of each episode, and the spec of what a camera sees of it."""
    starts = source.extents - 1 if last else np.zeros(len(source), np.int64)
    seen = replace(spec, cameras=(camera, *(name for name in source.cameras if name != camera)))
    return Instants(source, np.arange(len(source)), starts), seen


def _features(
    module: nn.Module, source: Episodes, spec: TrajectorySpec, camera: str, last: bool, device: torch.device | str
) -> NDArray[np.float32]:
    """Return the features (N, d) of a moment of each episode, nan where it cannot be read."""
    numbers, x = extract(nn.Sequential(module, nn.Flatten()), *_at(source, spec, camera, last), device)
    found = np.full((len(source), x.shape[1]), np.nan, np.float32)
    found[numbers] = x
    return found


def _located(
    module: nn.Module, objects: NDArray[np.float32], source: Episodes, spec: TrajectorySpec, scene: str,
    device: torch.device | str,
) -> tuple[float, float]:  # fmt: skip
    """Return how often the place with the largest product is on the object, and the part of the scene it fills.

    A place counts where its middle is in the box around the object, enlarged by half a place.
    """
    columns = [source.states.index(name) for name in BOX]
    on, filled = list[bool](), list[float]()
    maps = _Called(module.maps, module)
    for numbers, seen in feature_batches(maps, *_at(source, spec, scene, False), device=device):
        heat = np.einsum("bdhw,bd->bhw", seen, objects[numbers])
        for number, one in zip(numbers.tolist(), heat, strict=True):
            if not np.isfinite(one).all():
                continue
            left, top, right, bottom = source.steps(number).state[0, columns]
            high, wide = one.shape
            row, column = np.unravel_index(int(one.argmax()), one.shape)
            inside = _within(row, top, bottom, high) and _within(column, left, right, wide)
            on.append(inside)
            rows = [_within(place, top, bottom, high) for place in range(high)]
            filled.append(float(np.mean(rows) * np.mean([_within(p, left, right, wide) for p in range(wide)])))
    return float(np.mean(on)), float(np.mean(filled))


def _within(place: Any, low: float, high: float, count: int) -> bool:
    return bool(low - 0.5 / count <= (place + 0.5) / count <= high + 0.5 / count)
