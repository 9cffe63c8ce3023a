"""The collapse signal: a check of the representation on the features that training computes anyway."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import MethodType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

SECONDS = 2.0  # between two checks
ROWS = 128  # of features that are checked
STUCK_AFTER = 0.2  # of the run: a loss at its chance value means nothing before
WATCHED: dict[str, Callable[[Any], Tensor]] = {  # methods besides `forward` -> the features in what they return
    "tokens": lambda output: output.mean(1),
    "with_maps": lambda output: output[0],
}


class CollapseSignal:
    """Watches the output of the encoder: its representation or, if a task asks for tokens, their mean.

    `collapsed`: the L2-normalized features of a batch hardly differ (their standard deviation, averaged over the
    dimensions, is below 2% of the 1 / √d of independent directions), or vary along one direction alone (effective rank
    below 1.5).
    `stuck`: a fifth of the run is over, and the loss is within 2% of its chance value. Otherwise `healthy`, which does
    not mean that the features are useful. Of one sample none of them can be told.
    """

    def __init__(self, encoder: Any, samples: int) -> None:
        self.samples = samples
        self.features: Tensor | None = None
        self.encoder = encoder
        self.methods = [name for name in WATCHED if hasattr(type(encoder), name)]
        for name in self.methods:
            setattr(encoder, name, MethodType(self._watched(getattr(type(encoder), name), WATCHED[name]), encoder))
        self.handle = encoder.register_forward_hook(self._keep)
        self.checked_at = 0.0
        self.numbers: dict[str, float] = {}
        self.word = ""

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 2:
            self.features = output.detach()

    def _watched(self, method: Callable[..., Any], features: Callable[[Any], Tensor]) -> Callable[..., Any]:
        """Return the method, of any encoder: that of a copy of this one must not compute with this one's weights."""

        def watched(module: nn.Module, *inputs: Any, **more: Any) -> Any:
            output = method(module, *inputs, **more)
            if module is self.encoder:
                self.features = features(output).detach()
            return output

        return watched

    def check(self, loss: float, chance: float | None, progress: float) -> None:
        """Set `word`, and `numbers`: `spread` (1 for independent directions, 0 for a point) and `rank`."""
        now = time.monotonic()
        if now - self.checked_at < SECONDS and progress < 1:
            return
        self.checked_at = now
        collapsed = False
        if self.samples > 1 and self.features is not None and len(self.features) > 2:
            spread, rank = spread_and_rank(self.features[:: max(1, len(self.features) // ROWS)][:ROWS])
            self.numbers = {"spread": spread, "rank": rank}
            collapsed = spread < 0.02 or rank < 1.5
        stuck = chance is not None and progress > STUCK_AFTER and abs(loss - chance) < 0.02 * chance
        self.word = "collapsed" if collapsed else "stuck" if stuck else "healthy" if self.numbers else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.handle.remove()
        for name in self.methods:
            delattr(self.encoder, name)


def spread_and_rank(features: Tensor) -> tuple[float, float]:
    """Return the std of the normalized rows of (n, d) times √d, and the effective rank of the centred rows.

    The rank is exp of the entropy of the normalized singular values (Roy and Vetterli, 2007), at most min(n - 1, d).
    """
    z = nn.functional.normalize(features.float(), dim=1)
    spread = float(z.std(0).mean()) * z.shape[1] ** 0.5
    centred = z - z.mean(0)
    singular = torch.linalg.eigvalsh((centred @ centred.T).double()).clamp_min(0).sqrt()
    if float(singular.sum()) < 1e-6:
        return spread, 0.0
    fraction = singular / singular.sum()
    return spread, float(torch.special.entr(fraction).sum().exp())
