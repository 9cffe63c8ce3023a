"""Labels spread over a graph: what it finds, what it leaves unsure, and when it is not trusted."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.evaluation import propagate
from selfsup.evaluation.drawn import Drawn
from selfsup.evaluation.draws import nested_draws
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.knn import neighbours
from selfsup.evaluation.labels_saved import Saved, sentence
from selfsup.evaluation.linear import read_linear
from selfsup.evaluation.measuring import _saved
from selfsup.evaluation.propagate import build_graph, prepare_pool, read_propagate, read_transductive, spread_labels
from selfsup.evaluation.score import Score
from selfsup.neighbours import graph as neighbour_graph
from selfsup.source import Labels


def clusters(sizes, seed=0, dim=24, noise=0.6):
    """One Gaussian cluster per class, the centres far apart."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(sizes), dim)) * 1.2
    y = np.repeat(np.arange(len(sizes)), sizes)
    return (centres[y] + noise * rng.normal(size=(len(y), dim))).astype(np.float32), y


def first_of_each(y, count=1):
    return np.concatenate([np.flatnonzero(y == c)[:count] for c in np.unique(y)])


def test_approximate_neighbours_are_nearly_those_of_the_full_matrix():
    pytest.importorskip("faiss", reason="pip install 'selfsup[faiss]'")
    z = propagate.whiten(torch.from_numpy(clusters([500] * 8)[0]))
    exact, similar = neighbour_graph.exact_others(z, 10)
    index, cosine = neighbour_graph.approximate_others(z, 10)
    assert cosine.sort().values.numpy() == pytest.approx(similar.sort().values.numpy(), abs=0.02)
    found = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), index.tolist(), strict=True)]
    assert np.mean(found) > 9.5


@pytest.mark.parametrize("n", [7, 64, 65, 700])
def test_the_nearest_are_those_of_the_full_matrix(n):
    z = torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(0)))
    index, cosine = neighbour_graph.exact_others(z, min(10, n - 1))
    expected, similar = neighbours(z, z, min(10, n - 1) + 1)
    assert (expected[:, 0] == torch.arange(n)).all()
    assert (index.sort().values == expected[:, 1:].sort().values).all()
    assert cosine.sort(descending=True).values.numpy() == pytest.approx(similar[:, 1:].numpy(), abs=1e-5)


def test_the_graph_is_symmetric_normalized_and_sparse():
    x, _ = clusters([200] * 4)
    graph = build_graph(x)
    assert graph.shape == (800, 800)
    assert graph.dtype == np.float32
    assert graph.nnz <= 2 * 10 * 800
    assert abs(graph - graph.T).max() < 1e-6
    assert graph.diagonal().max() == 0
    assert np.linalg.eigvalsh(graph.toarray())[-1] == pytest.approx(1, abs=1e-4)


def test_one_label_per_class_is_enough_where_there_are_clusters():
    x, y = clusters([150] * 5)
    rows = first_of_each(y)
    probabilities = spread_labels(build_graph(x), rows, y[rows], 5)
    assert probabilities.shape == (750, 5)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    assert probabilities.sum(1).max() <= 1 + 1e-5
    assert (probabilities.argmax(1) == y).mean() > 0.98
    test_x, test_y = clusters([40] * 5, seed=1)
    drawn = Drawn({"own": x}, rows, y[rows], 5)
    by_graph, by_labels = (read(drawn, {"own": test_x}) for read in (read_propagate, read_linear))
    assert (by_graph == test_y).mean() > 0.98
    assert (by_graph == test_y).mean() >= (by_labels == test_y).mean()


def test_a_label_that_lies_nearer_to_another_class_finds_its_own():
    x, y = clusters([200] * 5, seed=4, noise=1.0)
    rows, centres = first_of_each(y), np.stack([x[y == c].mean(0) for c in range(5)])
    x[rows[4]] = 0.55 * centres[3] + 0.45 * centres[4] + 0.7 * (x[rows[4]] - centres[4])
    graph = build_graph(x)
    once = propagate._probabilities(propagate._spread(graph, np.eye(1000, dtype=np.float32)[rows].T), np.arange(5))
    assert (once.argmax(1) == y).mean() < 0.9
    assert (spread_labels(graph, rows, y[rows], 5).argmax(1) == y).mean() > 0.97


def test_directions_in_which_neighbours_differ_count_less():
    x, y = clusters([200] * 5, noise=0.8)
    loud = 6 * np.random.default_rng(0).normal(size=(len(x), 4))  # and of no class
    x = np.concatenate([x, loud.astype(np.float32)], 1)
    graph = build_graph(x).tocoo()
    index, _ = neighbour_graph.exact_others(torch.nn.functional.normalize(torch.from_numpy(x - x.mean(0))), 10)
    of_one_class = np.average(y[graph.row] == y[graph.col], weights=graph.data)
    assert of_one_class > (y[index.numpy()] == y[:, None]).mean() + 0.1


@pytest.mark.parametrize("count", [1, 5, 10])
def test_balanced_labels_of_a_pool_that_is_ten_to_one(count):
    x, y = clusters([1000, 600, 300, 150, 100], noise=1.0)
    graph, correct = build_graph(x), []
    for draw in nested_draws(y, [count], 3, 0):
        rows = draw[count]
        guess = spread_labels(graph, rows, y[rows], 5).argmax(1)
        correct.append(np.mean([(guess[y == c] == c).mean() for c in range(5)]))
        frequencies = np.bincount(guess, minlength=5) / len(y)
        assert np.abs(frequencies - np.bincount(y) / len(y)).max() < 0.08, "they are estimated, not assumed equal"
    assert np.mean(correct) > 0.9


def test_a_few_of_many_samples_tell_how_frequent_the_classes_are(monkeypatch):
    """The frequencies are 10 to 1, and the pool is sorted by class."""
    x, y = clusters([1000, 1000, 100])
    graph, rows = build_graph(x), first_of_each(y, 2)
    whole = spread_labels(graph, rows, y[rows], 3)
    monkeypatch.setattr(propagate, "NEAR", 300)
    few = spread_labels(graph, rows, y[rows], 3)
    assert (few.argmax(1) == y).mean() > 0.99
    assert 0.8 < few[:, 2].sum() / whole[:, 2].sum() < 1.25
    assert not np.array_equal(few, whole)


def test_samples_of_no_class_have_little_confidence():
    x, y = clusters([200] * 5)
    rows = first_of_each(y[y < 4])  # the fifth has no label at all
    confidence = spread_labels(build_graph(x), rows, y[rows], 4).max(1)
    assert np.median(confidence[y == 4]) < 0.3
    assert np.median(confidence[y < 4]) > 0.6


def test_a_component_without_a_label_is_unsure():
    one = np.kron(np.eye(4), np.ones((30, 6))).astype(np.float32)  # four components, orthogonal to each other
    x = one + 0.01 * np.random.default_rng(0).normal(size=one.shape).astype(np.float32)
    y = np.repeat(np.arange(4), 30)
    graph = build_graph(x).tolil()
    graph[np.ix_(y == 3, y != 3)] = 0
    graph[np.ix_(y != 3, y == 3)] = 0
    probabilities = spread_labels(graph.tocsr(), np.array([0, 30, 60]), np.array([0, 1, 2]), 4)
    assert not probabilities[y == 3].any(), "zeros, not a guess"
    assert (probabilities[y < 3].argmax(1) == y[y < 3]).all()
    assert not probabilities[:, 3].any(), "nobody labelled the fourth class"


def test_a_class_that_nobody_labelled_is_never_predicted():
    x, y = clusters([80] * 4)
    rows = first_of_each(y, 3)
    rows = rows[y[rows] != 2]
    assert 2 not in read_propagate(Drawn({"own": x}, rows, y[rows], 4), {"own": x})


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fewer_samples_than_neighbours(n):
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    assert build_graph(x).shape == (n, n)
    rows = np.array([0, 1])
    assert read_propagate(Drawn({"own": x}, rows, rows, 2), {"own": x})[:2].tolist() == [0, 1]


def test_constant_features_leave_all_but_the_labelled_unsure():
    graph = build_graph(np.ones((20, 4), np.float32))
    assert graph.nnz == 0
    probabilities = spread_labels(graph, np.array([3, 4]), np.array([0, 1]), 2)
    assert probabilities.any(1).nonzero()[0].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("rows", "ids", "words"),
    [
        ([], [], "at least one label"),
        ([0, 99], [0, 1], "rows must be 0 to 19"),
        ([0, 0], [0, 1], "labelled twice"),
        ([0, 1], [0, 2], "class ids must be 0 to 1"),
    ],
)
def test_bad_labels_are_one_line(rows, ids, words):
    graph = build_graph(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    with pytest.raises(UserError, match=words):
        spread_labels(graph, np.array(rows, np.int64), np.array(ids, np.int64), 2)


def test_bad_features_and_one_class_are_one_line():
    x = np.ones((20, 4), np.float32)
    with pytest.raises(UserError, match="all labels are of one class"):
        read_propagate(Drawn({"own": x}, np.arange(3), np.zeros(3, np.int64), 2), {"own": x})
    x[3, 1] = np.nan
    with pytest.raises(UserError, match="1 of 20 rows of features hold NaN"):
        build_graph(x)


def test_a_graph_that_knows_nothing_is_not_trusted():
    """The classes are a direction of little variance: neighbours say nothing, a linear probe all."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1000, 60)).astype(np.float32), np.arange(1000) % 2
    x[:, 0] += 4 * (2 * y - 1)
    x[:, 1:] *= 3
    rows, test = first_of_each(y[:500], 100), slice(500, 1000)
    drawn = Drawn({"own": x[:500]}, rows, y[rows], 2)
    pool = prepare_pool(drawn.pool, {})
    assert propagate.trust(pool.graph, drawn, *propagate._linear(drawn)) < 0.05
    by_graph, by_labels = (read(drawn, {"own": x[test]}) for read in (read_propagate, read_linear))
    assert (by_graph == y[test]).mean() >= (by_labels == y[test]).mean() - 0.01


def test_the_time_of_many_exact_neighbours_is_told(monkeypatch, capsys):
    x, _ = clusters([1500] * 2, dim=8)
    expected = build_graph(x)
    monkeypatch.setattr(neighbour_graph, "APPROXIMATE", 2000)
    monkeypatch.setattr(neighbour_graph, "TIMED", 1)
    monkeypatch.setattr(neighbour_graph, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: None)))
    ticks = iter([0.0, 1.0, 0.0, 100.0])  # first come the neighbours that tell how they differ
    monkeypatch.setattr(neighbour_graph, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert abs(build_graph(x) - expected).max() < 1e-6
    told = capsys.readouterr().err
    assert "the nearest neighbours of 3,000 samples take about 4 minutes" in told
    assert "pip install 'selfsup[faiss]'" in told
    ticks = iter([0.0, 1.0, 0.0, 1.0])
    build_graph(x)
    assert capsys.readouterr().err == "", "seconds are not worth a word"


def test_only_the_transductive_one_sees_test_samples():
    x, y = clusters([100] * 3)
    test_x, test_y = clusters([50] * 3, seed=1)
    rows = first_of_each(y)
    drawn = Drawn({"own": x}, rows, y[rows], 3)
    alone = np.concatenate([read_propagate(drawn, {"own": test_x[i : i + 1]}) for i in range(0, 150, 10)])
    assert (alone == read_propagate(drawn, {"own": test_x})[::10]).all(), "each test sample for itself"
    assert propagate.prepare_transductive({"own": x}, {"own": test_x}).shape == (450, 450)
    assert (read_transductive(drawn, {"own": test_x}) == test_y).mean() > 0.98
    assert EVALUATORS["propagate"].default
    assert not EVALUATORS["transductive"].default


def test_many_dimensions_are_reduced_for_the_reader():
    x, y = clusters([100] * 3, dim=1500)
    pool = prepare_pool({"own": x}, {})
    assert pool.features.shape[1] <= propagate.WIDE
    rows = first_of_each(y)
    assert (read_propagate(Drawn({"own": x}, rows, y[rows], 3, prepared=pool), {"own": x}) == y).mean() > 0.98


@pytest.fixture(scope="module")
def run(digits_run: selfsup.Run, tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    return selfsup.Run(shutil.copytree(digits_run.folder, tmp_path_factory.mktemp("runs") / "digits"))


def test_samples_without_a_label_are_in_the_pool(run: selfsup.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty labels and a thousand unlabelled digits: only a reader that uses the latter can do much."""
    digits = open_data("digits")
    assert digits.labels is not None
    train, test = digits.take(np.arange(1000)), digits.take(np.arange(1000, 1797))
    few = first_of_each(train.labels.ids, 2)
    ids = np.full(1000, -1)
    ids[few] = train.labels.ids[few]
    train.labels = Labels(ids, train.labels.classes)
    sizes = []
    monkeypatch.setattr(propagate, "build_graph", lambda x: sizes.append(len(x)) or build_graph(x))
    result = selfsup.evaluate(
        run, data=train, test=test, shots="1,2", draws=2, protocol="linear,propagate", scratch=False, quiet=True
    )
    assert set(sizes) == {1000}
    assert (result.about["data"]["samples"], result.about["data"]["unlabelled"]) == (20, 980)
    for shots in (1, 2):
        by_graph, by_labels = (result.score("rotation", reader, shots).mean for reader in ("propagate", "linear"))
        assert by_graph > by_labels + 0.05


def test_training_from_scratch_gets_the_pool_too(run: selfsup.Run, tmp_path: Path) -> None:
    digits = open_data("digits").take(np.arange(600))
    result = selfsup.evaluate(
        run, data=digits, shots="2,20", draws=2, protocol="linear,propagate", quiet=True
    )  # fmt: skip
    trained = result.score("from scratch + pool", "self-trained", 20)
    assert 0.1 < trained.mean < 1
    assert len(trained.values) == 2
    result.save(tmp_path / "e.json")
    saved = json.loads((tmp_path / "e.json").read_text())
    assert saved["about"]["saved against"]["linear"] == "from scratch"
    assert saved["about"]["saved against"]["propagate"].startswith("from scratch")
    assert "pseudo-labels" in saved["about"]["protocols"]["self-trained"]
    assert "from scratch + pool" in str(result)
    assert "propagate" in str(result)


def test_labels_saved_compare_like_with_like() -> None:
    about = {"task": "ours", "seed": 0, "labels": {"1": 1, "10": 10}}

    def rows(name, protocol, values):
        return [Score(name, protocol, k, v, 0.0, (v, v)) for k, v in zip((1, 10), values, strict=True)]

    plain, pool = rows("from scratch", "trained", (0.3, 0.5)), rows("from scratch + pool", "self-trained", (0.4, 0.6))
    ours = rows("ours", "linear", (0.5, 0.6)) + rows("ours", "propagate", (0.6, 0.7))
    saved, against = _saved([*ours, *plain, *pool], about, ("linear", "propagate"))
    assert against == {"linear": "from scratch", "propagate": "from scratch + pool"}
    assert saved["linear"][0].needed == pytest.approx(10)
    assert saved["propagate"][0].needed == pytest.approx(10)
    worse = rows("from scratch + pool", "self-trained", (0.2, 0.3))
    assert _saved([*ours, *plain, *worse], about, ("propagate",))[1] == {"propagate": "from scratch"}
    assert _saved(ours, about, ("propagate",)) == ({}, {})
    said = sentence([Saved(10, 0.8, 40, 30, 50)], "ours (propagate)", "from scratch + pool")
    assert "ours (propagate) reaches 80.0%; from scratch + pool needs 40 per class" in said
