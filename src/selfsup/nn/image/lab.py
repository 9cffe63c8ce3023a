"""CIE Lab (D65) on any device, and the quantized ab plane (Zhang et al., 2016, section 2)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn.constants import constant, mean_std
from selfsup.spec import ImageSpec

_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
STEP = 10  # between bins
_FINE, _REACH = 2, 110  # step and extent, beyond all of sRGB, of the grid on which soft labels are looked up
GREY = 5.0  # an image with all |a| and |b| at most this has no colour


def to_light(x: Tensor, spec: ImageSpec) -> Tensor:
    """Undo the normalization and the sRGB transfer curve: (B, 3, H, W) -> linear light in 0..1."""
    x = full(x)
    mean, std = mean_std(spec, x)
    value = torch.addcmul(mean, x, std).clamp_(0, 1)
    return torch.where(value <= 0.04045, value / 12.92, value.add(0.055).div_(1.055).pow_(2.4))


def from_light(light: Tensor, spec: ImageSpec) -> Tensor:
    """Convert linear light (B, 3, H, W), or (B, 1, H, W) for grey images, to normalized sRGB, clamped to its gamut."""
    light = light.clamp(0, 1)
    curve = light.clamp_min(0.0031308).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    value = torch.where(light <= 0.0031308, 12.92 * light, curve)
    mean, std = mean_std(spec, light)
    return (value - mean) / std


def luminance(light: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): Y, which determines L."""
    red, green, blue = light.unbind(1)
    return (red * _XYZ[1][0] + green * _XYZ[1][1] + blue * _XYZ[1][2]).unsqueeze(1)


def to_lab(light: Tensor) -> Tensor:
    """(B, 3, H, W) linear light -> L in 0..100, a and b."""
    matrix = constant(_XYZ, light)
    xyz = _mixed(matrix / matrix.sum(1, keepdim=True), light)
    x, y, z = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-6) ** (1 / 3), xyz * (841 / 108) + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(lab: Tensor) -> Tensor:
    """Return linear light, which may lie outside the sRGB gamut."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    xyz = torch.where(f > 6 / 29, f**3, (f - 4 / 29) * (108 / 841))
    matrix = constant(_XYZ, lab)
    inverse = torch.linalg.inv(matrix / matrix.sum(1, keepdim=True))
    return _mixed(inverse, xyz).transpose(0, 1)


def _mixed(matrix: Tensor, x: Tensor) -> Tensor:
    """(3, 3) and (B, 3, H, W) -> (3, B, H, W): written out, because a matrix product may be computed in 16 bits."""
    return (matrix[:, None, :, None, None] * x).sum(2)


@lru_cache
def ab_bins() -> Tensor:
    """Return the points (Q, 2) of a grid of step 10 that are nearest to at least one sRGB colour: Q = 261.

    They are found on the faces of the cube of 8-bit colours. The 313 bins published with the paper include a rim of
    points that are nearest to no colour.
    """
    with torch.device("cpu"):  # whichever device the tasks are built on
        level = torch.linspace(0, 1, 256)
        one, two = torch.meshgrid(level, level, indexing="ij")
        faces = [
            torch.stack([one, two, torch.full_like(one, end)]).roll(axis, 0) for end in (0, 1) for axis in range(3)
        ]
        ab = to_lab(to_light(torch.stack(faces), ImageSpec(256, 3, (0.0,) * 3, (1.0,) * 3)))[:, 1:]
        return torch.unique((ab.permute(0, 2, 3, 1).reshape(-1, 2) / STEP).round(), dim=0) * STEP


@lru_cache
def _soft_labels(neighbours: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the nearest bins of each point of the fine grid (G, neighbours), and their probabilities."""
    with torch.device("cpu"):
        axis = torch.arange(-_REACH, _REACH + 1, _FINE).float()
        squared, near = (
            torch.cdist(torch.cartesian_prod(axis, axis), ab_bins()).square().topk(neighbours, largest=False)
        )
        return near, torch.softmax(-squared / (2 * sigma**2), 1)


class AbBins(nn.Module):
    """Colours as soft labels over the bins: the `neighbours` nearest ones, weighted by a Gaussian of their distance.

    The labels come from a lookup table of the ab plane in steps of 2; a search at each pixel would be slow.
    """

    centres: Tensor
    near: Tensor
    probability: Tensor

    def __init__(self, neighbours: int = 10, sigma: float = 5.0) -> None:
        super().__init__()
        near, probability = _soft_labels(neighbours, sigma)
        for name, value in (("centres", ab_bins()), ("near", near), ("probability", probability)):
            self.register_buffer(name, value.clone(), persistent=False)

    def places(self, ab: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, H, W): rows of the lookup table."""
        a, b = ((ab / _FINE).round().long() + _REACH // _FINE).clamp(0, 2 * _REACH // _FINE).unbind(1)
        return a * (2 * _REACH // _FINE + 1) + b

    def forward(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return the cross-entropy (B, H, W) of logits (B, Q, H, W) against the colours at `places` (B, H, W)."""
        logits = full(logits)
        near, probability = (table[places].permute(0, 3, 1, 2) for table in (self.near, self.probability))
        return logits.logsumexp(1) - (logits.gather(1, near) * probability).sum(1)

    def frequencies(self, places: Tensor) -> Tensor:
        """Return the frequency of each bin (Q,), smoothed by the soft labels."""
        count = torch.bincount(places.flatten(), minlength=len(self.near)).to(self.probability.dtype)
        return count.new_zeros(len(self.centres)).index_add(
            0, self.near.flatten(), (self.probability * count[:, None]).flatten()
        )

    def rarity(self, places: Tensor, mix: float) -> Tensor:
        """Return the weight of each bin (Q,), 1 / ((1 - mix) · p + mix / Q), with a mean of 1 over `places`."""
        p = self.frequencies(places)
        p = p / p.sum()
        weight = 1 / ((1 - mix) * p + mix / len(p))
        return weight / (p * weight).sum()

    def annealed_mean(self, logits: Tensor, temperature: float = 0.38) -> Tensor:
        """(B, Q, H, W) -> (B, 2, H, W): between the mode and the mean of the predicted colours (section 2.3)."""
        return torch.einsum("bqhw,qc->bchw", (logits.float() / temperature).softmax(1), self.centres)


def coloured(ab: Tensor) -> Tensor:
    """(B, 2, H, W) -> (B,) float: 1 for colour images, 0 for grey ones."""
    return (ab.abs().flatten(1).amax(1) > GREY).float()


def ab_at(light: Tensor, side: int) -> Tensor:
    """Return ab (B, 2, side, side) of linear light averaged over the cells of a grid."""
    return to_lab(nn.functional.adaptive_avg_pool2d(light, side))[:, 1:]


def grey(light: Tensor, spec: ImageSpec) -> Tensor:
    """(B, 3, H, W) linear light -> normalized images (B, 3, H, W) of the same lightness without colour."""
    return from_light(luminance(light), spec)


def painted(light: Tensor, ab: Tensor, spec: ImageSpec) -> Tensor:
    """Return normalized images with the lightness of linear light (B, 3, H, W) and the colours ab (B, 2, h, w)."""
    planes = nn.functional.interpolate(ab, light.shape[2:], mode="bilinear")
    return from_light(from_lab(torch.cat([to_lab(light)[:, :1], planes], 1)), spec)


def check_colour(name: str, spec: ImageSpec) -> None:
    """Raise `UserError` unless images are RGB."""
    if spec.channels != 3:
        raise UserError(f"{name} needs images of 3 channels (red, green, blue), not {spec.channels}")
