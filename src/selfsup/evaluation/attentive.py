"""The attentive probe: a learned query attends to a frozen encoder's tokens, and a linear layer reads the result."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.probe import stratified_folds

DECAYS = (1.0, 0.1, 0.01)
STEPS, BATCH, LR = 300, 256, 3e-3


class Attentive(nn.Module):
    """One head of cross-attention with one learned query, then a linear layer (as in Bardes et al., 2024, V-JEPA).

    With one query and one head the projections of keys and values can be folded into the query and the linear layer,
    so they are left out: softmax(tokens · query / √d) weighs the tokens, standardised by the training tokens.
    (B, tokens, dim) -> (B, classes).
    """

    def __init__(self, tokens: Tensor, classes: int) -> None:
        super().__init__()
        std, mean = torch.std_mean(tokens.flatten(0, 1), 0)
        self.mean, self.std = mean, std.clamp_min(1e-6)
        self.query = nn.Parameter(torch.zeros(tokens.shape[2]))
        self.linear = nn.Linear(tokens.shape[2], classes)
        nn.init.zeros_(self.linear.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        z = (tokens - self.mean) / self.std
        weight = (z @ self.query / z.shape[2] ** 0.5).softmax(1)
        return self.linear((z * weight[..., None]).sum(1))

    @torch.no_grad()
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return class ids (m,) of tokens (m, tokens, dim)."""
        device = self.query.device
        rows = (torch.from_numpy(x[i : i + 256]).to(device) for i in range(0, len(x), 256))
        return torch.cat([self(row).argmax(1) for row in rows]).cpu().numpy()


def fit_attentive(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, *, seed: int = 0) -> Attentive:
    """Train the attentive probe: AdamW, 300 steps of up to 256 samples, learning rate 0.003 falling to 0 by a cosine.

    The weight decay is the one with the lowest cross-entropy on a held-out fifth of these samples (stratified); the
    probe is then trained on all. With one sample per class nothing can be held out, and it is the middle one.

    Args:
        x: tokens (n, tokens, dim) of a frozen encoder.
        y: class ids (n,), 0 <= y < classes.
        classes: how many classes there are.
        seed: of the fold and of the batches.

    Raises:
        UserError: tokens that are not finite, or samples of one class only.
    """
    tokens, ids = torch.from_numpy(x), torch.from_numpy(y)
    if not tokens.isfinite().all():
        raise UserError("some tokens hold NaN or infinity; the encoder may have diverged")
    if len(np.unique(y)) < 2:
        raise UserError("all labels are of one class; an attentive probe needs at least two")
    decay = DECAYS[len(DECAYS) // 2]
    held = torch.from_numpy(stratified_folds(y, 5, seed) == 0)
    if held.any():
        losses = []
        for candidate in DECAYS:
            with torch.no_grad():
                probe = _train(tokens[~held], ids[~held], classes, candidate, seed)
                losses.append(float(F.cross_entropy(probe(tokens[held]), ids[held])))
        decay = DECAYS[int(np.argmin(losses))]
    return _train(tokens, ids, classes, decay, seed)


@torch.enable_grad()
def _train(tokens: Tensor, ids: Tensor, classes: int, decay: float, seed: int) -> Attentive:
    probe = Attentive(tokens, classes)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=LR, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(ids), (BATCH,), generator=generator) if len(ids) > BATCH else slice(None)
        F.cross_entropy(probe(tokens[rows]), ids[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return probe


def read_attentive(drawn: Drawn, test: Poolings) -> NDArray[np.int64]:
    """Return class ids (`selfsup.evaluation.evaluators.Evaluator`)."""
    assert drawn.num_classes is not None
    return fit_attentive(drawn.features("tokens"), drawn.y, drawn.num_classes).predict(test["tokens"])
