"""The cues of clips: numbers that tell when and how frames were taken, not what happens in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.nn.heads import mlp
from selfsup.shortcuts.cues import CUES, Cue
from selfsup.spec import ClipSpec

_LEAST, _STILL = 1e-3, 4  # added to what a logarithm is taken of; places along each side of a still image


def energy(x: Tensor) -> Tensor:
    """Return how strong each frame is about its mean: of differences, how much moved."""
    return _apart(x, x.mean((2, 3, 4), keepdim=True)).log()[..., None]


def motion(x: Tensor) -> Tensor:
    """Return how much each frame differs from the one before and from the next one."""
    return _steps(x).log()


def seam(x: Tensor) -> Tensor:
    """Return the same relative to the clip's median step, and how far the frame is from the first and last one."""
    steps = _steps(x)
    ends = torch.stack([_apart(x, x[:, :1]), _apart(x, x[:, -1:])], 2)
    return (torch.cat([steps, ends], 2) / steps.flatten(1).median(1).values[:, None, None]).log()


def background(x: Tensor) -> Tensor:
    """Return what stands still, the median over time, as few pixels; the same for each frame."""
    still = x.median(1).values
    return F.adaptive_avg_pool2d(still, _STILL).flatten(1)[:, None].expand(-1, x.shape[1], -1)


def middle(x: Tensor) -> Tensor:
    """Return the frame in the middle as few pixels; the same for each frame."""
    one = x[:, x.shape[1] // 2]
    return F.adaptive_avg_pool2d(one, 2 * _STILL).flatten(1)[:, None].expand(-1, x.shape[1], -1)


def framewise(see: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a cue of images as a cue of each frame."""
    return lambda x: see(x.flatten(0, 1)).unflatten(0, x.shape[:2])


CLIP_CUES = {
    "energy": Cue(energy, "how strong each frame is; of differences, how much moved"),
    "motion": Cue(motion, "how much each frame differs from its neighbours"),
    "seam": Cue(seam, "cuts, the seam of a loop, and the distance from the first and last frame"),
    "background": Cue(background, "what stands still, as a few pixels"),
    "middle": Cue(middle, "one frame, the middle one, as a few pixels"),
    "colours": Cue(framewise(CUES["colours"].see), "each frame's mean colour"),
    "rim": Cue(framewise(CUES["rim"].see), "the outermost pixels of each frame"),
    "residual": Cue(framewise(CUES["residual"].see), "traces of resampling and of the codec, key frames among them"),
    "border": Cue(framewise(CUES["border"].see), "flat lines along the border, as of black bars"),
}


class ClipProbe(nn.Module):
    """A video encoder (B, T, C, H, W) -> (B, 128) that sees one cue; `frames` keeps the frames apart (B, T, 128)."""

    def __init__(self, see: Callable[[Tensor], Tensor], spec: ClipSpec, dim: int = 128) -> None:
        super().__init__()
        self.see, self.spec, self.dim = see, spec, dim
        count = see(torch.zeros(1, 2, spec.channels, 32, 32)).shape[-1]
        self.layers = nn.Sequential(nn.BatchNorm1d(count, affine=False), mlp(count, 2 * dim, dim))

    def frames(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, dim)."""
        found = self.see(x.detach().float())
        return self.layers(found.flatten(0, 1)).unflatten(0, found.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, dim), the mean over the frames."""
        return self.frames(x).mean(1)


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Return the root mean square (B, T) of the differences of frames, never 0."""
    return (x - y).square().mean((2, 3, 4)).sqrt() + _LEAST


def _steps(x: Tensor) -> Tensor:
    """Return how much frames differ from the one before and the next one (B, T, 2); beyond the ends nothing does."""
    step = _apart(x[:, 1:], x[:, :-1])
    none = torch.full_like(x[:, :1, 0, 0, 0], _LEAST)
    return torch.stack([torch.cat([none, step], 1), torch.cat([step, none], 1)], 2)
