"""The losses against their formulas in float64."""

import math

import torch

from selfsup.losses import info_nce


def test_info_nce_is_minus_the_log_share_of_the_positive() -> None:
    query, key = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.exp(query @ key.T / 0.3)
    expected = -torch.log(weight.diag() / weight.sum(1)).mean()
    torch.testing.assert_close(info_nce(query, key, 0.3).double(), expected, rtol=1e-6, atol=1e-6)


def test_info_nce_of_equal_keys_is_chance() -> None:
    assert math.isclose(info_nce(torch.randn(7, 4), torch.ones(7, 4)).item(), math.log(7), rel_tol=1e-6)
