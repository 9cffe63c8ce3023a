"""Numbers and several labels a sample, and how they are drawn."""

from pathlib import Path

import numpy as np
import pytest

import selfsup
from selfsup.data.image import Arrays
from selfsup.errors import UserError
from selfsup.evaluation.draws import nested_subsets
from selfsup.evaluation.targets import TARGETS, read_shots, split
from selfsup.source import Labels


def bars(count: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images with a bright row and a bright column, and where these are."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 30, (count, 8, 8), dtype=np.uint8)
    row, column = rng.integers(0, 8, count), rng.integers(0, 3, count)
    for i in range(count):
        x[i, row[i]] = 200
        x[i, :, column[i]] = 250
    return x, row, column


def test_numbers_are_read_by_ridge_and_measured_by_r2(finished_run: Path) -> None:
    x, row, _ = bars()
    source = Arrays(x, Labels.of([f"{value:.1f}" for value in row]))
    result = selfsup.evaluate(finished_run, data=source, target="numeric", shots="20,all", draws=2, quiet=True)
    assert {s.protocol for s in result.scores} == {"linear"}
    assert "from scratch" not in {s.representation for s in result.scores}
    assert result.score("raw pixels", "linear", None).mean > 0.8, "the row can be read off the pixels"
    assert result.about["metric"] == "R²"
    assert result.headline == ""
    assert "always the mean" in str(result)
    rng = np.random.default_rng(0)
    source.labels = Labels.of([str(value) for value in rng.permutation(row)])
    shuffled = selfsup.evaluate(finished_run, data=source, target="numeric", shots="50", draws=2, quiet=True)
    assert all(score.mean < 0.2 for score in shuffled.scores)


def test_several_labels_are_measured_by_average_precision(finished_run: Path) -> None:
    x, row, column = bars()
    names = ["|".join([f"r{r % 2}", f"c{c}"]) for r, c in zip(row, column, strict=True)]
    source = Arrays(x, Labels.of(names))
    result = selfsup.evaluate(finished_run, data=source, target="multi", shots="all", draws=2, quiet=True)
    assert {s.protocol for s in result.scores} == {"linear"}
    assert result.about["metric"] == "average precision"
    assert result.about["chance"]["value"] < 0.6
    assert result.score("raw pixels", "linear", None).mean > 0.8


def test_labels_become_what_has_to_be_predicted() -> None:
    assert TARGETS["numeric"].truth(Labels.of(["1.5", "-2", "1.5"])).tolist() == [1.5, -2.0, 1.5]
    assert TARGETS["multi"].truth(Labels.of(["b|a", "a", " c "])).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    for name in ("cat", "nan", "inf"):
        with pytest.raises(UserError, match=f"'{name}' is not a finite number"):
            TARGETS["numeric"].truth(Labels.of(["1", name]))


def test_samples_are_drawn_nested_whatever_their_labels() -> None:
    for draw in nested_subsets(30, [2, 10, None], draws=3, seed=0):
        assert set(draw[2]) < set(draw[10]) < set(draw[None])
        assert draw[None].tolist() == list(range(30))
    with pytest.raises(UserError, match="at least 2"):
        nested_subsets(30, [1], 1, 0)
    with pytest.raises(UserError, match="there are 30"):
        nested_subsets(30, [31], 1, 0)


def test_a_split_of_numbers_takes_a_fifth() -> None:
    source = Arrays(np.zeros((50, 8, 8), np.uint8), Labels.of(range(50)))
    train, test = split(source, 0, target=TARGETS["numeric"])
    assert (len(train), len(test)) == (40, 10)
    assert not set(train) & set(test)


def test_default_shots_go_as_far_as_the_labels() -> None:
    labels = Labels(np.repeat([0, 1], [60, 5]), ("a", "b"))
    assert read_shots(None, TARGETS["classes"], labels) == [1, 2, 5, 10, 20, 50, None]
    assert read_shots(None, TARGETS["numeric"], labels) == [10, 20, 50, None]
    assert read_shots("5, 5,all", TARGETS["classes"], labels) == [5, None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "number"}, "unknown target 'number'"),
        ({"target": "numeric", "protocol": "knn"}, "unknown protocol of --target numeric 'knn'"),
        ({"target": "numeric", "protocol": "propagate"}, "unknown protocol of --target numeric 'propagate'"),
        ({"target": "multi", "protocol": "linear,transductive"}, "unknown protocol of --target multi 'transductive'"),
        ({"protocol": ""}, "--protocol names none"),
        ({"metrics": "retreival"}, "did you mean 'retrieval'"),
        ({"target": "multi", "semi": True}, "--semi is for --target classes"),
        ({"target": "numeric", "shots": "1"}, "at least 2"),
        ({"protocol": "attentive"}, "take a transformer"),
        ({"reference": "resnet1"}, "unknown model of timm"),
        ({"reference": "resnet18"}, "no pretrained weights of resnet18 on this machine"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict, words: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    data = Arrays(np.zeros((40, 8, 8), np.uint8), Labels.of([1, 2] * 20))
    with pytest.raises(UserError, match=words) as error:
        selfsup.evaluate(finished_run, data=data, draws=2, scratch=False, quiet=True, **options)
    assert "\n" not in str(error.value)
