"""Normalization: over the global batch on any device, of the channels at a step, over the places of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup.base.distributed import sum_over_ranks, world_size
from selfsup.losses import full
from selfsup.task import Encoder


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` for (B, C) with the statistics of all processes' samples (torch's own needs a GPU)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        return super().forward(input) if not self.training or world_size() == 1 else _normalized(self, input)


class BatchNormMaps(nn.BatchNorm2d):
    """The same for feature maps (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(input) if not self.training or world_size() == 1 else _normalized(self, input)


class BatchNormClips(nn.BatchNorm3d):
    """The same for feature maps over time (B, C, T, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, H, W)."""
        return super().forward(input) if not self.training or world_size() == 1 else _normalized(self, input)


class ChannelNorm(nn.LayerNorm):
    """Layer normalization of the channels of (B, C, T) at each step."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


def in_shuffled_parts(encode: Callable[[Tensor], Tensor], x: Tensor, order: Tensor, count: int) -> Tensor:
    """Return encode(x), computed in `count` parts of a random order (B,) of the samples; each part has two at least.

    In training each has BatchNorm statistics of its own, by which a sample cannot be told (He et al., 2020, section
    3.3).
    """
    parts = x[order].tensor_split(min(count, max(1, len(x) // 2)))
    found = torch.cat([encode(part) for part in parts])
    return torch.empty_like(found).index_copy_(0, order, found)


def mean_of_layers(layers: Sequence[Tensor]) -> Tensor:
    """Return the mean of layers (B, N, d), each normalized over the N places of its sample (InstanceNorm).

    The target of data2vec (Baevski et al., 2022, section 3.3).
    """
    each = [F.instance_norm(full(layer).transpose(1, 2)) for layer in layers]
    return torch.stack(each).mean(0).transpose(1, 2)


def synchronised(encoder: Any, device: torch.device) -> Encoder:
    """Make an encoder's BatchNorm use the statistics of all processes' samples; on GPUs with torch's faster one."""
    if world_size() > 1 and device.type == "cuda":
        encoder = convert_sync_batchnorm(encoder)
    elif world_size() > 1:
        for module in encoder.modules():
            for plain, own in ((nn.BatchNorm2d, BatchNormMaps), (nn.BatchNorm3d, BatchNormClips)):
                if type(module) is plain:
                    module.__class__ = own
    return encoder


def keep_statistics(encoder: Any) -> None:
    """Let an encoder's BatchNorm normalize by the statistics that it has, in training too, and never change them."""
    for module in encoder.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _Kept):
            own: Any = type(module)
            module.__class__ = _kept(own)
            module.eval()


def keeps_statistics(encoder: Any) -> bool:
    """Return whether `keep_statistics` was called for an encoder that has BatchNorm."""
    return isinstance(encoder, nn.Module) and any(isinstance(module, _Kept) for module in encoder.modules())


class _Kept(nn.Module):
    """Always in evaluation mode; copies are, too."""

    def train(self, mode: bool = True) -> Self:
        """Leave the module in evaluation mode."""
        return super().train(False)


@cache
def _kept(norm: Any) -> Any:
    return type(f"Kept{norm.__name__}", (_Kept, norm), {})


def _normalized(norm: BatchNorm | BatchNormMaps | BatchNormClips, input: Tensor) -> Tensor:
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    dims, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    own = x.new_full((1,), x.numel() // x.shape[1])  # processes have different numbers of masked patches
    total = sum_over_ranks(torch.cat([x.sum(dims), own]))
    mean, count = total[:-1] / total[-1], total[-1].detach()
    var = sum_over_ranks((x - mean.view(shape)).square().sum(dims)) / count
    if norm.track_running_stats and norm.momentum is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean.detach().to(norm.running_mean.dtype), norm.momentum)
        norm.running_var.lerp_((var.detach() * count / (count - 1)).to(norm.running_var.dtype), norm.momentum)
    x = (x - mean.view(shape)) * (var.view(shape) + norm.eps).rsqrt()
    return (x * norm.weight.view(shape) + norm.bias.view(shape) if norm.affine else x).to(input.dtype)
