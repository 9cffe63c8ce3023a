"""Few-label evaluation: what it sees, what it reports, what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.parts import align
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.targets import split
from selfsup.source import Labels, Source


@pytest.fixture(scope="module")
def run(digits_run: selfsup.Run, tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    return selfsup.Run(shutil.copytree(digits_run.folder, tmp_path_factory.mktemp("runs") / "digits"))


def few_digits() -> Source:
    return open_data("digits").take(np.arange(0, 1797, 6))


@pytest.mark.usefixtures("copies")
def test_a_table_with_every_baseline(run: selfsup.Run, tmp_path: Path) -> None:
    digits = open_data("digits")
    some, others = (digits.take(np.arange(start, len(digits), 6)) for start in (0, 1))
    result = selfsup.evaluate(run, data=some, test=others, shots="1,all", draws=2, quiet=True)
    read = {(score.representation, score.protocol) for score in result.scores}
    frozen = {
        (name, reader)
        for name in ("rotation", "untrained", "PCA", "raw pixels")
        for reader in ("linear", "knn", "propagate")
    }
    assert read == frozen | {("from scratch", "trained"), ("from scratch + pool", "self-trained")}
    for score in result.scores:
        assert len(score.values) == (1 if score.shots is None else 2)
        assert score.mean == pytest.approx(np.mean(score.values))
        assert 0 < score.mean <= 1
    more, fewer = (result.score("rotation", "linear", shots).mean for shots in (None, 1))
    assert more > fewer, "more labels help"
    assert more > 0.85
    result.save(tmp_path / "e.json")
    saved = json.loads((tmp_path / "e.json").read_text())
    assert saved["about"]["classes"] == 10
    assert saved["scores"][-1]["half"] is None, "one value has no interval"
    assert "from scratch" in str(result)
    assert "±" in str(result)
    assert "from scratch" in result._repr_mimebundle_((), ())["text/html"], "a notebook shows the table"


def test_shuffled_labels_give_chance(run: selfsup.Run) -> None:
    digits = open_data("digits")
    assert digits.labels is not None
    ids = np.random.default_rng(0).permutation(digits.labels.ids)
    digits.labels = Labels(ids, digits.labels.classes)
    result = selfsup.evaluate(run, data=digits, shots="10", draws=5, scratch=False, quiet=True)
    for score in result.scores:
        assert abs(score.mean - 0.1) < 0.04, score


def test_the_test_part_never_shows_in_training(run: selfsup.Run) -> None:
    digits = open_data("digits")
    train, test = (digits.take(numbers) for numbers in split(digits, seed=0))
    seen = {x.tobytes() for x in train.x}
    assert len(train) + len(test) == len(digits)
    assert len(test) == pytest.approx(0.2 * len(digits), abs=10)
    assert sum(x.tobytes() in seen for x in test.x) == 0


def test_results_do_not_depend_on_what_else_is_evaluated(run: selfsup.Run) -> None:
    few = few_digits()
    one = selfsup.evaluate(run, data=few, shots="5", draws=2, protocol="linear", scratch=False, quiet=True)
    two = selfsup.evaluate(run, data=few, shots="1,5", draws=2, scratch=False, quiet=True)
    for name in ("rotation", "untrained"):
        assert one.score(name, "linear", 5) == two.score(name, "linear", 5)


def test_default_shots_are_those_that_the_labels_allow(run: selfsup.Run) -> None:
    digits = open_data("digits")
    assert digits.labels is not None
    few = digits.take(np.concatenate([np.flatnonzero(digits.labels.ids == c)[:10] for c in range(10)]))
    result = selfsup.evaluate(run, data=few, test=digits, draws=2, protocol="linear", scratch=False, quiet=True)
    assert {score.shots for score in result.scores} == {1, 2, 5, 10, None}
    with pytest.raises(UserError, match="50 labels per class asked for, but no class has more than 10"):
        selfsup.evaluate(run, data=few, test=digits, shots="50", quiet=True)


def test_classes_are_matched_by_name() -> None:
    train, test = align(Labels.of(["b", "c", "b"]), Labels.of(["c", "a", "", "b"]))
    assert train.classes == test.classes == ("b", "c", "a")
    assert test.ids.tolist() == [1, 2, -1, 0]
    assert train.ids.tolist() == [0, 1, 0]


def test_labels_sort_as_numbers_where_they_are_numbers() -> None:
    assert Labels.of([10, 9, None, 2]).classes == ("2", "9", "10")


def test_embedding_has_a_row_for_each_readable_image(run: selfsup.Run, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(5):
        (folder / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.full((9, 8), 40 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"class {number % 2}" / f"{number}.png")
    (folder / "class 0" / "empty.jpg").touch()
    result = selfsup.embed(run, folder, out=tmp_path / "e.parquet", labels="folders", quiet=True)
    assert (result.rows, result.dim, result.skipped) == (5, 128, 1)
    table = pq.read_table(result.path)
    assert table["path"].to_pylist() == [f"class {n % 2}/{n}.png" for n in (0, 2, 4, 1, 3)]
    assert table["label"].to_pylist() == ["class 0"] * 3 + ["class 1"] * 2
    vectors = np.stack(table["vector"].to_numpy())
    assert vectors.dtype == np.float32
    x = torch.tensor([[[[(40.0 / 255 - run.spec.mean[0]) / run.spec.std[0]]]]]).expand(1, 1, 8, 8)
    np.testing.assert_allclose(vectors[3], run.load()(x)[0].detach().numpy(), atol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.parquet", "images"]


def test_arrays_embed_in_order_with_null_for_no_label(run: selfsup.Run, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (300, 8, 8), dtype=np.uint8)
    source = Arrays(x, Labels.of([None, "a"] * 150))
    table = pq.read_table(selfsup.embed(run, source, out=tmp_path / "e.parquet", quiet=True).path)
    assert table["path"].to_pylist() == [str(i) for i in range(300)]
    assert table["label"].to_pylist() == [None, "a"] * 150


def test_the_run_folder_keeps_what_was_measured(run: selfsup.Run, monkeypatch, capsys) -> None:
    options = {"data": few_digits(), "shots": "2", "protocol": "knn", "scratch": False, "draws": 2, "quiet": True}
    result = selfsup.evaluate(run, **options)
    assert Evaluation.load(run.folder / "evaluation.json") == result
    monkeypatch.setattr(Evaluation, "save", lambda *_: (_ for _ in ()).throw(RunFailed("cannot write there")))
    assert selfsup.evaluate(run, **options) == result
    assert "cannot write there" in capsys.readouterr().err
