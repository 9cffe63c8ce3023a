import numpy as np
import pytest
import torch

from selfsup.errors import UserError
from selfsup.evaluation import knn
from selfsup.evaluation.knn import fit_knn, neighbours


def clouds(n, seed, noise=0.5):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    return (np.eye(4)[y] + noise * rng.normal(size=(n, 4))).astype(np.float32), y


@pytest.mark.parametrize("part", [7, 50, 2**15])
def test_neighbours_are_those_of_the_full_matrix(monkeypatch, part):
    monkeypatch.setattr(knn, "GALLERY", part)
    gallery, _ = clouds(103, 0)
    queries, _ = clouds(29, 1)
    index, similarity = neighbours(queries, gallery, 10, block=8)
    full = (queries @ gallery.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(gallery, axis=1)
    best = np.argsort(-full, 1)[:, :10]
    assert index.tolist() == best.tolist()
    assert similarity.numpy() == pytest.approx(np.take_along_axis(full, best, 1), abs=1e-6)


def test_all_of_a_small_gallery_and_a_zero_row():
    gallery = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-1.0, 0.0]])
    index, similarity = neighbours(torch.tensor([[2.0, 0.0]]), gallery, 3)
    assert index.tolist() == [[1, 0, 2]]
    assert similarity.tolist() == [[1.0, 0.0, -1.0]]


def test_k_is_chosen_by_leaving_one_out():
    clean, y = clouds(200, 0, noise=0.05)
    assert fit_knn(clean, y, 4).k == 1
    noisy, y = clouds(400, 0)
    fitted = fit_knn(noisy, y, 4)
    queries, truth = clouds(2000, 1)
    accuracy = {k: np.mean(fit_knn(noisy, y, 4, ks=[k]).predict(queries) == truth) for k in (1, 20)}
    assert fitted.k >= 5
    assert np.mean(fitted.predict(queries) == truth) >= max(accuracy.values()) - 0.01
    assert accuracy[20] > accuracy[1] + 0.03


def test_a_sample_never_votes_for_itself():
    """Labels at random on pairs of duplicates: whoever counts the sample itself finds k = 1 perfect."""
    rng = np.random.default_rng(0)
    x, y = np.repeat(rng.normal(size=(100, 8)), 2, 0).astype(np.float32), np.tile([0, 1], 100)
    x[::2] *= 2  # the cosine is 1 all the same
    assert fit_knn(x, y, 2, ks=(1, 3)).k == 1  # neither is ever right, and the smaller wins
    y = np.repeat(rng.integers(0, 2, 100), 2)
    x = (x + 3 * np.arange(200)[:, None] % 2).astype(np.float32)
    assert fit_knn(x, rng.permutation(y), 2, ks=(1, 50)).k == 50


def test_the_nearer_neighbours_weigh_more():
    x = np.array([[1, 0], [0.3, 1], [0.3, 1]], np.float32)
    assert fit_knn(x, np.array([0, 1, 1]), 2, ks=[2]).predict(np.array([[1, 0.05]], np.float32)).tolist() == [0]
    assert knn._vote(torch.tensor([[0, 1, 1]]), torch.tensor([[0.9, 0.5, 0.5]]), 2).tolist() == [0]
    assert knn._vote(torch.tensor([[0, 1, 1]]), torch.tensor([[0.9, 0.89, 0.89]]), 2).tolist() == [1]


def test_one_label_per_class_and_a_missing_class():
    x, y = clouds(4, 0, noise=0.1)
    fitted = fit_knn(x[:3], y[:3], 4)
    assert fitted.k == 1
    assert fitted.predict(x[:3]).tolist() == [0, 1, 2]
    assert 3 not in fitted.predict(x)


@pytest.mark.parametrize(("k", "dim", "words"), [(0, 4, "k must be"), (11, 4, "k must be"), (1, 3, "one encoder")])
def test_bad_input_is_one_line(k, dim, words):
    with pytest.raises(UserError, match=words):
        neighbours(np.ones((2, dim), np.float32), np.ones((10, 4), np.float32), k)
    with pytest.raises(UserError, match="NaN"):
        fit_knn(np.full((3, 2), np.inf, np.float32), np.array([0, 1, 0]), 2)
