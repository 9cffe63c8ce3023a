"""The losses against their formulas in float64."""

import math

import pytest
import torch

from selfsup import losses
from selfsup.losses import barlow_twins, gram_distance, info_nce, koleo, nt_xent, sigreg, sinkhorn, vicreg_terms


def test_info_nce_is_minus_the_log_share_of_the_positive() -> None:
    query, key = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.exp(query @ key.T / 0.3)
    expected = -torch.log(weight.diag() / weight.sum(1)).mean()
    torch.testing.assert_close(info_nce(query, key, 0.3).double(), expected, rtol=1e-6, atol=1e-6)


def test_info_nce_of_equal_keys_is_chance() -> None:
    assert math.isclose(info_nce(torch.randn(7, 4), torch.ones(7, 4)).item(), math.log(7), rel_tol=1e-6)


def test_info_nce_in_parts_is_the_loss_and_the_gradient_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses._ROOM, "cpu", 40)  # two queries at a time
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(13, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    key = torch.randn(20, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    positive, exclude = torch.randint(10, (13,), generator=generator), 10 + torch.arange(13) % 10
    logits = (query @ key.T / 0.5).scatter(1, exclude[:, None], -torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, positive)
    loss = info_nce(query, key, 0.5, positive=positive, exclude=exclude)
    torch.testing.assert_close(loss, expected)
    for mine, direct in zip(
        torch.autograd.grad(2 * loss, (query, key)), torch.autograd.grad(2 * expected, (query, key)), strict=True
    ):
        torch.testing.assert_close(mine, direct)


def test_nt_xent_is_equation_1_of_simclr() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    z = torch.nn.functional.normalize(torch.cat([first, second]))
    weight = torch.exp(z @ z.T / 0.2).fill_diagonal_(0)
    expected = -torch.log(weight[torch.arange(12), torch.arange(12).roll(6)] / weight.sum(1)).mean()
    torch.testing.assert_close(nt_xent(first, second, 0.2), expected)


def test_sinkhorn_shares_samples_out_evenly() -> None:
    scores = torch.randn(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = sinkhorn(scores, 0.5, 100)
    torch.testing.assert_close(shares.sum(1), torch.ones(24, dtype=torch.float64))
    torch.testing.assert_close(shares.sum(0), torch.full((6,), 4.0, dtype=torch.float64))
    log = shares.log() - scores / 0.5  # the optimum is exp(scores / epsilon) times a factor a row and one a column
    torch.testing.assert_close(log - log[:1] - log[:, :1] + log[0, 0], torch.zeros_like(log), atol=1e-8, rtol=0)
    assert sinkhorn(1000 * scores.float(), 0.05).isfinite().all()
    assert sinkhorn(scores[:0], 0.5).shape == (0, 6)


def test_the_gram_distance_is_that_of_the_cosines_and_not_of_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    expected = [
        torch.cosine_similarity(a[i], a[j], 0) - torch.cosine_similarity(b[i], b[j], 0)
        for a, b in zip(x, y, strict=True)
        for i in range(5)
        for j in range(5)
    ]
    torch.testing.assert_close(gram_distance(x, y), torch.stack(expected).square().mean())
    turned = x @ torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    assert gram_distance(3 * turned, x) < 1e-12


def test_koleo_against_all_pairs_in_float64() -> None:
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    unit = z / z.norm(dim=1, keepdim=True)
    distance = torch.cdist(unit, unit) + 9 * torch.eye(9)
    expected = -distance.min(1).values.log().mean()
    torch.testing.assert_close(koleo(z), expected, rtol=1e-6, atol=1e-6)
    assert torch.autograd.grad(koleo(z), z)[0].isfinite().all()
    assert koleo(torch.ones(3, 4)) > 10


def test_barlow_twins_is_its_sum_over_pairs_of_dimensions() -> None:
    first, second = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in (first, second))
    expected = 0.0
    for i in range(4):
        for j in range(4):
            c = (a[:, i] * b[:, j]).mean().item()
            expected += (1 - c) ** 2 if i == j else 0.01 * c**2
    assert barlow_twins(first, second, 0.01).item() == pytest.approx(expected)
    assert barlow_twins(a, a, 0.0).item() == pytest.approx(0, abs=1e-8)


def test_vicreg_terms_are_0_for_equal_views_of_independent_dimensions_with_deviation_1() -> None:
    x = torch.linalg.qr(torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    x = x - x.mean(0)
    x = torch.linalg.qr(x)[0] * 63**0.5  # centred, orthogonal, variance 1
    invariance, variance, covariance = vicreg_terms(x, x)
    assert invariance == 0
    assert variance < 1e-4
    assert covariance < 1e-20
    collapsed = vicreg_terms(torch.ones(8, 3), torch.ones(8, 3))
    assert collapsed[1].item() == pytest.approx(1 - 1e-2)  # √ε is left of the deviation


def test_vicreg_covariance_is_the_sum_of_squares_off_the_diagonal() -> None:
    first, second = torch.randn(2, 30, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = sum((torch.cov(x.T) - torch.diag(x.var(0))).square().sum() / 5 for x in (first, second))
    torch.testing.assert_close(vicreg_terms(first, second)[2], expected)


def test_sigreg_is_about_1_for_a_gaussian_of_any_size_and_grows_for_anything_else() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(16, 256, generator=generator), dim=0)
    for count in (256, 4096):
        assert sigreg(torch.randn(count, 16, generator=generator), directions).item() == pytest.approx(1.06, abs=0.6)
    n = 1024
    for other in (torch.zeros(n, 16), 3 * torch.randn(n, 16), torch.randn(n, 1).expand(n, 16), torch.randn(n, 16) + 1):
        assert sigreg(other, directions) > 10
    z = torch.randn(50, 2, dtype=torch.float64)
    t = torch.linspace(-3, 3, 33, dtype=torch.float64)
    phi = torch.exp(1j * z[:, :1] * t).mean(0) - torch.exp(-t.square() / 2)
    expected = 50 * torch.trapezoid(phi.abs().square() * torch.exp(-t.square() / 2), t)
    torch.testing.assert_close(sigreg(z, torch.eye(2, dtype=torch.float64)[:, :1]), expected)
