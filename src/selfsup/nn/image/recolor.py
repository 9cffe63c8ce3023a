"""Strong colour augmentation of a whole batch (Dosovitskiy et al., 2014, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup.losses import product
from selfsup.nn.constants import mean_std
from selfsup.nn.noise import uniform
from selfsup.spec import ImageSpec


def recoloured(x: Tensor, u: Tensor, spec: ImageSpec) -> Tensor:
    """Apply `new_colours` to patches (B, C, h, w) that are normalized by `spec`."""
    mean, std = mean_std(spec, x)
    return (new_colours((x * std + mean).clamp(0, 1), u) - mean) / std


def half_changed(patches: Tensor, key: Tensor, spec: ImageSpec) -> Tensor:
    """Recolour half of the patches (B, N, C, h, w) of images with keys (B,) int64, and flip half of them."""
    draws = 2 * uniform(key, patches.shape[1], 10, stream=3).flatten(0, 1) - 1
    chance = uniform(key, 2, patches.shape[1], 1, 1, 1, stream=5)
    patches = torch.where(chance[:, 0] < 0.5, recoloured(patches.flatten(0, 1), draws, spec).view_as(patches), patches)
    return torch.where(chance[:, 1] < 0.5, patches.flip(4), patches)


def new_colours(x: Tensor, u: Tensor) -> Tensor:
    """Change the colours of patches (B, C, h, w) in 0..1, given random numbers `u` (B, 10) in -1..1.

    This scales the contrast along the principal components of a patch's colours, then changes saturation, value and
    hue. Patches without exactly 3 channels have no saturation and hue, and a single contrast: their channels are
    changed like the value.
    """
    middle = x.mean((2, 3), keepdim=True)
    colours = (x - middle).flatten(2)
    u = u[:, :, None, None]
    if x.shape[1] != 3:
        x = (2 ** u[:, :1] * (x - middle) + middle).clamp(0, 1)
        return _powered(x, u[:, 3:6]).clamp(0, 1)
    axes = torch.linalg.eigh(product(colours, colours.mT))[1]
    stretched = product(axes, 2 ** u[:, :3, 0] * product(axes.mT, colours))
    x = (stretched.view_as(x) + middle).clamp(0, 1)
    r, g, b = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    per = 1 / chroma.clamp(min=1e-9)
    hue = torch.where(value == g, (b - r) * per + 2, (r - g) * per + 4)
    hue = torch.where(value == r, (g - b) * per, hue) + 0.6 * u[:, 9]
    saturation = _powered(chroma / value.clamp(min=1e-9), u[:, 6:9, 0]).clamp(0, 1) * (chroma > 1e-3)
    k = (hue[:, None] + torch.arange(5.0, 0.0, -2.0, device=x.device).view(3, 1, 1)).remainder(6)  # in sixths
    value = _powered(value, u[:, 3:6, 0]).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def _powered(x: Tensor, u: Tensor) -> Tensor:
    """Return a · x ** b + c for x (B, ...), with a in 0.7..1.4, b in 1/4..4 and c in -0.1..0.1 given by `u`."""
    power, factor, plus = (u[:, i : i + 1].reshape(-1, *[1] * (x.ndim - 1)) for i in range(3))
    return 0.99 * 2 ** (factor / 2) * x ** (4**power) + 0.1 * plus
