"""The drawn parameters against torchvision's own samplers: two-sample tests over 10,000 draws."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import ColorJitter, RandomResizedCrop

from selfsup.errors import UserError
from selfsup.views.image import PRESETS, Crop, draw, preset
from selfsup.views.random import permutation, uniform

N = 10_000
TINY = 1e-4  # a correct sampler fails one of these tests once in ten thousand seeds; the seed is fixed


def ours(crop, high=375, wide=500, seed=7):
    indices = np.arange(N)
    u = draw.draws(seed, 0, indices, crop.count)
    return draw.places(crop, np.tile([[high, wide]], (N, 1)), u, seed, 0, indices, 0), draw.looks(crop, u)


@pytest.mark.parametrize(("high", "wide"), [(375, 500), (500, 100), (64, 64)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.4), (0.4, 1.0)])
def test_boxes_are_distributed_as_torchvisions(high, wide, scale):
    torch.manual_seed(0)
    image = torch.empty(3, high, wide)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(N)])
    where, _ = ours(Crop(224, scale=scale), high, wide)
    for column in range(4):
        assert ks_2samp(where.box[:, 0, column], theirs[:, column]).pvalue > TINY
    assert ks_2samp(where.box[:, 0, 2] * where.box[:, 0, 3], theirs[:, 2] * theirs[:, 3]).pvalue > TINY
    assert ks_2samp(where.box[:, 0, 3] / where.box[:, 0, 2], theirs[:, 3] / theirs[:, 2]).pvalue > TINY


def test_jitter_is_distributed_as_torchvisions():
    torch.manual_seed(0)
    ranges = [(0.2, 1.8), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    theirs = [ColorJitter.get_params(*ranges) for _ in range(N)]
    _, look = ours(Crop(32, jitter=(0.8, 0.4, 0.2, 0.1), jitter_p=1.0))
    for place in range(4):
        assert ks_2samp(look[:, 0, 1 + place], [t[1 + place] for t in theirs]).pvalue > TINY
    assert chisquare(np.bincount(look[:, 0, draw.ORDER].astype(int), minlength=24)).pvalue > TINY


def test_probabilities_sigma_and_their_independence():
    crop = Crop(32, count=2, flip=0.5, jitter=_WEAK, gray=0.2, blur=(1.0, 0.1), solarize=(0.0, 0.2))
    where, look = ours(crop)
    flags = np.stack([where.flip[:, 1], look[:, 1, 0] >= 0, look[:, 1, 5] > 0, look[:, 1, 6] > 0, look[:, 1, 7] > 0], 1)
    for share, wanted in zip(flags.mean(0), (0.5, 0.8, 0.2, 0.1, 0.2), strict=True):
        assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / N)
    assert (look[:, 0, draw.SIGMA] > 0).all()
    assert not look[:, 0, draw.SOLARIZE].any()
    assert ks_2samp(look[:, 0, draw.SIGMA], np.random.default_rng(0).uniform(0.1, 2, N)).pvalue > TINY
    correlation = np.corrcoef(np.concatenate([flags, look[:, 0, 1:7], where.flip[:, :1]], 1).T)
    assert np.nanmax(np.abs(correlation - np.eye(len(correlation)))) < 0.05


_WEAK = (0.4, 0.4, 0.2, 0.1)


def test_uniform_is_uniform_and_a_function_of_its_arguments():
    u = uniform(3, 2, np.arange(N), 5)
    for column in u.T:
        assert ks_2samp(column, np.random.default_rng(1).random(N)).pvalue > TINY
    assert np.abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.05
    assert np.abs(np.corrcoef(u[:-1].T, u[1:].T)[:5, 5:]).max() < 0.05
    assert np.array_equal(uniform(3, 2, np.array([77]), 5), u[77:78])
    assert np.array_equal(uniform(3, 2, np.array([77]), 2, first=3), u[77:78, 3:])
    others = [uniform(4, 2, np.arange(N), 5), uniform(3, 3, np.arange(N), 5), uniform(3, 2, np.arange(N), 5, 5)]
    assert all(np.abs(np.corrcoef(u[:, 0], other[:, 0])[0, 1]) < 0.05 for other in others)
    assert sorted(permutation(0, 1, 50)) == list(range(50))


def test_presets_are_the_published_ones():
    simclr, dino, byol = preset("simclr"), preset("dino"), preset("byol")
    assert simclr["x"].jitter == (0.8, 0.8, 0.8, 0.2)
    assert simclr["x"].scale == (0.08, 1)
    assert preset("simclr", 32)["x"].jitter == (0.4, 0.4, 0.4, 0.1)
    assert preset("simclr", 32)["x"].blur == 0
    assert (dino["x"].count, dino["local"].count, dino["local"].size) == (2, 8, 96)
    assert (byol["x"].blur, byol["x"].solarize) == ((1.0, 0.1), (0.0, 0.2))
    assert preset("mae")["x"].plain
    assert preset("swav", scale=0.5)["x"].scale == (0.5, 1)
    assert preset("swav", scale=0.5)["local"] == preset("swav")["local"]
    assert {name for name in PRESETS if preset(name)} == set(PRESETS)


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"count": 0}, {"scale": (0.5, 0.1)}, {"grid": 3}, {"blur": (1.0, 0.5)}, {"scale": (0.5, 2)}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UserError):
        Crop(**{"size": 32, **wrong})
    with pytest.raises(UserError, match="did you mean 'simclr'"):
        preset("simcl")
