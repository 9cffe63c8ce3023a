import numpy as np
import pytest

from selfsup.errors import UserError
from selfsup.evaluation.draws import interval, iqm, nested_draws, short_classes

LABELS = np.array([0] * 30 + [1] * 4 + [2] * 12 + [-1] * 5)[np.random.default_rng(0).permutation(51)]


def test_draws_are_nested_balanced_and_labelled():
    for draw in nested_draws(LABELS, [1, 3, None], draws=4, seed=0):
        assert set(draw[1]) < set(draw[3]) < set(draw[None])
        assert np.bincount(LABELS[draw[3]]).tolist() == [3, 3, 3]
        assert draw[None].tolist() == np.flatnonzero(LABELS >= 0).tolist()


def test_draws_differ_and_repeat():
    first, second = nested_draws(LABELS, [3], draws=2, seed=0)
    again = nested_draws(LABELS, [3, 1], draws=1, seed=0)[0]
    other = nested_draws(LABELS, [3], draws=1, seed=1)[0]
    assert first[3].tolist() == again[3].tolist()
    assert first[3].tolist() != second[3].tolist()
    assert first[3].tolist() != other[3].tolist()


def test_every_sample_is_drawn_equally_often():
    draws = nested_draws(LABELS, [2], draws=3000, seed=0)
    often = np.bincount(np.concatenate([d[2] for d in draws]), minlength=len(LABELS))
    expected = {-1: 0.0, 0: 2 / 30, 1: 2 / 4, 2: 2 / 12}
    assert often / 3000 == pytest.approx([expected[c] for c in LABELS], abs=0.04)


def test_a_short_class_gives_all_and_is_reported():
    draw = nested_draws(LABELS, [2, 10, 20], draws=1, seed=0)[0]
    assert np.bincount(LABELS[draw[20]]).tolist() == [20, 4, 12]
    assert short_classes(LABELS, [2, 10, 20, None]) == {10: [1], 20: [1, 2]}


@pytest.mark.parametrize(
    ("labels", "shots", "words"),
    [
        (np.full(5, -1), [1], "no labels"),
        (np.array([3, 3, -1]), [1], "one class"),
        (LABELS, [31], "no class has more than 30"),
        (LABELS, [0], "at least 1"),
    ],
)
def test_bad_labels_are_one_line(labels, shots, words):
    with pytest.raises(UserError, match=words) as error:
        nested_draws(labels, shots, draws=1, seed=0)
    assert "\n" not in str(error.value)


def test_interval_of_known_values():
    mean, half, n = interval([1.0, 2.0, 3.0])
    assert (mean, n) == (2.0, 3)
    assert half == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)  # t(2, 0.975) × std 1 / √3
    assert np.isnan(interval([0.5]).half)
    with pytest.raises(UserError):
        interval([])


@pytest.mark.parametrize("n", [3, 5, 10])
def test_interval_covers_the_mean_of_normal_values(n):
    values = np.random.default_rng(n).normal(0.7, 0.1, (1000, n))
    covered = [abs(i.mean - 0.7) <= i.half for i in map(interval, values)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_interval_covers_the_expected_accuracy_of_a_drawn_classifier():
    """1,000 whole experiments: 5 draws of 5 labels per class, nearest class mean, accuracy on a fixed test set."""
    rng = np.random.default_rng(0)
    y, test_y = np.repeat(np.arange(10), 200), np.repeat(np.arange(10), 50)
    x = rng.normal(size=(2000, 16)) + 2 * np.eye(16)[y]
    test_x = rng.normal(size=(500, 16)) + 2 * np.eye(16)[test_y]
    accuracies = []
    for draw in nested_draws(y, [5], draws=5000, seed=0):
        means = x[draw[5]].reshape(10, 5, 16).mean(1)  # sorted indices keep the classes apart, since y is sorted
        nearest = (test_x @ means.T - (means**2).sum(1) / 2).argmax(1)
        accuracies.append(np.mean(nearest == test_y))
    truth = np.mean(accuracies)
    covered = [abs(i.mean - truth) <= i.half for i in map(interval, np.reshape(accuracies, (1000, 5)))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_the_interquartile_mean_of_runs_leaves_out_the_best_and_the_worst() -> None:
    assert iqm([1, 2, 6]).mean == pytest.approx(3)  # of three runs none can be left out
    found = iqm([2, 3, 4, 5, -90, 1, 6, 800])
    assert found.mean == pytest.approx(3.5)
    assert -90 < found.low < 3.5 < found.high < 800
    assert iqm([2, 3, 4, 5, -90, 1, 6, 800]) == found
    with pytest.raises(UserError, match="at least two of them: give more --seeds"):
        iqm([1.0])


def test_the_interval_of_few_runs_is_as_wide_as_that_of_students_t() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    halves = [(iqm(row).high - iqm(row).low) / 2 for row in values]
    assert np.mean(halves) == pytest.approx(np.mean([interval(row).half for row in values]), rel=0.25)
