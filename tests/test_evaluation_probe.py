import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from selfsup.errors import UserError
from selfsup.evaluation.draws import interval, nested_draws
from selfsup.evaluation.lbfgs import minimise
from selfsup.evaluation.probe import fit_probe, stratified_folds


def make(n, classes, dim, seed=0, apart=1.0):
    """Features with a power-law spectrum, rotated, shifted and of unequal scales, as encoders give them."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, dim + 1) ** -0.5
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(dim, dim)))[0]
    centre = apart * np.random.default_rng(98).normal(size=(classes, dim)) * spectrum
    y = np.arange(n) % classes
    x = (rng.normal(size=(n, dim)) * spectrum + centre[y]) @ turn * np.linspace(0.1, 3, dim) + 2
    return x.astype(np.float32), y


def reference_scores(x, y, classes, penalty, queries):
    """The same problem by scipy's L-BFGS-B in float64 on the plain standardised features."""
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    z, d = (x - mean) / std, x.shape[1]

    def objective(flat):
        w = flat.reshape(d + 1, classes)
        logits = z @ w[:-1] + w[-1]
        norm = logsumexp(logits, axis=1)
        error = np.exp(logits - norm[:, None])
        error[np.arange(len(y)), y] -= 1
        gradient = np.vstack([z.T @ error + penalty * d * w[:-1], error.sum(0)])
        value = (norm - logits[np.arange(len(y)), y]).sum() + penalty * d / 2 * (w[:-1] ** 2).sum()
        return value, gradient.ravel()

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-7}
    solved = minimize(objective, np.zeros((d + 1) * classes), jac=True, method="L-BFGS-B", options=options)
    w = solved.x.reshape(d + 1, classes)
    return (queries - mean) / std @ w[:-1] + w[-1]


def centred(scores):
    return scores - scores.mean(1, keepdims=True)


@pytest.mark.parametrize(("n", "dim"), [(30, 100), (300, 40), (600, 9)], ids=["row space", "full space", "some axes"])
@pytest.mark.parametrize("penalty", [1.0, 1e-3])
def test_the_solution_is_the_minimum(n, dim, penalty):
    x, y = make(n, 5, dim)
    queries, _ = make(50, 5, dim, seed=1)
    ours = centred(fit_probe(x, y, 5, penalties=[penalty]).scores(queries))
    exact = centred(reference_scores(x, y, 5, penalty, queries))
    assert ours == pytest.approx(exact, abs=float(2e-3 * np.abs(exact).max()))


def test_single_precision_finds_the_same_minimum(monkeypatch):
    x, y = make(400, 4, 30, apart=0.5)
    exact = centred(fit_probe(x, y, 4, penalties=[0.01]).scores(x))
    monkeypatch.setattr("selfsup.evaluation.rows.SMALL", 0)
    single = fit_probe(x, y, 4, penalties=[0.01])
    assert single.weight.dtype == torch.float32
    assert centred(single.scores(x)) == pytest.approx(exact, abs=float(5e-3 * np.abs(exact).max()))


def test_the_penalty_suits_the_signal():
    """Pure noise wants the strongest penalty, plentiful clean data a weak one; both are near the best on test."""
    noise = np.random.default_rng(0).normal(size=(100, 50)).astype(np.float32)
    assert fit_probe(noise, np.arange(100) % 4, 4).penalty == 100
    x, y = make(500, 5, 50, apart=0.5)
    queries, truth = make(2000, 5, 50, seed=1, apart=0.5)
    chosen = fit_probe(x, y, 5)
    accuracy = [np.mean(fit_probe(x, y, 5, penalties=[p]).predict(queries) == truth) for p in (100, 1, 0.01, 1e-4)]
    assert np.mean(chosen.predict(queries) == truth) >= max(accuracy) - 0.01
    assert chosen.penalty < 10


def test_scaling_and_shifting_a_feature_changes_nothing():
    x, y = make(60, 3, 20)
    factors, offset = np.logspace(-2, 2, 20, dtype=np.float32), np.linspace(-5, 5, 20, dtype=np.float32)
    plain, moved = fit_probe(x, y, 3), fit_probe(x * factors + offset, y, 3)
    assert moved.penalty == plain.penalty
    assert moved.scores(x * factors + offset) == pytest.approx(plain.scores(x), abs=1e-2)


def test_constant_features_count_for_nothing():
    x, y = make(40, 3, 10)
    constant = np.full((40, 2), 7.3, np.float32)
    probe = fit_probe(np.hstack([x, constant]), y, 3, penalties=[1.0])
    away = np.hstack([x, constant + 100])
    assert np.isfinite(probe.scores(away)).all()
    assert probe.predict(away).tolist() == fit_probe(x, y, 3, penalties=[12 / 10]).predict(x).tolist()
    flat = fit_probe(np.ones((6, 4), np.float32), np.array([0, 0, 0, 0, 1, 1]), 2)
    assert flat.predict(np.ones((3, 4), np.float32)).tolist() == [0, 0, 0]


def test_a_class_that_is_missing_is_never_predicted():
    x, y = make(60, 6, 10)
    seen = y != 2
    probe = fit_probe(x[seen], y[seen], 6)
    assert set(probe.predict(x).tolist()) == {0, 1, 3, 4, 5}
    assert (probe.scores(x)[:, 2] == -np.inf).all()


def test_one_label_per_class_works():
    x, y = make(5, 5, 64, apart=2.0)
    queries, truth = make(500, 5, 64, seed=1, apart=2.0)
    assert np.mean(fit_probe(x, y, 5).predict(queries) == truth) > 0.6


def test_shuffled_labels_give_chance():
    x, y = make(600, 4, 30)
    y = np.random.default_rng(0).permutation(y)
    queries, truth = make(1000, 4, 30, seed=1)
    draws = nested_draws(y, [20], draws=8, seed=0)
    accuracy = interval([np.mean(fit_probe(x[d[20]], y[d[20]], 4).predict(queries) == truth) for d in draws])
    assert abs(accuracy.mean - 1 / 4) <= accuracy.half


def test_many_samples_choose_the_penalty_on_a_part(monkeypatch):
    x, y = make(900, 5, 40, apart=0.4)
    queries, truth = make(2000, 5, 40, seed=1, apart=0.4)
    whole = fit_probe(x, y, 5)
    monkeypatch.setattr("selfsup.evaluation.probe.LARGE", 300)
    part = fit_probe(x, y, 5)
    assert abs(np.log10(part.penalty / whole.penalty)) <= 1.01
    assert np.mean(part.predict(queries) == truth) == pytest.approx(np.mean(whole.predict(queries) == truth), abs=0.02)


def test_many_classes_choose_the_penalty_on_some_of_them(monkeypatch):
    x, y = make(240, 24, 20)
    queries, truth = make(2000, 24, 20, seed=1)
    whole = fit_probe(x, y, 24)
    monkeypatch.setattr("selfsup.evaluation.probe.MANY", 8)
    some = fit_probe(x, y, 24)
    assert some.scores(x).shape == (240, 24)
    assert np.mean(some.predict(queries) == truth) >= np.mean(whole.predict(queries) == truth) - 0.02


def test_turned_weights_find_the_same_minimum(monkeypatch):
    """Large problems keep their own axes and turn the weights instead of the rows."""
    x, y = make(400, 4, 30, apart=0.5)
    exact = centred(fit_probe(x, y, 4, penalties=[0.01]).scores(x))
    monkeypatch.setattr("selfsup.evaluation.probe.LARGE", 300)
    turned = centred(fit_probe(x, y, 4, penalties=[0.01]).scores(x))
    assert turned == pytest.approx(exact, abs=float(2e-3 * np.abs(exact).max()))


@pytest.mark.parametrize("n", [50, 500])
def test_the_whole_path_takes_few_evaluations(monkeypatch, n):
    """Counted, not timed: one of them is 1 ms at most, and a plain L-BFGS needs thousands of them."""
    evaluations = []
    plain = torch.Tensor.addmm_
    monkeypatch.setattr(torch.Tensor, "addmm_", lambda *args: evaluations.append(1) or plain(*args))
    x, y = make(n, 10, 256, apart=0.3)
    assert fit_probe(x, y, 10).penalty <= 0.01  # far along the path, where the problem is ill conditioned
    assert len(evaluations) <= 200


def test_folds_are_stratified_and_leave_every_class_in():
    target = np.repeat([0, 1, 2, 3], [50, 7, 2, 1])
    fold = stratified_folds(target, 5, seed=0)
    assert fold[target == 3].tolist() == [-1]
    for c, held in [(0, 10), (1, 1)]:
        counts = np.bincount(fold[target == c], minlength=5)
        assert counts.min() >= held
        assert counts.max() <= held + 1
    for f in range(5):
        assert set(target[fold != f]) == {0, 1, 2, 3}
    assert fold.tolist() != stratified_folds(target, 5, seed=1).tolist()


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.full((4, 3), np.nan, np.float32), np.array([0, 1, 0, 1]), "4 of 4 rows .* NaN"),
        (np.ones((4, 3), np.float32), np.array([0, 0, 0, 0]), "one class"),
        (np.ones((4, 3), np.float32), np.array([0, 1, 2, -1]), "from -1 to 2"),
        (np.ones((4, 3), np.float32), np.array([0, 1]), "4 samples"),
        (np.ones((4, 3, 1), np.float32), np.array([0, 1, 0, 1]), "shape"),
    ],
)
def test_bad_input_is_one_line(x, y, words):
    with pytest.raises(UserError, match=words):
        fit_probe(x, y, 2)
    with pytest.raises(UserError, match="penalty"):
        fit_probe(np.eye(2, dtype=np.float32), np.arange(2), 2, penalties=[0.0])


def test_minimise_solves_unequal_quadratics_at_once():
    rng = np.random.default_rng(0)
    root = torch.from_numpy(rng.normal(size=(3, 6, 6)))
    matrix = root @ root.mT + 0.01 * torch.eye(6)
    target = torch.from_numpy(rng.normal(size=(3, 6)))

    def objective(x):
        off = x[..., 0].T - target
        gradient = (matrix @ off[..., None])[..., 0]
        return 1 + (off * gradient).sum(1) / 2, gradient.T[..., None]

    found, done = minimise(
        objective,
        torch.zeros(6, 3, 1, dtype=torch.float64),
        torch.clone,
        1e-12,
        floor=torch.zeros(3),
        steps=100,
    )
    assert done
    assert torch.allclose(found[..., 0].T, target, atol=1e-4)
