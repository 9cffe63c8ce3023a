"""Measures of a representation that need no labels.

None of them is an accuracy, and none ranks representations reliably across methods: read several together. All take
features (n, d) of a frozen encoder, as array or tensor, and raise `UserError` for features that are not finite.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import UserError
from selfsup.evaluation.rows import Features, as_matrix, blocks


def rankme(x: Features) -> float:
    """Return RankMe, 1 to min(n, d): exp of the entropy of the singular values over their sum.

    Garrido et al., "RankMe", 2023, equation 2; features are not centred. A soft rank: how many directions carry
    something. It reveals collapse, and compares runs of one method on one data set and one n. It cannot compare
    methods or widths: noise in every direction has full rank and no use.
    """
    return _soft_count(_eigenvalues(as_matrix(x).double()).sqrt())


def lidar(views: Tensor, *, delta: float = 1e-4) -> float:
    """Return LiDAR, 1 to min(n - 1, d): the soft rank of what varies between samples rather than between views.

    Thilak et al., "LiDAR", 2024, section 3: with each sample as a class and its views as members, exp of the entropy of
    the eigenvalues of Σw^-½ Σb Σw^-½, where Σb is the covariance of the samples' means and Σw that within samples plus
    delta. Unlike RankMe it does not count directions that vary as much between views as between samples. It can
    compare runs of one method whose views are the same; it cannot tell whether what survives the views is useful.

    Args:
        views: (n, views, d), at least 2 samples and 2 views, made by the augmentations of pretraining.
        delta: keeps Σw invertible.
    """
    x = torch.as_tensor(views).detach().double()
    if x.ndim != 3 or x.shape[0] < 2 or x.shape[1] < 2 or not x.isfinite().all():
        raise UserError(f"LiDAR needs finite features (samples, views, d), at least two of each, not {tuple(x.shape)}")
    means = x.mean(1)
    off = (x - means[:, None]).flatten(0, 1)
    within = off.T @ off / len(off) + delta * torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
    centred = means - means.mean(0)
    # L⁻¹ Σb L⁻ᵀ, with Σw = L Lᵀ, has the eigenvalues of Σw^-½ Σb Σw^-½.
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(within), centred.T, upper=False).T
    return _soft_count(_eigenvalues(white))


def alpha_req(x: Features) -> float:
    """Return α, the decay of the spectrum: minus the slope of log eigenvalue against log index of the covariance.

    Agrawal et al., "α-ReQ", 2022, fitted here by least squares over all eigenvalues above rounding error. Near 1 is
    held to be good; with a larger value few directions dominate, with a smaller one the spectrum is close to noise. It
    fails under collapse, where the remaining eigenvalues are few or follow no power law: read it with `rankme`.
    """
    matrix = as_matrix(x).double()
    values = _eigenvalues(matrix - matrix.mean(0))
    values = values[values > 1e-10 * values[0]][: len(matrix) - 1]
    if len(values) < 2:
        return math.nan
    index = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device).log()
    index, logs = index - index.mean(), values.log()
    return -float((index @ logs) / (index @ index))


def alignment(x: Features, y: Features) -> float:
    """Return the mean squared distance of two views' features on the unit sphere, 0 (best) to 4.

    Wang and Isola, "Understanding contrastive representation learning", 2020, with exponent 2. Row i of x and row i
    of y are views of one sample. It is 0 under total collapse: report it only together with `uniformity`.
    """
    a, b = as_matrix(x), as_matrix(y)
    if a.shape != b.shape:
        raise UserError(f"alignment compares two views of the same samples, not {tuple(a.shape)} with {tuple(b.shape)}")
    return float((F.normalize(a) - F.normalize(b)).square().sum(1).mean())


def uniformity(x: Features, *, t: float = 2.0) -> float:
    """Return log of the mean of exp(-t · distance²) over all pairs on the unit sphere, -4t to 0; lower is more uniform.

    Wang and Isola, 2020. 0 is total collapse; points spread evenly over a sphere of many dimensions come near -2t. It
    says how evenly the sphere is filled, not whether neighbours belong together: random features are very uniform.
    Blocked: n² pairs are visited, never held.
    """
    z = F.normalize(as_matrix(x))
    if len(z) < 2:
        raise UserError("uniformity needs at least two samples")
    total = 0.0
    for rows in blocks(len(z), len(z)):
        later = (z[rows] @ z[rows.start :].T).sub_(1).mul_(2 * t).exp_()  # -distance² = 2 (cosine - 1)
        total += float(later.triu_(1).sum(dtype=torch.float64))
    return math.log(total / (len(z) * (len(z) - 1) / 2))


def effective_dimension(x: Features) -> float:
    """Return the participation ratio of the covariance, 1 to d: (Σ eigenvalues)² / Σ eigenvalues².

    As used in neuroscience (Gao et al., 2017). Between the number of dominant directions and the rank: weak directions
    hardly count, where `rankme` still sees them. 0 if all rows are equal.
    """
    matrix = as_matrix(x).double()
    values = _eigenvalues(matrix - matrix.mean(0))
    square = float((values**2).sum())
    return float(values.sum()) ** 2 / square if square > 0 else 0.0


def normalised_std(x: Features) -> float:
    """Return the mean standard deviation of the L2-normalized features' dimensions times √d: 0 to 1.

    Chen and He, "SimSiam", 2021, figure 2: the std is 1/√d for an isotropic Gaussian, so this is 1, and 0 when
    every sample gets the same vector. It detects that collapse at once, and cheaply. It does not notice that only a
    few dimensions are used, and it is low without collapse where features have a large common mean, as after a ReLU.
    """
    z = F.normalize(as_matrix(x))
    return float(z.std(0, correction=0).mean()) * math.sqrt(z.shape[1])


def _eigenvalues(x: Tensor) -> Tensor:
    """Return the eigenvalues (min(n, d),) of xᵀx, largest first."""
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)


def _soft_count(sizes: Tensor) -> float:
    """Return exp of the entropy of sizes over their sum; 0 if all are 0."""
    if float(sizes.sum()) == 0:
        return 0.0
    return float(torch.special.entr(sizes / sizes.sum()).sum().exp())
