import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from selfsup.errors import UserError
from selfsup.evaluation import retrieval as module
from selfsup.evaluation.clustering import cluster, hungarian_accuracy
from selfsup.evaluation.duplicates import same_bytes, same_features
from selfsup.evaluation.retrieval import retrieval
from selfsup.evaluation.rows import blocks


def clouds(n, seed, noise=0.4):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 5
    return (np.eye(5)[y] + noise * rng.normal(size=(n, 5))).astype(np.float32), y


def test_retrieval_is_its_definition(monkeypatch):
    monkeypatch.setattr(module, "blocks", lambda rows, width, numbers: blocks(rows, width, 7 * width))
    x, y = clouds(60, 0)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = z @ z.T
    precision, hits = [], []
    for i in range(60):
        others = np.arange(60) != i
        match = (y == y[i])[others]
        precision.append(average_precision_score(match, similarity[i, others]))
        hits.append(match[np.argsort(-similarity[i, others])])
    found = retrieval(x, y)
    assert found.mean_ap == pytest.approx(np.mean(precision), abs=1e-5)
    assert found.recall == {k: pytest.approx(np.mean([h[:k].any() for h in hits])) for k in (1, 5, 10)}
    assert found.queries == 60


def test_retrieval_from_a_gallery_and_of_chance():
    x, y = clouds(50, 0, noise=0.0)
    gallery, gallery_y = clouds(100, 1, noise=0.01)
    perfect = retrieval(x, y, gallery, gallery_y)
    assert perfect.recall[1] == 1
    assert perfect.mean_ap == pytest.approx(1)
    noise = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    assert retrieval(noise, np.arange(1000) % 5).recall[1] == pytest.approx(0.2, abs=0.04)


def test_queries_without_a_match_are_left_out():
    x, _ = clouds(6, 0)
    assert retrieval(x, np.array([0, 0, 1, 1, 2, -1])).queries == 4
    with pytest.raises(UserError, match="no query"):
        retrieval(x, np.arange(6))


def test_clusters_that_are_the_classes():
    x, y = clouds(200, 0, noise=0.02)
    found = cluster(x, y)
    assert (found.nmi, found.ari, found.accuracy) == pytest.approx((1, 1, 1))
    hidden = np.where(np.arange(200) < 100, y, -1)
    assert cluster(x, hidden).accuracy == 1
    noise = cluster(np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32), np.arange(1000) % 5)
    assert abs(noise.ari) < 0.02
    assert noise.accuracy < 0.3


def test_hungarian_accuracy_names_each_cluster_once():
    y = np.array([0, 0, 0, 1, 1, 2])
    assert hungarian_accuracy(y, np.array([7, 7, 7, 4, 4, 9])) == 1
    assert hungarian_accuracy(y, np.zeros(6, int)) == pytest.approx(3 / 6)
    assert hungarian_accuracy(y, np.array([0, 0, 1, 1, 1, 1])) == pytest.approx(4 / 6)
    assert hungarian_accuracy(y, np.arange(6)) == pytest.approx(3 / 6)


def test_bad_clusterings_are_one_line():
    x, y = clouds(4, 0)
    with pytest.raises(UserError, match="known"):
        cluster(x, np.full(4, -1))
    with pytest.raises(UserError, match="5 clusters"):
        cluster(x, y, clusters=5)


def test_duplicates_by_bytes_see_content_shape_and_type():
    rng = np.random.default_rng(0)
    train = [rng.integers(0, 255, (4, 4), dtype=np.uint8) for _ in range(9)]
    test = [train[3].copy(), train[5].reshape(2, 8), train[6].view(np.int8), train[8][::-1]]
    assert same_bytes(train, test).tolist() == [[0, 3]]
    assert same_bytes([b"a", b"b", b"a"], iter([b"c", b"a"])).tolist() == [[1, 0]]
    assert same_bytes([b"a"], [b"b"]).shape == (0, 2)


def test_duplicates_by_features_despite_a_large_mean():
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, 32)).astype(np.float32) + 100 for n in (200, 50))
    test[[4, 30]] = train[[17, 2]] + 1e-4
    assert same_features(train, test).tolist() == [[4, 17], [30, 2]]
    plain = train @ test.T / np.linalg.norm(train, axis=1)[:, None] / np.linalg.norm(test, axis=1)
    assert (plain > 0.999).all()  # what the mean would have hidden
