"""Random numbers from a sample's key."""

import torch

from selfsup.nn import noise

KEYS = torch.randint(-(2**62), 2**62, (64,), generator=torch.Generator().manual_seed(0))


def test_numbers_are_uniform_normal_and_independent() -> None:
    u = noise.uniform(KEYS, 1000)
    assert u.min() > 0
    assert u.max() < 1
    counts = u.histc(20, 0, 1) / u.numel()
    assert (counts - 0.05).abs().max() < 0.003
    z = noise.normal(KEYS, 1000)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    assert abs(torch.corrcoef(torch.stack([u.flatten(), noise.uniform(KEYS, 1000, stream=1).flatten()]))[0, 1]) < 0.02
    assert torch.corrcoef(u).fill_diagonal_(0).abs().max() < 0.2  # 1,000 numbers each: 0.03 is one deviation


def test_a_sample_has_its_numbers_in_any_batch() -> None:
    whole = noise.uniform(KEYS, 3, 2)
    assert torch.equal(whole[5:9], noise.uniform(KEYS[5:9], 3, 2))
    assert torch.equal(whole.flip(0), noise.uniform(KEYS.flip(0), 3, 2))


def test_integers_and_shuffles_cover_their_range() -> None:
    assert set(noise.integers(KEYS, 8, 20).flatten().tolist()) == set(range(8))
    orders = noise.shuffles(KEYS, 9)
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(64, 9))
    assert len({tuple(order) for order in orders.tolist()}) > 60
