"""The memory layout of convolution weights."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(module: nn.Module) -> None:
    """Convert the weights of 2-D and 3-D convolutions to channels-last memory, which is faster."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
        elif tensor.ndim == 5:
            tensor.data = tensor.data.to(memory_format=torch.channels_last_3d)
