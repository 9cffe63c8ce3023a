"""The linear probe, solved: multinomial logistic regression with an L2 penalty chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.errors import UserError
from selfsup.evaluation.lbfgs import Inverse, minimise
from selfsup.evaluation.rows import (
    SMALL,
    Features,
    Ids,
    as_ids,
    as_matrix,
    blocks,
    few_threads,
    principal_axes,
    row_space,
    standardise,
)

PENALTIES = tuple(10.0**power for power in range(2, -5, -1))
NO_FOLDS = 0.1  # the penalty where no label can be held out
LARGE = 10_000  # samples that are enough to choose the penalty
MANY = 100  # classes that are enough for that
ONE_FOLD = 100_000  # samples times classes from which on one fold is enough
SOME = 4096  # samples that are enough to estimate the curvature
LENGTHS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06)  # of the first step
ROUNDS = 10  # of 40 steps each


def fit_probe(
    x: Features,
    y: Ids,
    classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
    per_feature: bool = True,
    weights: Tensor | None = None,
) -> Probe:
    """Solve the linear probe on the features of a frozen encoder.

    Minimises Σ cross-entropy + ½ · penalty · d · ‖weights‖² over weights and free biases, on features standardised by
    their own mean and standard deviation: scikit-learn's `LogisticRegression(C=1 / (penalty * d))`. The penalty is
    chosen by stratified 5-fold cross-validation on these samples alone (on a part of them where there are many samples
    or classes: see docs/evaluation.md), along a path from strong to weak that starts each problem where the last one
    ended, and stops once the held-out cross-entropy rises; the lowest wins and is refitted on all samples. With one
    sample per class nothing can be held out, and the penalty is 0.1. Fewer samples than features are solved in the
    space that they span, which is exact for this penalty.

    Args:
        x: features (n, d), array or tensor; the work is done on its device.
        y: class ids (n,), 0 <= y < classes. A class without samples is never predicted.
        classes: how many classes there are.
        penalties: the candidates; a single one is taken as it is.
        seed: draws the folds.
        per_feature: whether each feature is divided by its own standard deviation; otherwise all are divided by one,
            because their scale means something.
        weights: how much each sample (n,) counts, 1 by default; then `penalties` is a single one.

    Raises:
        UserError: features that are not finite or not (n, d), ids out of range, samples of one class only.
    """
    features = as_matrix(x)
    ids = as_ids(y, len(features), classes, features.device)
    present, target = torch.unique(ids, return_inverse=True)
    if len(present) < 2:
        raise UserError("all labels are of one class; a linear probe needs at least two")
    path = sorted(penalties, reverse=True)
    if not path or path[-1] <= 0:
        raise UserError("a linear probe needs at least one penalty, and each above 0")
    work = len(features) * min(features.shape) * len(present)
    with few_threads(work):
        mean, scale, z = standardise(features, work)
        if not per_feature:
            one = (features - mean).square().mean().sqrt().clamp_min(1e-12)
            scale, z = torch.full_like(scale, float(one)), (features - mean) / one
        ones = torch.ones_like(z[:, :1])
        counted = ones if weights is None else weights.to(ones)[:, None]
        back, large = None, len(z) >= LARGE  # rotating all rows then costs more than rotating the weights now and then
        if not large:
            z, back = row_space(z)
        span = torch.cat([z, ones], 1)
        axes = None
        if large:
            axes = torch.eye(span.shape[1], dtype=z.dtype, device=z.device)
            axes[:-1, :-1] = principal_axes(z)
        problem = _Problem(span, axes, target, len(present), features.shape[1])
        start, penalty, loss = problem.choose(path, seed)
        coarse = large or len(present) >= 2 * MANY or weights is not None
        solved = problem.solve(counted, penalty, start, 1e-7 if work <= SMALL else 1e-4 if coarse else 1e-6)[:, 0]
        weight = solved[:-1] if back is None else back @ solved[:-1]
    return Probe(mean, scale, weight, solved[-1], present, classes, penalty, loss)


def stratified_folds(target: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold (n,) in which each sample is held out; -1, never, for the only sample of a class.

    Every fold has nearly the same number of each class, and no fold holds out all samples of a class.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(len(target), -1)
    taken = 0
    for members in (np.flatnonzero(target == c) for c in np.unique(target)):
        if len(members) > 1:
            fold[rng.permutation(members)] = (taken + np.arange(len(members))) % folds
            taken += len(members)
    return fold


@dataclass(frozen=True)
class Probe:
    """A linear classifier; see `fit_probe`."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,), infinite for constant features
    weight: Tensor  # (d, classes present)
    bias: Tensor  # (classes present,)
    present: Tensor  # ids of the classes that had samples
    classes: int
    penalty: float  # per feature: scikit-learn's C is 1 / (penalty * d)
    loss: float = math.nan  # cross-entropy per held-out sample at this penalty; nan where nothing was held out

    def scores(self, x: Features) -> NDArray[np.float32]:
        """Return logits (m, classes); -inf for a class that had no samples."""
        features = as_matrix(x).to(self.weight.device)
        scores = features.new_full((len(features), self.classes), -torch.inf)
        for rows in blocks(len(features), max(self.weight.shape)):
            z = (features[rows] - self.mean) / self.scale
            scores[rows, self.present] = (z @ self.weight + self.bias).float()
        return scores.cpu().numpy()

    def predict(self, x: Features) -> NDArray[np.int64]:
        """Return class ids (m,)."""
        return self.scores(x).argmax(1)


@dataclass(frozen=True)
class _Problem:
    """Softmax regression for several subsets of the samples (folds) at once."""

    span: Tensor  # (n, r + 1), samples in coordinates that keep lengths; ends in a one for the bias
    axes: Tensor | None  # (r + 1, r + 1), nearly principal axes, the last for the bias; None where these are the span's
    target: Tensor  # (n,)
    classes: int
    dim: int  # d

    def choose(self, path: Sequence[float], seed: int) -> tuple[Tensor | None, float, float]:
        """Return where the final solution starts, (r + 1, 1, classes), and the penalty and its held-out loss."""
        if len(path) == 1:
            return None, path[0], math.nan
        if self.classes >= 2 * MANY:
            chosen = torch.from_numpy(np.random.default_rng(seed).permutation(self.classes)[:MANY])
            place = torch.full((self.classes,), -1).index_put_((chosen,), torch.arange(MANY)).to(self.target.device)
            return None, *self.part(place[self.target] >= 0, place, MANY).choose(path, seed)[1:]
        if len(self.target) >= 2 * LARGE:
            part = stratified_folds(self.target.cpu().numpy(), len(self.target) // LARGE, seed) == 0
            same = torch.arange(self.classes, device=self.target.device)
            return self.part(torch.from_numpy(part).to(same.device), same, self.classes).choose(path, seed)
        counts = torch.bincount(self.target)
        if counts.max() == 1:
            return None, NO_FOLDS, math.nan
        folds = min(5, int(counts.max()))
        held = torch.from_numpy(stratified_folds(self.target.cpu().numpy(), folds, seed)).to(self.target.device)
        tested = torch.arange(1 if len(held) * self.classes >= ONE_FOLD else folds, device=held.device)
        used = (held[:, None] != tested).to(self.span.dtype)
        weights, best = self.span.new_zeros((self.span.shape[1], len(tested), self.classes)), math.inf
        start = weights[:, :1]
        for penalty in path:
            weights = self.solve(used, penalty, weights, 1e-3)
            loss = self.held_out(used, weights)
            if loss >= best:
                break
            best, found, start = loss, penalty, weights.mean(1, keepdim=True)
        return start, found, best / float((1 - used).sum())

    def part(self, rows: Tensor, place: Tensor, classes: int) -> _Problem:
        """Return the problem of some samples, of classes that have a new `place` (classes,) in it."""
        return _Problem(self.span[rows], self.axes, place[self.target[rows]], classes, self.dim)

    def solve(self, used: Tensor, penalty: float, start: Tensor | None, tolerance: float) -> Tensor:
        """Return the weights (r + 1, B, classes) for each subset `used` (n, B); `tolerance` as in `minimise`."""
        ridge = self.span.new_full((self.span.shape[1], 1, 1), penalty * self.dim)
        ridge[-1] = 0
        floor = torch.finfo(ridge.dtype).eps * used.sum(0).double()

        def objective(weights: Tensor) -> tuple[Tensor, Tensor]:
            value = (ridge * weights**2).sum((0, 2)).double() / 2
            gradient = (ridge * weights).flatten(1).T.contiguous()
            for rows, log_p, target in self.log_softmax(weights):
                value -= (log_p.gather(2, target)[..., 0] * used[rows]).sum(0)
                p = log_p.exp_().scatter_add_(2, target, log_p.new_full((1, 1, 1), -1).expand_as(target))
                gradient.addmm_((p.mul_(used[rows, :, None])).flatten(1).T, self.span[rows])
            return value, gradient.T.reshape(weights.shape)

        weights = self.discriminant(used, ridge) if start is None else start
        for _ in range(ROUNDS):  # where the curvature has changed on the way, a fresh guess is worth more than memory
            inverse = self.inverse(used, weights, ridge)
            weights, done = minimise(objective, weights, inverse, tolerance, floor=floor, steps=40)
            if done:
                break
        return weights

    def discriminant(self, used: Tensor, ridge: Tensor) -> Tensor:
        """Return Newton's step from the frequencies of the classes alone, of the length that suits the objective best.

        Up to its length it is the linear discriminant, and needs no product with all classes.
        """
        sums = self.span.new_zeros(self.classes, *used.shape[1:], self.span.shape[1])
        for fold, weight in enumerate(used.T):
            sums[:, fold].index_add_(0, self.target, self.span * weight[:, None])
        prior = sums[..., -1:] / sums[..., -1:].sum(0)
        start = self.span.new_zeros(self.span.shape[1], used.shape[1], self.classes)
        start[-1] = prior[..., 0].T.clamp_min(1e-9).log()
        gradient = (prior * sums.sum(0) - sums).permute(2, 1, 0)
        step = -self.inverse(used, start, ridge)(gradient)
        rows, few = self.few()
        best = torch.full((used.shape[1],), math.inf, dtype=torch.float64, device=used.device)
        found = start
        for length in LENGTHS:
            trial = start + length * step
            loss = (ridge * trial**2).sum((0, 2)).double() / 2
            for block, log_p, target in few.log_softmax(trial):
                loss -= (log_p.gather(2, target)[..., 0] * used[rows[block]]).sum(0) * (len(used) / len(rows))
            found = torch.where((loss < best)[:, None], trial, found)
            best = torch.minimum(loss, best)
        return found

    def few(self) -> tuple[Tensor, _Problem]:
        """Return the numbers of at most SOME samples, evenly spread, and their problem."""
        rows = torch.arange(0, len(self.span), -(-len(self.span) // SOME), device=self.span.device)
        return rows, self.part(rows, torch.arange(self.classes, device=rows.device), self.classes)

    def inverse(self, used: Tensor, weights: Tensor, ridge: Tensor) -> Inverse:
        """Return the inverse of a guess of the Hessian: a curvature per class times one per axis, plus the ridge."""
        rows, few = self.few()
        by_class, by_axis = torch.zeros_like(weights[:1]), weights.new_zeros(len(weights), used.shape[1])
        for block, log_p, _ in few.log_softmax(weights):
            p = log_p.exp_()
            bends = (p * (1 - p)).mul_(used[rows[block], :, None])
            by_class += bends.sum(0)
            along = few.span[block] if self.axes is None else few.span[block] @ self.axes
            by_axis += (along**2).T @ bends.sum(2)
        by_class = (by_class * (len(self.span) / len(rows))).clamp_min(1e-9)
        by_class = by_class.maximum(0.01 * by_class.mean(2, keepdim=True))
        by_axis = (by_axis / by_axis[-1]).clamp_min(1e-9)[..., None]
        curvature = by_class * by_axis + torch.cat([ridge[:1].expand(len(by_axis) - 1, 1, 1), ridge[-1:]])

        def inverse(q: Tensor) -> Tensor:
            if self.axes is None:
                return q / curvature
            rotated = (self.axes.T @ q.flatten(1)).view_as(curvature) / curvature
            return (self.axes @ rotated.flatten(1)).view_as(q)

        return inverse

    def held_out(self, used: Tensor, weights: Tensor) -> float:
        """Return the summed cross-entropy of the samples that each subset leaves out."""
        loss = 0.0
        for rows, log_p, target in self.log_softmax(weights):
            loss -= float((log_p.gather(2, target)[..., 0] * (1 - used[rows])).sum())
        return loss

    def log_softmax(self, weights: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield, for blocks of samples, their rows, log-probabilities (b, B, classes) and classes (b, B, 1)."""
        columns = weights.flatten(1).T.contiguous()  # the product is twice as fast with few classes laid out like this
        for rows in blocks(len(self.span), max(columns.shape), 2**20):
            log_p = (self.span[rows] @ columns.T).view(-1, *weights.shape[1:]).log_softmax(2)
            yield rows, log_p, self.target[rows, None, None].expand(-1, log_p.shape[1], 1)
