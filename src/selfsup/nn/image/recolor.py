"""Strong random changes of colours, a whole batch at a time (Dosovitskiy et al., 2014, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup.losses import product
from selfsup.nn.constants import mean_std
from selfsup.nn.noise import uniform
from selfsup.spec import ImageSpec


def recoloured(x: Tensor, u: Tensor, spec: ImageSpec) -> Tensor:
    """Return patches (B, C, h, w), normalized as `spec` says before and after, with `new_colours`."""
    mean, std = mean_std(spec, x)
    return (new_colours((x * std + mean).clamp(0, 1), u) - mean) / std


def half_changed(patches: Tensor, key: Tensor, spec: ImageSpec) -> Tensor:
    """Recolour half of the patches (B, N, C, h, w) of images with keys (B,) int64, and flip half of them."""
    draws = 2 * uniform(key, patches.shape[1], 10, stream=3).flatten(0, 1) - 1
    chance = uniform(key, 2, patches.shape[1], 1, 1, 1, stream=5)
    patches = torch.where(chance[:, 0] < 0.5, recoloured(patches.flatten(0, 1), draws, spec).view_as(patches), patches)
    return torch.where(chance[:, 1] < 0.5, patches.flip(4), patches)


def new_colours(x: Tensor, u: Tensor) -> Tensor:
    """Change the colours of patches (B, C, h, w) in 0..1 by draws `u` (B, 10) in -1..1.

    Contrast along the principal components of a patch's colours, then saturation and value, then hue. Patches of other
    than 3 channels have no saturation and hue, and one contrast: their channels are changed as the value is.
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
    """Raise (B, ...) to a power of 1/4 to 4, times 0.7 to 1.4, plus -0.1 to 0.1."""
    power, factor, plus = (u[:, i : i + 1].reshape(-1, *[1] * (x.ndim - 1)) for i in range(3))
    return 0.99 * 2 ** (factor / 2) * x ** (4**power) + 0.1 * plus
