"""Grasp2Vec (Jang et al., 2018): the scene before minus the scene after is the object that was taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from selfsup.base.distributed import gather
from selfsup.errors import UserError, unknown
from selfsup.losses import full, npairs, product
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.control.embedding import map_channels
from selfsup.tasks.control.trunks import Trunks, heat_maps
from selfsup.views.image import Crop
from selfsup.views.trajectory import GraspViews


class Grasp2Vec(Task):
    """Embed scenes and objects so that a scene is the sum of its objects (Jang et al., 2018, section 3.1).

    A scene before and after an object was taken, φs(before) - φs(after), should be φo(object): two-way n-pairs over the
    batch with unnormalized embeddings. Both embeddings are means over places of maps that are at least 0, as sums of
    parts are; so the product of a scene's maps with an object's embedding shows where that object lies. Chance is
    2 ln B.

    Two trunks are kept, `scene` and `object`, of which `scene` is probed and exported (see `Trunks`).

    Batch: `pre`, `post`, `object` (B, C, H, W) float.

    Deviations: smaller trunks, which start from the same weights; whoever records leaves failed grasps out.

    Args:
        object_camera: The camera that shows, in the last observation, what was taken.
        regularizer: Weight of the squared lengths of embeddings, in [0, inf).
        pad: Largest shift in pixels, in [0, inf).
    """

    paper = "Jang et al., 2018"
    section = "control: objects"
    kind = "trajectory"
    default_encoder = "convnet"
    defaults = {"batch_size": 48}  # noqa: RUF012

    def __init__(
        self, encoder: Encoder, *, object_camera: str = "object", regularizer: float = 0.002, pad: int = 4
    ) -> None:
        super().__init__(encoder)
        self.object_camera, self.regularizer, self.pad = object_camera, regularizer, pad
        map_channels(encoder)
        self.object: Any = copy.deepcopy(encoder)

    def representation(self) -> Encoder:
        """Return both trunks."""
        return Trunks(self.encoder, self.object)

    def samples(self, source: Source) -> Source:
        """Raise `UserError` for data without a camera of the object."""
        known = getattr(source, "cameras", ())
        if self.object_camera not in known:
            raise unknown("camera of --object-camera", self.object_camera, known)
        if self.object_camera == source.conform(self.encoder.spec).cameras[0]:  # type: ignore[attr-defined]
            raise UserError(f"--object-camera {self.object_camera} is the camera of the scene: give another --camera")
        return source

    def views(self, spec: TrajectorySpec) -> GraspViews:
        """Return the scene before and after, shifted alike, and the object."""
        return GraspViews(spec, Crop(spec.size, pad=self.pad), camera=self.object_camera)

    def loss(self, batch: Batch) -> Loss:
        """Return the n-pairs losses of both ways, and how often the nearest object is the right one."""
        maps = F.relu(self.encoder.maps(torch.cat([batch["pre"], batch["post"]])))
        before, after = full(maps.mean((2, 3))).chunk(2)
        taken = gather(before - after)
        objects = gather(full(F.relu(self.object.maps(batch["object"])).mean((2, 3))))
        value = npairs(taken, objects, self.regularizer) + npairs(objects, taken, self.regularizer)
        with torch.no_grad():
            own = torch.arange(len(taken), device=taken.device)
            found = (product(taken, objects.T).argmax(1) == own).float().mean()
        return Loss(value, {"retrieval": found}, 2 * math.log(len(taken)))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the scene before, after, and the object, with `guess` also where the object lies before."""
        rows = [
            [Panel(before, "before"), Panel(after, "after"), Panel(taken, "taken")]
            for before, after, taken in zip(batch["pre"], batch["post"], batch["object"], strict=True)
        ]
        if guess:
            trunks: Any = self.representation()
            heat = heat_maps(trunks.maps(batch["pre"]), trunks.objects(batch["object"]))
            large = F.interpolate(heat[:, None], batch["pre"].shape[2:], mode="bilinear")
            for row, one in zip(rows, large, strict=True):
                row.append(Panel(row[0].content * one, "where it lies"))
        return rows
