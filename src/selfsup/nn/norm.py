"""Batch normalisation over the global batch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfsup.nn.ranks import sum_over_ranks, world_size


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` for (B, C) whose statistics are those of all processes' samples (torch's own needs a GPU)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = len(x) * world_size()
        mean = sum_over_ranks(x.sum(0)) / count
        var = sum_over_ranks((x - mean).square().sum(0)) / count
        if self.track_running_stats and self.momentum is not None:
            assert self.running_mean is not None
            assert self.running_var is not None
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var.detach() * count / (count - 1)).to(self.running_var.dtype), self.momentum)
        x = (x - mean) * (var + self.eps).rsqrt()
        return (x * self.weight + self.bias if self.affine else x).to(input.dtype)
