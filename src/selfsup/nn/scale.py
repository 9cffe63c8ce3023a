"""What a spec says of pixels, as tensors."""

from __future__ import annotations

from torch import Tensor

from selfsup.data import ImageSpec


def mean_std(spec: ImageSpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation (C, 1, 1) of the normalisation, with the device and dtype of `like`."""
    mean, std = (like.new_tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return mean, std
