"""Losses that tasks share: pure functions of tensors of the global batch, computed in float32 at least."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.nn.ranks import gather, global_mean, sum_over_ranks

_ROOM = 1 << 22  # logits that `info_nce` holds at once: 16 MiB


def info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float = 1.0,
    *,
    positive: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of finding `key[positive[i]]` among all keys by `query[i]` (CPC, eq. 4).

    `query` (B, d) and `key` (N, d) are compared by their scalar product over `temperature`: normalise them for cosines.
    `positive` (B,) int64 is 0..B-1 by default; key number `exclude[i]` is no candidate for query i. Chance is ln of the
    number of candidates.

    Memory is O((B + N) d): logits are made for a few queries at a time, with their exact log-sum-exp, and turned into
    the gradient at once, so that neither they nor their softmax are kept.
    """
    query, key = (x if x.dtype == torch.float64 else x.float() for x in (query, key))
    if positive is None:
        positive = torch.arange(len(query), device=query.device)
    with torch.autocast(query.device.type, enabled=False):
        loss: Tensor = _InfoNCE.apply(query, key, 1 / temperature, positive, exclude)
    return loss


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of the rows (n, K) of all processes, whose numbers may differ; 0 for no row."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, target, reduction="none")
    return global_mean(losses, torch.ones_like(losses))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return SimCLR's loss (Chen et al., 2020, eq. 1) of two views (B, d), whose rows are normalised here.

    Each of the 2B embeddings finds its other view among the 2B - 1 others: chance is ln(2B - 1).
    """
    z = torch.cat([first, second])
    z = F.normalize(z if z.dtype == torch.float64 else z.float())
    own = torch.arange(len(z), device=z.device)
    return info_nce(z, z, temperature, positive=own.roll(len(first)), exclude=own)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Return soft assignments (B, K) of samples to prototypes, shared out evenly (Caron et al., 2020, section 3.1).

    Each row sums to 1; each column, over the global batch, nearly to B / K, the nearer the more iterations. `scores`
    (B, K) are the rows of this process, of which there may be another number in each; smaller `epsilon`, harder ones.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    largest = scores.max() if len(scores) else scores.new_tensor(-torch.inf)
    shares = ((scores - gather(largest.view(1)).max()) / epsilon).exp()
    tiny = torch.finfo(shares.dtype).tiny
    for _ in range(iterations):
        shares = shares / sum_over_ranks(shares.sum(0)).clamp_min(tiny)
        shares = shares / shares.sum(1, keepdim=True).clamp_min(tiny)
    return shares


def koleo(z: Tensor) -> Tensor:
    """Return minus the mean log distance to the nearest other row of the batch (Sablayrolles et al., 2019, eq. 4).

    The rows of (B, d) are normalised here; it is small when they spread over the sphere evenly.
    """
    z = F.normalize(z if z.dtype == torch.float64 else z.float())
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2).argmax(1)
    return -(F.pairwise_distance(z, z[nearest], eps=0) + 1e-8).log().mean()


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, scale: float, positive: Tensor, exclude: Tensor | None) -> Tensor:
        total = query.new_zeros(())
        learns = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        to_query, to_key = torch.empty_like(query), torch.zeros_like(key)
        step = max(1, _ROOM // len(key))
        for begin in range(0, len(query), step):
            part = slice(begin, begin + step)
            q, right = query[part] * scale, positive[part, None]
            logits = q @ key.T
            if exclude is not None:
                logits.scatter_(1, exclude[part, None], -torch.inf)
            found = logits.gather(1, right)
            lse = logits.logsumexp(1, keepdim=True)
            total += (lse - found).sum()
            if learns:
                wrong = logits.sub_(lse).exp_()  # softmax - one-hot: the gradient of the logits
                wrong.scatter_add_(1, right, wrong.new_full((1, 1), -1).expand_as(right))
                torch.mm(wrong, key, out=to_query[part])
                to_key.addmm_(wrong.T, q)
        ctx.save_for_backward(to_query.mul_(scale / len(query)), to_key.div_(len(query)))
        return total / len(query)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        to_query, to_key = ctx.saved_tensors
        return grads[0] * to_query, grads[0] * to_key, None, None, None
