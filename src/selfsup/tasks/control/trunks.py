"""The two trunks that Grasp2Vec keeps, and where an object lies in a scene."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full
from selfsup.tasks.control.embedding import map_channels


class Trunks(nn.Module):
    """The two encoders that are kept, by name: `scene`, and `object` for what is taken. Called, it is the first.

    `dim` is the number of their feature maps.
    """

    def __init__(self, scene: Any, taken: Any) -> None:
        super().__init__()
        self.scene, self.object, self.spec, self.dim = scene, taken, scene.spec, map_channels(scene)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), of a scene."""
        return self.maps(x).mean((2, 3))

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H', W'), of a scene; at least 0."""
        return F.relu(self.scene.maps(x))

    def objects(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), of an object."""
        return F.relu(self.object.maps(x)).mean((2, 3))


def heat_maps(maps: Tensor, objects: Tensor) -> Tensor:
    """Return where objects (B, D) lie in scenes of maps (B, D, H, W): (B, H, W) from 0 to 1, the most likely place."""
    heat = torch.einsum("bdhw,bd->bhw", full(maps), full(objects)).clamp_min(0)
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)
