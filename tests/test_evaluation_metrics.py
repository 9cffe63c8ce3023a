import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.linear_model import Ridge

from selfsup.errors import UserError
from selfsup.evaluation.metrics import accuracy, average_precision, balanced_accuracy, macro_f1, r2
from selfsup.evaluation.ridge import fit_ridge

RNG = np.random.default_rng(0)


def test_class_metrics_are_those_of_scikit_learn():
    truth = RNG.choice(6, 300, p=[0.5, 0.3, 0.1, 0.05, 0.05, 0])
    guess = np.where(RNG.random(300) < 0.6, truth, RNG.choice([0, 1, 5], 300))
    assert accuracy(truth, guess) == pytest.approx(reference.accuracy_score(truth, guess))
    there = sorted(set(truth))
    recall = reference.recall_score(truth, guess, average="macro", labels=there)
    assert balanced_accuracy(truth, guess) == pytest.approx(recall)
    assert macro_f1(truth, guess) == pytest.approx(reference.f1_score(truth, guess, average="macro"))


def test_a_majority_vote_is_not_balanced():
    truth = np.array([0] * 90 + [1] * 10)
    assert accuracy(truth, np.zeros(100, int)) == 0.9
    assert balanced_accuracy(truth, np.zeros(100, int)) == 0.5


def test_average_precision_leaves_out_absent_labels():
    truth = (RNG.random((200, 3)) < [0.5, 0.1, 0]).astype(np.int64)
    scores = (truth + RNG.normal(size=(200, 3))).astype(np.float32)
    expected = np.mean([reference.average_precision_score(truth[:, i], scores[:, i]) for i in (0, 1)])
    assert average_precision(truth, scores) == pytest.approx(expected)
    with pytest.raises(UserError, match="any of the labels"):
        average_precision(np.zeros((3, 2), np.int64), np.zeros((3, 2), np.float32))


def test_r2_is_zero_for_the_mean_and_mean_over_targets():
    truth = RNG.normal(size=(50, 2))
    assert r2(truth, np.broadcast_to(truth.mean(0), truth.shape)) == pytest.approx(0)
    half = np.stack([truth[:, 0], np.full(50, truth[:, 1].mean())], 1)
    assert r2(truth, half) == pytest.approx(0.5)
    with pytest.raises(UserError, match="the same"):
        r2(np.ones(5), np.ones(5))


def test_lengths_must_agree():
    with pytest.raises(UserError, match="cannot compare"):
        accuracy(np.zeros(3, int), np.zeros(4, int))


@pytest.mark.parametrize(("n", "dim"), [(40, 90), (200, 20)], ids=["row space", "full space"])
def test_ridge_is_that_of_scikit_learn(n, dim):
    x = (RNG.normal(size=(n, dim)) * np.linspace(0.1, 2, dim) + 3).astype(np.float32)
    y = x @ RNG.normal(size=dim) + RNG.normal(size=n) + 10
    z = (x - x.mean(0)) / x.std(0)
    expected = Ridge(alpha=0.1 * dim).fit(z, y).predict(z)
    assert fit_ridge(x, y, penalties=[0.1]).predict(x) == pytest.approx(expected, rel=1e-3)


def test_ridge_chooses_by_the_leave_one_out_error():
    x = RNG.normal(size=(30, 8)).astype(np.float32)
    y = x @ RNG.normal(size=8) + 2 * RNG.normal(size=30)
    z = (x - x.mean(0)) / x.std(0)
    penalties = (1e3, 1.0, 1e-3)

    def left_out(penalty):
        keep = ~np.eye(30, dtype=bool)
        fits = [Ridge(alpha=8 * penalty).fit(z[k], y[k]) for k in keep]
        return sum((y[i] - fit.predict(z[i : i + 1])[0]) ** 2 for i, fit in enumerate(fits))

    assert fit_ridge(x, y, penalties=penalties).penalty == min(penalties, key=left_out)


def test_ridge_predicts_new_values_of_several_targets():
    x = RNG.normal(size=(300, 30)).astype(np.float32)
    y = x[:, :2] * [1, 100] + RNG.normal(size=(300, 2)) * [0.1, 10]
    assert r2(y[200:], fit_ridge(x[:200], y[:200]).predict(x[200:])) > 0.95
    noise = fit_ridge(x[:200], RNG.normal(size=200))
    assert noise.predict(x[200:]).shape == (100,)
    assert noise.penalty >= 10
    with pytest.raises(UserError, match="NaN"):
        fit_ridge(x, np.full(300, np.nan))
