"""The linear probe, solved: multinomial logistic regression with an L2 penalty chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.errors import UserError
from selfsup.evaluation.lbfgs import minimise
from selfsup.evaluation.rows import SMALL, Features, Ids, as_ids, as_matrix, blocks, few_threads, row_space, standardise

PENALTIES = tuple(10.0**power for power in range(2, -5, -1))
NO_FOLDS = 0.1  # the penalty where no label can be held out
LARGE = 10_000  # so many samples, and one fold of them, tell enough about the penalty
ROUNDS = 10  # of 40 steps


def fit_probe(
    x: Features, y: Ids, classes: int, *, penalties: Sequence[float] = PENALTIES, seed: int = 0, alike: bool = True
) -> Probe:
    """Solve the linear probe on features that a frozen encoder gave.

    Minimises Σ cross-entropy + ½ · penalty · d · ‖weights‖² over weights and free biases, on features standardised by
    their own mean and deviation: scikit-learn's `LogisticRegression(C=1 / (penalty * d))`. The penalty is chosen by
    stratified 5-fold cross-validation on these samples alone (from 10,000 on: by one held-out fifth of at most 20,000
    of them), along a path from strong to weak that starts each problem where the last one ended and stops once the
    held-out cross-entropy rises; the lowest wins and is refitted on all samples. With one sample per class nothing can
    be held out, and the penalty is 0.1. Fewer samples than features are solved in the space that they span, which is
    exact for this penalty.

    Args:
        x: features (n, d), array or tensor; the work is done on its device.
        y: class ids (n,), 0 <= y < classes. A class without samples is never predicted.
        classes: how many classes there are.
        penalties: the candidates; a single one is taken as it is.
        seed: draws the folds.
        alike: whether each feature is divided by its own deviation, or all by one, because their scale means something.

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
        if not alike:
            one = (features - mean).square().mean().sqrt().clamp_min(1e-12)
            scale, z = torch.full_like(scale, float(one)), (features - mean) / one
        # Any full basis is exact; one that is nearly principal makes the solver fast.
        span, axes = row_space(z, max(1, len(z) // (16 * z.shape[1])))
        problem = _Problem(span, target, len(present), features.shape[1])
        start, penalty, loss = problem.choose(path, seed)
        tolerance = 1e-7 if work <= SMALL else 1e-6
        weights = problem.solve(torch.ones_like(span[:, :1]), penalty, start, tolerance)[:, 0]
    return Probe(mean, scale, axes @ weights[:-1], weights[-1], present, classes, penalty, loss)


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
    loss: float = math.nan  # cross-entropy a held-out sample at this penalty; nan where nothing was held out

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
        ids: NDArray[np.int64] = self.scores(x).argmax(1)
        return ids


@dataclass(frozen=True)
class _Problem:
    """Softmax regression in the span of the features, for several subsets of the samples (folds) at once."""

    span: Tensor  # (n, r + 1), ends in a one for the bias
    target: Tensor  # (n,)
    classes: int
    dim: int  # d

    def choose(self, path: Sequence[float], seed: int) -> tuple[Tensor, float, float]:
        """Return where the final solution starts, (r + 1, 1, classes), and the penalty and its held-out loss."""
        start = self.span.new_zeros((self.span.shape[1], 1, self.classes))
        if len(path) == 1:
            return start, path[0], math.nan
        if len(self.target) >= 2 * LARGE:
            part = stratified_folds(self.target.cpu().numpy(), len(self.target) // LARGE, seed) == 0
            rows = torch.from_numpy(part).to(self.target.device)
            return _Problem(self.span[rows], self.target[rows], self.classes, self.dim).choose(path, seed)
        counts = torch.bincount(self.target)
        if counts.max() == 1:
            return start, NO_FOLDS, math.nan
        folds = min(5, int(counts.max()))
        held = torch.from_numpy(stratified_folds(self.target.cpu().numpy(), folds, seed)).to(self.target.device)
        tested = torch.arange(1 if len(held) >= LARGE else folds, device=held.device)
        used = (held[:, None] != tested).to(self.span.dtype)
        weights, best = start.expand(-1, len(tested), -1), math.inf
        for penalty in path:
            weights = self.solve(used, penalty, weights, 1e-3)
            loss = self.held_out(used, weights)
            if loss >= best:
                break
            best, chosen, start = loss, penalty, weights.mean(1, keepdim=True)
        return start, chosen, best / float((1 - used).sum())

    def solve(self, used: Tensor, penalty: float, start: Tensor, tolerance: float) -> Tensor:
        """Return the weights (r + 1, B, classes) for each subset `used` (n, B); `tolerance` as in `minimise`."""
        ridge = start.new_full((len(start), 1, 1), penalty * self.dim)
        ridge[-1] = 0

        floor = torch.finfo(start.dtype).eps * used.sum(0).double()

        def objective(weights: Tensor) -> tuple[Tensor, Tensor]:
            value = (ridge * weights**2).sum((0, 2)).double() / 2
            gradient = (ridge * weights).flatten(1).T
            for rows in blocks(len(self.span), weights[0].numel()):
                log_p = self.log_softmax(rows, weights)
                target = self.target[rows, None, None].expand(-1, log_p.shape[1], 1)
                value -= (log_p.gather(2, target)[..., 0] * used[rows]).sum(0)
                p = log_p.exp_().scatter_add_(2, target, log_p.new_full((1, 1, 1), -1).expand_as(target))
                gradient = torch.addmm(gradient, (p * used[rows, :, None]).flatten(1).T, self.span[rows])
            return value, gradient.T.reshape(weights.shape)

        weights = start
        for _ in range(ROUNDS):  # where the curvature has changed on the way, a fresh one is worth more than memory
            curvature = self.curvature(used, weights) + ridge
            weights, done = minimise(objective, weights, curvature, tolerance, floor=floor, steps=40)
            if done:
                break
        return weights

    def curvature(self, used: Tensor, weights: Tensor) -> Tensor:
        """Return the diagonal of the Hessian of the cross-entropy, (r + 1, B, classes)."""
        total = weights.new_zeros(weights[0].numel(), len(weights))
        for rows in blocks(len(self.span), weights[0].numel()):
            p = self.log_softmax(rows, weights).exp_()
            total = torch.addmm(total, (p * (1 - p) * used[rows, :, None]).flatten(1).T, self.span[rows] ** 2)
        return total.T.reshape(weights.shape).clamp_min(1e-9 * float(total.max()))

    def held_out(self, used: Tensor, weights: Tensor) -> float:
        """Return the summed cross-entropy of the samples that each subset leaves out."""
        loss = 0.0
        for rows in blocks(len(self.span), weights[0].numel()):
            log_p = self.log_softmax(rows, weights)
            target = self.target[rows, None, None].expand(-1, log_p.shape[1], 1)
            loss -= float((log_p.gather(2, target)[..., 0] * (1 - used[rows])).sum())
        return loss

    def log_softmax(self, rows: slice, weights: Tensor) -> Tensor:
        columns = weights.flatten(1).T.contiguous()  # the product is twice as fast with few classes laid out like this
        return (self.span[rows] @ columns.T).view(-1, *weights.shape[1:]).log_softmax(2)
