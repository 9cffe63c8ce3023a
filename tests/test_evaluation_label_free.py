import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup.errors import UserError
from selfsup.evaluation import label_free as lf


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_rankme_of_known_spectra():
    assert lf.rankme(gaussian(20_000, 16)) == pytest.approx(16, rel=0.01)
    assert lf.rankme(torch.outer(gaussian(50, 1)[:, 0], gaussian(1, 9)[0])) == pytest.approx(1, abs=1e-3)
    two = torch.eye(2)[[0] * 9 + [1]]  # singular values 3 and 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert lf.rankme(two) == pytest.approx(math.exp(entropy))
    assert lf.rankme(two.T) == pytest.approx(math.exp(entropy))
    assert lf.rankme(torch.zeros(4, 3)) == 0


def test_effective_dimension_of_known_spectra():
    assert lf.effective_dimension(gaussian(50_000, 8)) == pytest.approx(8, rel=0.01)
    scaled = gaussian(50_000, 2) * torch.tensor([3.0, 1.0])  # eigenvalues 9 and 1
    assert lf.effective_dimension(scaled + 5) == pytest.approx(100 / 82, rel=0.02)
    assert lf.effective_dimension(torch.ones(5, 4)) == 0


def test_lidar_counts_what_tells_samples_apart():
    means = gaussian(3000, 10) * torch.tensor([1.0] * 4 + [0.0] * 6)
    views = means[:, None] + 0.05 * gaussian(3000 * 4, 10, 1).view(3000, 4, 10)
    assert lf.lidar(views) == pytest.approx(4, rel=0.1)
    assert lf.rankme(views.flatten(0, 1)) > 5  # counts the noise of the views, too
    assert lf.lidar(views + 100) == pytest.approx(lf.lidar(views), rel=1e-3)


def test_lidar_is_its_definition():
    x = gaussian(40 * 3, 5).view(40, 3, 5).double() * torch.linspace(0.5, 2, 5)
    means = x.mean(1)
    off = (x - means[:, None]).reshape(-1, 5)
    within = off.T @ off / 120 + 1e-4 * torch.eye(5)
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    share = torch.linalg.eigvalsh(root @ torch.cov(means.T) @ root)
    share = share / share.sum()
    assert lf.lidar(x) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-6)
    with pytest.raises(UserError, match="views"):
        lf.lidar(x[:, :1])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_finds_the_exponent(alpha):
    basis = torch.linalg.qr(gaussian(200, 32) - gaussian(200, 32).mean(0)).Q
    x = basis * torch.arange(1, 33) ** (-alpha / 2) * 30
    assert lf.alpha_req(x) == pytest.approx(alpha, rel=0.02)
    assert math.isnan(lf.alpha_req(torch.ones(9, 4)))


def test_alignment_of_known_angles():
    x = F.normalize(gaussian(10, 4))
    assert lf.alignment(x, 7 * x) == pytest.approx(0, abs=1e-6)
    assert lf.alignment(x, -x) == pytest.approx(4)
    assert lf.alignment([[1.0, 0.0]], [[0.0, 2.0]]) == pytest.approx(2)
    with pytest.raises(UserError, match="two views"):
        lf.alignment(x, x[:5])


def test_uniformity_of_known_cases(monkeypatch):
    assert lf.uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert lf.uniformity([[1.0, 0.0], [-3.0, 0.0]]) == pytest.approx(-8)
    square = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]  # 4 pairs at distance² 2, 2 at 4
    assert lf.uniformity(square) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))
    x = gaussian(1000, 64)
    pairs = torch.pdist(F.normalize(x)).square()
    whole = lf.uniformity(x)
    assert whole == pytest.approx(math.log(float(torch.exp(-2 * pairs).mean())), abs=1e-3)
    assert -4 < whole < -3.7
    monkeypatch.setattr(lf, "blocks", lambda rows, width: (slice(i, min(i + 97, rows)) for i in range(0, rows, 97)))
    assert lf.uniformity(x) == pytest.approx(whole, abs=1e-5)


def test_normalised_std_is_one_for_a_gaussian_and_zero_for_collapse():
    assert lf.normalised_std(gaussian(20_000, 32)) == pytest.approx(1, abs=0.01)
    assert lf.normalised_std(torch.ones(50, 8)) == pytest.approx(0, abs=1e-6)
    assert lf.normalised_std(gaussian(1000, 8) + 20) < 0.2


@pytest.mark.parametrize("measure", [lf.rankme, lf.alpha_req, lf.uniformity, lf.effective_dimension])
def test_nan_is_refused(measure):
    with pytest.raises(UserError, match="NaN"):
        measure(np.full((4, 2), np.nan, np.float32))
