"""The sentence with which an evaluation begins: it helps, it does not, or it cannot be told."""

from typing import Any

import numpy as np
import pytest

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.evaluation.few_labels import make_score
from selfsup.evaluation.score import Score
from selfsup.evaluation.verdict import verdict
from selfsup.source import Labels

ABOUT = {"task": "simclr", "metric": "accuracy", "unit": "labels per class", "test": {"samples": 5000}, "steps": 5000}


def scores(shots: int | None = 5, **rows: tuple[float, ...]) -> list[Score]:
    reader = {"scratch": ("from scratch", "trained"), "ours": ("simclr", "linear")}
    return [
        make_score(*reader.get(name, (name, "linear")), shots, [{"accuracy": value} for value in values])
        for name, values in rows.items()
    ]


def test_it_helps_only_where_every_other_row_is_worse() -> None:
    ours, worse = (0.90, 0.91, 0.92), (0.80, 0.80, 0.82)
    told = verdict(ABOUT, scores(ours=ours, untrained=worse, scratch=(0.7, 0.7, 0.7)))
    assert told.startswith("It helps: with 5 labels per class, simclr (linear) reaches 91.0%, 10.3 ± ")
    assert "than the untrained encoder, the best of the other rows" in told
    assert verdict(ABOUT, scores(ours=ours, untrained=worse, scratch=(0.97, 0.98, 0.97))).startswith(
        "It does not help: with 5 labels per class, simclr (linear) reaches 91.0%, 6.3 ± "
    )
    assert "cannot be told" in verdict(ABOUT, scores(ours=ours, untrained=(0.95, 0.90, 0.87)))
    assert "than the untrained simclr, the" in verdict(ABOUT, scores(ours=ours, **{"untrained simclr": worse}))
    assert verdict(ABOUT, scores(ours=ours)) == ""


def test_few_labels_are_enough_to_help() -> None:
    few = scores(1, ours=(0.6, 0.62, 0.61), untrained=(0.4, 0.41, 0.42))
    many = scores(100, ours=(0.80, 0.81, 0.80), untrained=(0.9, 0.91, 0.92))
    assert verdict(ABOUT, [*many, *few]).startswith("It helps: with 1 label per class")
    assert verdict(ABOUT, many).startswith("It does not help")


def test_four_test_samples_settle_nothing() -> None:
    rows = scores(ours=(0.90, 0.91, 0.92), untrained=(0.80, 0.80, 0.82))
    about: dict[str, Any] = {**ABOUT, "test": {"samples": 4}, "steps": 20}
    told = verdict(about, rows)
    assert told.startswith("It cannot be told")
    assert "labelled test samples instead of 4, or longer pretraining than 20 steps" in told


def test_one_value_has_no_interval_but_test_samples_do() -> None:
    all_labels = scores(None, ours=(0.9,), untrained=(0.8,))
    assert verdict(ABOUT, all_labels).startswith("It helps: with all labels")
    numbers = {**ABOUT, "metric": "R²", "unit": "labelled samples"}
    assert "cannot be told" in verdict(numbers, all_labels)


@pytest.mark.parametrize("count", [20, 60])
def test_twenty_labels_are_cross_validated(finished_run: Any, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.evaluation.parts.ENOUGH", 50)
    monkeypatch.setattr("selfsup.evaluation.few_labels.STEPS", (4, 4))
    digits = open_data("digits").take(np.arange(300))
    assert digits.labels is not None
    ids = np.where(np.arange(300) < count, digits.labels.ids, -1)
    digits.labels = Labels(ids, digits.labels.classes)
    options = {"shots": "1", "protocol": "linear,propagate", "quiet": True}
    result = selfsup.evaluate(finished_run, data=digits, **options, scratch=count == 20)
    assert result.about["test"]["samples"] == count
    assert {len(score.values) for score in result.scores} == {5}
    assert "5 folds, each measured on once" in " ".join(str(result).split())
    assert result.verdict.startswith("It cannot be told")
    assert any("made only 2 steps" in line for line in result.about["warnings"])


def test_shuffled_labels_are_no_help(finished_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.evaluation.parts.ENOUGH", 50)
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (200, 8, 8), dtype=np.uint8)
    source = Arrays(noise, Labels.of([str(label) for label in generator.integers(0, 4, 200)]))
    result = selfsup.evaluate(finished_run, data=source, shots="10", protocol="linear", scratch=False, quiet=True)
    assert not result.verdict.startswith("It helps")
    assert abs(result.score("rotation", "linear", 10).mean - 0.25) < 0.12, "no test sample was trained on"


def test_the_verdict_comes_first_everywhere(finished_run: Any) -> None:
    few = open_data("digits").take(np.arange(300))
    result = selfsup.evaluate(finished_run, data=few, shots="5", protocol="linear", scratch=False, quiet=True)
    assert str(result).lstrip().startswith(result.verdict[:20])
    assert result.as_json()["verdict"] == result.verdict
    assert result.verdict in selfsup.report(finished_run, data=few, quiet=True).path.read_text().replace("&#x27;", "'")
