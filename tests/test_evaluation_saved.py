"""Labels saved: known curves give known savings, and the interval says what draws can say."""

import math

import numpy as np
import pytest

from selfsup.evaluation.labels_saved import Saved, labels_saved, sentence


def curve(slope, start, shots, noise=None):
    """Accuracy start + slope · log10(labels), one a draw."""
    extra = np.zeros(5) if noise is None else noise
    return {k: list(start + slope * math.log10(k) + extra) for k in shots}


def test_known_curves_give_known_savings():
    scratch = curve(0.2, 0.3, (1, 10, 100, 1000))
    found = labels_saved(curve(0.2, 0.5, (1, 10, 100, 1000)), scratch)
    assert [s.needed for s in found[:3]] == pytest.approx([10, 100, 1000])
    assert math.isinf(found[3].needed), "more than there are"
    assert found[0].low == pytest.approx(10)
    assert found[0].high == pytest.approx(10), "draws that agree leave no doubt"


def test_it_is_interpolated_on_the_logarithm_of_the_labels():
    (one,) = labels_saved({5: [0.6]}, {1: [0.5], 100: [0.7]})
    assert one.needed == pytest.approx(10)


def test_an_accuracy_below_the_curve_needs_the_fewest_that_were_measured():
    (one,) = labels_saved({5: [0.1] * 3}, {2: [0.5] * 3, 100: [0.7] * 3})
    assert (one.needed, one.low, one.high) == (2, 2, 2)


def test_a_dip_does_not_count():
    (one,) = labels_saved({5: [0.6]}, {1: [0.5], 10: [0.7], 100: [0.55], 1000: [0.9]})
    assert one.needed == pytest.approx(10**0.5)


def test_the_interval_covers_the_true_saving():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        scratch = {k: 0.3 + 0.2 * math.log10(k) + rng.normal(0, 0.02, 5) for k in (1, 10, 100, 1000)}
        ours = {10: 0.5 + 0.1 * math.log10(10) + rng.normal(0, 0.02, 5)}  # 0.6: 10^1.5 labels
        (one,) = labels_saved(ours, scratch, seed=trial)
        assert one.low <= one.needed <= one.high
        hits += one.low <= 10**1.5 <= one.high
    assert 0.9 <= hits / 200 <= 0.99


def test_it_is_said_in_one_plain_sentence():
    many = [Saved(1, 0.5, 4, 3, 5), Saved(10, 0.8, 40, 30, math.inf), Saved(100, 0.9, 400, 300, 500)]
    said = sentence(many, "rotation (linear)")
    assert "with 10 labels per class rotation (linear) reaches 80.0%" in said
    assert "needs 40 per class for that (95% interval 30 to more than you have), 4 × as many." in said
    assert "does not reach that" in sentence([Saved(10, 0.9, math.inf, 50, math.inf)], "x")
    assert "nothing is saved" in sentence([Saved(10, 0.9, 4, 3, 5)], "x")
    assert "no clear saving" in sentence([Saved(10, 0.9, 12, 3, 50)], "x")
    assert Saved.of(many[1].as_json()) == many[1]
