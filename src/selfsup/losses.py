"""Losses that tasks share: pure functions of the global batch, computed in float32 or more."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import gather, global_mean, sum_over_ranks


def full(x: Tensor) -> Tensor:
    """Return the tensor in float32, or float64 if it already is: 16 bits are too few for sums over a batch."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Tensor) -> Tensor:
    """Return the rows (..., d) scaled to unit length, in full precision."""
    return F.normalize(full(x), dim=-1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b in full precision: autocast would use 16 bits, too few for cosines and statistics."""
    with torch.autocast(a.device.type, enabled=False):
        return full(a) @ full(b)


_ROOM = {"cpu": 1 << 22}  # logits that `info_nce` holds at once: 16 MiB fit the CPU's cache; elsewhere 128 MiB


def info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float = 1.0,
    *,
    positive: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of finding `key[positive[i]]` among all keys by `query[i]` (CPC, eq. 4).

    Logits are the scalar products of `query` (B, d) and `key` (N, d), divided by `temperature`; normalize both for
    cosines. `positive` (B,) int64 defaults to 0..B-1; key `exclude[i]` is not a candidate for query i. Chance is the ln
    of the number of candidates.

    Memory is O((B + N) d): logits are computed for a few queries at a time, with their exact log-sum-exp, and turned
    into the gradient immediately, so that neither they nor their softmax are stored.
    """
    query, key = full(query), full(key)
    if positive is None:
        positive = torch.arange(len(query), device=query.device)
    with torch.autocast(query.device.type, enabled=False):
        return _InfoNCE.apply(query, key, 1 / temperature, positive, exclude)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy over the rows (n, K) of all processes, of which n may differ; 0 without rows."""
    logits = full(logits)
    losses = F.cross_entropy(logits, target, reduction="none")
    return global_mean(losses, torch.ones_like(losses))


def npairs(anchor: Tensor, positive: Tensor, regularizer: float = 0.002, *, among: Tensor | None = None) -> Tensor:
    """Return the multi-class n-pairs loss of unnormalized embeddings (B, d) (Sohn, 2016, eq. 6).

    Row i of `anchor` finds row i of `positive` among all rows, or those that `among` (B, B) bool allows, by their
    scalar product; `regularizer` / 4 times the mean squared lengths of both is added. Chance is the mean ln of the
    number of candidates.
    """
    anchor, positive = full(anchor), full(positive)
    logits = product(anchor, positive.T)
    if among is not None:
        logits = logits.masked_fill(~among, -torch.inf)
    found = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
    lengths = anchor.square().sum(1).mean() + positive.square().sum(1).mean()
    return found + regularizer / 4 * lengths


def semi_hard(anchor: Tensor, other: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return the triplet loss with semi-hard negatives of squared distances (Schroff et al., 2015, section 3.2).

    `positive` and `negative` (A, N) bool say which of `other` (N, d) are which to which `anchor` (A, d). The negative
    of a pair is the nearest one that is further from the anchor than the positive or, where there is none, the furthest
    one. Returns the mean over the pairs whose anchor has a negative; 0 without any.
    """
    anchor, other = full(anchor), full(other)
    lengths = anchor.square().sum(1, keepdim=True) + other.square().sum(1)
    distance = (lengths - 2 * product(anchor, other.T)).clamp_min(0)
    of, paired = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
    near = distance[of, paired]
    with torch.no_grad():
        allowed, far = negative[of], distance[of]
        outside = far.masked_fill(~(allowed & (far > near[:, None])), torch.inf)
        furthest = far.masked_fill(~allowed, -torch.inf).argmax(1)
        chosen = torch.where(outside.amin(1) < torch.inf, outside.argmin(1), furthest)
    return F.relu(near - distance[of, chosen] + margin).sum() / max(len(of), 1)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return SimCLR's loss (Chen et al., 2020, eq. 1) of two views (B, d); their rows are normalized here.

    Each of the 2B embeddings finds its other view among the 2B - 1 others: chance is ln(2B - 1).
    """
    z = unit(torch.cat([first, second]))
    own = torch.arange(len(z), device=z.device)
    return info_nce(z, z, temperature, positive=own.roll(len(first)), exclude=own)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Return soft, balanced assignments (B, K) of samples to prototypes (Caron et al., 2020, section 3.1).

    Each row sums to 1, and with more iterations each column approaches B / K over the global batch. `scores` (B, K) are
    those of this process, of which B may differ between processes. A smaller `epsilon` gives harder assignments.
    """
    scores = full(scores)
    largest = scores.max() if len(scores) else scores.new_tensor(-torch.inf)
    assignment = ((scores - gather(largest.view(1)).max()) / epsilon).exp()
    tiny = torch.finfo(assignment.dtype).tiny
    for _ in range(iterations):
        assignment = assignment / sum_over_ranks(assignment.sum(0)).clamp_min(tiny)
        assignment = assignment / assignment.sum(1, keepdim=True).clamp_min(tiny)
    return assignment


def koleo(z: Tensor) -> Tensor:
    """Return the negative mean log distance to the nearest other row of the batch (Sablayrolles et al., 2019, eq. 4).

    The rows of (B, d) are normalized here; the loss is small when they are spread evenly over the sphere.
    """
    z = unit(z)
    with torch.no_grad():
        nearest = product(z, z.T).fill_diagonal_(-2).argmax(1)
    return -(F.pairwise_distance(z, z[nearest], eps=0) + 1e-8).log().mean()


def gram_distance(x: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of the cosines of places (B, N, d), each with each, from those of a target.

    Gram anchoring (Siméoni et al., 2025): the features may change as long as their places stay as alike as they are in
    `target` (B, N, D).
    """
    cosines, wanted = (product(z, z.transpose(1, 2)) for z in (unit(x), unit(target)))
    return F.mse_loss(cosines, wanted)


def cross_view_entropy(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of each view with the targets of every other one (Caron et al., 2021, eq. 3).

    `targets` (T, B, K) are probabilities for the first T views; `logits` (V, B, K), for all views, are divided by
    `temperature`. Chance is ln K.
    """
    log = F.log_softmax(full(logits) / temperature, 2)
    pairs = len(targets) * (len(logits) - 1) * logits.shape[1]
    return ((targets * log[: len(targets)]).sum() - (targets.sum(0) * log.sum(0)).sum()) / pairs


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, scale: float, positive: Tensor, exclude: Tensor | None) -> Tensor:
        total = query.new_zeros(())
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        to_query, to_key = torch.empty_like(query), torch.zeros_like(key)
        step = max(1, _ROOM.get(key.device.type, 1 << 25) // len(key))
        for begin in range(0, len(query), step):
            part = slice(begin, begin + step)
            q, right = query[part] * scale, positive[part]
            logits = q @ key.T
            if exclude is not None:
                logits.scatter_(1, exclude[part, None], -torch.inf)
            found, largest = logits.gather(1, right[:, None]), logits.amax(1, keepdim=True)
            softmax = logits.sub_(largest).exp_()  # times `sums`
            sums = softmax.sum(1, keepdim=True)
            total += (largest + sums.log() - found).sum()
            if needs_grad:  # softmax - one-hot is the gradient of the logits
                torch.mm(softmax, key, out=to_query[part])
                to_query[part].div_(sums).sub_(key[right])
                to_key.addmm_(softmax.T, q / sums).index_add_(0, right, q, alpha=-1)
        ctx.save_for_backward(to_query.mul_(scale / len(query)), to_key.div_(len(query)))
        return total / len(query)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        to_query, to_key = ctx.saved_tensors
        return grads[0] * to_query, grads[0] * to_key, None, None, None


def barlow_twins(first: Tensor, second: Tensor, redundancy: float) -> Tensor:
    """Return Σ (1 - C_ii)² + `redundancy` · Σ C_ij² (i ≠ j) of the cross-correlation C of two views (B, d).

    Zbontar et al., 2021, equations 1 and 2.
    """
    first, second = (standardise(x) for x in (first, second))
    correlation = product(first.T, second) / len(first)
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + redundancy * off


def standardise(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return (B, d) with mean 0 and variance 1 in each column, like BatchNorm without affine weights."""
    x = full(x)
    x = x - x.mean(0)
    return x * (x.square().mean(0) + eps).rsqrt()


def vicreg_terms(first: Tensor, second: Tensor, eps: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """Return the invariance, variance and covariance terms of two views (B, d): Bardes et al., 2022, eq. 5, 1 and 3.

    As in the authors' code, the variance term is averaged over the two views and the covariance term is summed.
    """
    first, second = full(first), full(second)
    variance, covariance = first.new_zeros(()), first.new_zeros(())
    for z in (first, second):
        variance = variance + F.relu(1 - (z.var(0) + eps).sqrt()).mean() / 2
        z = z - z.mean(0)
        matrix = product(z.T, z) / (len(z) - 1)
        covariance = covariance + (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]
    return F.mse_loss(first, second), variance, covariance


def sigreg(z: Tensor, directions: Tensor, knots: int = 17, reach: float = 3.0) -> Tensor:
    """Return how far the rows of (N, d) are from a standard normal: LeJEPA's SIGReg (Balestriero & LeCun, 2025).

    The rows are projected onto unit `directions` (d, M). Each projection is compared with N(0, 1) by the Epps-Pulley
    statistic, N ∫ |φ_N(t) - exp(-t²/2)|² exp(-t²/2) dt, with the trapezoid rule on `knots` points in [0, `reach`],
    doubled for the other half line. Returns the mean over the directions; a standard normal gives 1.06 for any N.
    """
    z = full(z)
    t = torch.linspace(0, reach, knots, dtype=z.dtype, device=z.device)
    weight = torch.full_like(t, 2 * reach / (knots - 1))
    weight[0] /= 2
    weight[-1] /= 2
    normal = torch.exp(-t.square() / 2)
    angle = product(z, directions.to(z.dtype))[:, :, None] * t
    error = (angle.cos().mean(0) - normal).square() + angle.sin().mean(0).square()
    return len(z) * product(error, weight * normal).mean()


def normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, I)) in nats (N,), of rows (N, d)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def normal_nats(guess: Tensor, x: Tensor) -> Tensor:
    """Return -log N(x; guess, I) in nats (N,), summed over all dimensions but the first, without the constant."""
    return 0.5 * (guess - x).square().flatten(1).sum(1)
