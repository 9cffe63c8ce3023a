"""Patch features as a program (`export --output maps`): of any number of images, of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.image.dense import PatchFeatures, has_patch_features, patch_shape
from selfsup.spec import ImageSpec, Spec

SMALLEST = 8  # pixels a side


def maps_program(encoder: Any, spec: Spec, name: str) -> tuple[nn.Module, Tensor, dict[int, Any], str]:
    """Return the program, two images for it, the dimensions that it leaves open, and what it takes and returns.

    Sides are whole patches or, of convolutional encoders, multiples of the pixels for which one place stands. The
    images are not square, nor of the size of pretraining, or what is traced would be a special case, in which positions
    are not interpolated. Raises `UserError` for an encoder without patch features.
    """
    if not isinstance(spec, ImageSpec) or not has_patch_features(encoder):
        raise UserError(f"{name} has no patch features of images, so --output maps is not for it: leave it out")
    places = patch_shape(encoder)[1]
    step = spec.size // places if spec.size % places == 0 else 1
    fewest = max(2, -(-SMALLEST // step))
    dims = {0: torch.export.Dim("batch", min=1)}
    dims |= {axis: step * torch.export.Dim(side, min=fewest) for axis, side in ((2, "rows"), (3, "columns"))}
    wide = torch.zeros(2, spec.channels, max(spec.size, step * fewest), max(spec.size, step * fewest) + step * fewest)
    words = f"images (B, {spec.channels}, H, W), H and W multiples of {step}, -> patch features (B, D, h, w)"
    return PatchFeatures(encoder).eval(), wide, dims, words
