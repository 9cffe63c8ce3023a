"""An encoder split into two halves that share nothing: one sees L, the other a and b (Zhang et al., 2017)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.image.lab import to_lab, to_light


class SplitEncoder(nn.Module):
    """A copy of a convolutional encoder for ordinary images in which each convolution is split into two groups.

    The first half of the channels of every layer, and of the representation, sees L, the second half a and b. Raises
    `UserError` for an encoder whose layers mix channels in another way or have an odd number of them.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.spec, self.dim = encoder.spec, encoder.dim
        self.body = copy.deepcopy(encoder)
        convolutions = [name for name, module in self.body.named_modules() if isinstance(module, nn.Conv2d)]
        try:
            for place, name in enumerate(convolutions):
                parent, _, child = name.rpartition(".")
                split = _first if place == 0 else _grouped
                setattr(self.body.get_submodule(parent), child, split(self.body.get_submodule(name)))
            separate = bool(convolutions) and _separate(self.body)
        except (ValueError, RuntimeError, AttributeError, UserError):
            separate = False
        if not separate:
            raise UserError(
                "this encoder cannot be split into two halves that share nothing: use convnet or a plain convolutional "
                "model such as resnet18"
            )

    def lab(self, x: Tensor) -> Tensor:
        """Return L, a and b (B, 3, H, W) scaled to about unit size."""
        return scaled(to_lab(to_light(x, self.spec)))

    def maps(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w)."""
        return self.body.maps(self.lab(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dim)."""
        return self.body(self.lab(x))


def scaled(lab: Tensor) -> Tensor:
    """Return L, a and b scaled to about unit size, with L centred on 0."""
    return torch.cat([lab[:, :1] / 50 - 1, lab[:, 1:] / 50], 1)


class _First(nn.Module):
    """A convolution of L and one of a and b, side by side."""

    def __init__(self, light: nn.Conv2d, colour: nn.Conv2d) -> None:
        super().__init__()
        self.light, self.colour = light, colour

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.light(x[:, :1]), self.colour(x[:, 1:])], 1)


def _like(module: Any, inputs: int, outputs: int, groups: int, weight: Tensor) -> nn.Conv2d:
    new = nn.Conv2d(
        inputs, outputs, module.kernel_size, module.stride, module.padding, module.dilation, groups,
        module.bias is not None, module.padding_mode,
    )  # fmt: skip
    with torch.no_grad():
        new.weight.copy_(weight)
    return new


def _first(module: Any) -> nn.Module:
    half = module.out_channels // 2
    if module.out_channels % 2 or module.in_channels != 3:
        raise ValueError
    light, colour = module.weight[:half, :1], module.weight[half:, 1:]
    return _First(_like(module, 1, half, 1, light), _like(module, 2, half, 1, colour))


def _grouped(module: Any) -> nn.Module:
    if module.groups == module.in_channels:  # depthwise: mixes no channels
        return module
    if module.groups != 1 or module.in_channels % 2 or module.out_channels % 2:
        raise ValueError
    out, inside = module.out_channels // 2, module.in_channels // 2
    weight = torch.cat([module.weight[:out, :inside], module.weight[out:, inside:]])
    return _like(module, module.in_channels, module.out_channels, 2, weight)


@torch.no_grad()
def _separate(body: Any) -> bool:
    """Return whether neither half sees the input of the other."""
    training = body.training
    if next(body.parameters()).is_meta:  # built only for its shapes
        return True
    body.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, body.spec.size, body.spec.size, generator=generator)
    x[1, 1:] = x[0, 1:] = 0
    x[1, 0], x[2, 0] = x[0, 0] + 1, x[0, 0]  # 0 and 1 differ in L, 0 and 2 in a and b
    maps, pooled = body.maps(x).flatten(1), body(x)
    body.train(training)
    halves = [features.chunk(2, 1) for features in (maps, pooled)]
    return all(torch.allclose(ab[0], ab[1]) and torch.allclose(light[0], light[2]) for light, ab in halves)
