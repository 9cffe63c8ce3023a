"""A module in evaluation mode for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def tried_out(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode without gradients, to see what it returns; afterwards it is as it was."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
