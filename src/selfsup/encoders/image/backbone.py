"""An image encoder as the backbone of segmentation and detection code, in the manner of timm's `features_only`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import FeatureInfo
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.modes import tried_out


class Backbone(nn.Module):
    """(B, C, H, W), normalized as the encoder's `spec` says -> a list of maps (B, D, h, w), finest first.

    `feature_info` is timm's: `channels()` and `reduction()`, by how much a map is smaller than the image, of each map.
    These are measured on an image of the spec's size: the stem for small images, for example, reduces less.

    Args:
        encoder: one with `stages`: `convnet`, `nature-cnn`, and most models of timm.
        out_indices: which of its stages; all by default.

    Raises:
        UserError: for an encoder without stages, and for one that it has not.
    """

    def __init__(self, encoder: Any, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        if not hasattr(encoder, "stages"):
            raise UserError(
                "this encoder has no maps of several stages: use convnet, or a model of timm such as resnet18"
            )
        self.encoder, self.spec = encoder, encoder.spec
        with tried_out(encoder):
            maps = list(encoder.stages(self.spec.example(1).to(next(encoder.parameters()))))
        chosen = tuple(range(len(maps)) if out_indices is None else out_indices)
        if not chosen or not set(chosen) <= set(range(len(maps))):
            raise UserError(f"out_indices are numbers of stages from 0 to {len(maps) - 1}, not {list(chosen)}")
        info = [
            {"num_chs": one.shape[1], "reduction": round(self.spec.size / one.shape[2]), "module": f"stages.{number}"}
            for number, one in enumerate(maps)
        ]
        self.out_indices, self.feature_info = chosen, FeatureInfo(info, chosen)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the maps of the chosen stages."""
        maps = list(self.encoder.stages(x))
        return [maps[number] for number in self.out_indices]
