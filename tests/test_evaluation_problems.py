"""What would make a number mean something else is found, counted and said."""

from pathlib import Path

import numpy as np
import pytest

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.evaluation.problems import Pair, about_classes, about_copies, check_classes, overlap
from selfsup.source import Labels, Source


def digits(per_class: int, skip: int = 0) -> Source:
    source = open_data("digits")
    assert source.labels is not None
    rows = [np.flatnonzero(source.labels.ids == c)[skip : skip + per_class] for c in range(10)]
    return source.take(np.concatenate(rows))


def copies(train: Source, test: Source, features: Pair) -> tuple[dict[str, int], list[str]]:
    found = overlap(train, test, features)
    return {kind: len(paths) for kind, paths in found.items()}, about_copies(found, len(test))


def test_copies_across_the_split_are_counted_and_said(finished_run: Path) -> None:
    train, test = digits(10), digits(10, skip=10)
    clean = selfsup.evaluate(finished_run, data=train, test=test, shots="5", draws=2, scratch=False, quiet=True)
    assert clean.about["duplicates"]["same"] == 0
    assert isinstance(test, Arrays)
    assert isinstance(train, Arrays)
    mixed = Arrays(np.concatenate([test.x, train.x[:7]]), Labels.of([*np.repeat(range(10), 10), *[0] * 7]))
    result = selfsup.evaluate(finished_run, data=train, test=mixed, shots="5", draws=2, scratch=False, quiet=True)
    assert result.about["duplicates"]["same"] == 7
    assert "7 of 107 test samples are copies of training samples" in " ".join(str(result).split())


def test_near_copies_are_found_by_their_features() -> None:
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    source = Arrays(np.random.default_rng(1).integers(0, 255, (50, 8, 8), dtype=np.uint8))
    other = Arrays(255 - source.x[:5])
    counts, lines = copies(source, other, (x, x[:5] + np.array([0, 0, 1, 1, 1])[:, None].astype(np.float32)))
    assert counts == {"same": 0, "near": 0, "alike": 2}
    assert len(lines) == 1
    counts, _ = copies(source, source.take(np.arange(3)), (x, x[:3]))
    assert counts == {"same": 3, "near": 0, "alike": 0}, "what is the same is not counted twice"


def test_files_are_compared_by_their_bytes(images: Path) -> None:
    source = open_data(images)
    features = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    counts, lines = copies(source, source.take(np.array([2, 5])), (features, -features[:2]))
    assert counts["same"] == 2
    assert "cat/2.png" in lines[0]


def test_missing_and_short_classes_are_named() -> None:
    train = Labels(np.array([0] * 9 + [1] * 3 + [3] * 12), ("a", "b", "c", "d"))
    test = Labels(np.array([0, 1, 2, 2]), train.classes)
    lines = " / ".join(about_classes(train, test, [1, 5, 10]))
    assert "2 of 4 test samples are of classes without a training label: 'c'" in lines
    assert "no test sample is of 'd'" in lines
    assert "all labels are drawn of classes with fewer than 5: 'b'" in lines
    assert "all labels are drawn of classes with fewer than 10: 'a', 'b'" in lines
    assert about_classes(test, test, [1]) == []


def test_a_huge_class_count_is_sound(finished_run: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (300, 8, 8), dtype=np.uint8)
    source = Arrays(x, Labels.of(np.repeat(np.arange(150), 2)))
    result = selfsup.evaluate(finished_run, data=source, draws=2, scratch=False, quiet=True)
    assert {s.shots for s in result.scores} == {1, None}
    assert all(score.mean < 0.06 for score in result.scores)


def evaluate(run: Path, x: np.ndarray, names: list, test: Source | None = None) -> None:
    selfsup.evaluate(run, data=Arrays(x, Labels.of(names)), test=test, draws=2, scratch=False, quiet=True)


def test_labels_that_cannot_be_classes_are_one_line(finished_run: Path) -> None:
    x = np.zeros((20, 8, 8), np.uint8)
    names = [f"image{i}.png" for i in range(20)]
    with pytest.raises(UserError, match="are the labels file names"):
        evaluate(finished_run, x, names)
    other = Arrays(x, Labels.of([f"other{i}.png" for i in range(20)]))
    with pytest.raises(UserError, match=r"no test label is among those of .* are they file names"):
        evaluate(finished_run, x, names, other)
    with pytest.raises(UserError, match=r"are of one class \('a'\)"):
        evaluate(finished_run, x, ["a"] * 20)
    with pytest.raises(UserError, match="has no labels"):
        evaluate(finished_run, x, [None] * 20)
    check_classes(Labels(np.array([0, 1]), ("a", "b")), Labels(np.array([1]), ("a", "b")), "x")


def test_features_that_are_not_finite_are_one_line(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = selfsup.Run(finished_run)
    broken = run.load()
    next(broken.parameters()).data.fill_(float("nan"))
    monkeypatch.setattr(run, "load", lambda: broken)
    with pytest.raises(UserError, match="NaN or infinity; the encoder may have diverged"):
        selfsup.evaluate(run, data=digits(5), draws=2, scratch=False, quiet=True)
