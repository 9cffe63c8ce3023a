"""Suggestions: typical, covering and uncertain samples, the file to fill in, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.errors import UserError
from selfsup.labelling.pool import Pool
from selfsup.labelling.suggest import STRATEGIES, cover, typical, uncertain

NONE = np.empty(0, np.int64)


def blobs(counts: tuple[int, ...] = (60, 50, 40, 30), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features in tight groups, and the group of each. No direction is noise alone: whitening would show it."""
    rng = np.random.default_rng(seed)
    centres = np.eye(len(counts))
    group = np.repeat(np.arange(len(counts)), counts)
    order = rng.permutation(len(group))
    x = 20 * centres[group] + rng.normal(size=(len(group), len(counts)))
    return x[order].astype(np.float32), group[order]


def pool_of(x: np.ndarray) -> Pool:
    return Pool(Arrays(np.zeros((len(x), 8, 8), np.uint8)), np.arange(len(x)), x)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("strategy", [typical, cover])
def test_each_group_is_suggested_once(strategy) -> None:
    x, group = blobs()
    found = strategy(pool_of(x).vectors, NONE, 4)
    assert sorted(group[[item.row for item in found]].tolist()) == [0, 1, 2, 3]


def test_typical_samples_lie_in_the_middle_and_the_largest_cluster_comes_first() -> None:
    x, group = blobs()
    found = typical(pool_of(x).vectors, NONE, 4)
    assert group[found[0].row] == 0
    assert found[0].stands_for == 60
    for item in found:
        distance = np.linalg.norm(x - x[group == group[item.row]].mean(0), axis=1)
        own = distance[group == group[item.row]]
        assert distance[item.row] < np.quantile(own, 0.5)


@pytest.mark.parametrize("strategy", [typical, cover])
def test_what_is_labelled_is_not_suggested_and_its_group_comes_last(strategy) -> None:
    x, group = blobs()
    known = np.array([np.flatnonzero(group == 0)[0], np.flatnonzero(group == 1)[0]])
    found = strategy(pool_of(x).vectors, known, 2)
    assert sorted(group[[item.row for item in found]].tolist()) == [2, 3]


def test_uncertain_samples_are_uncertain_and_differ() -> None:
    x, group = blobs()
    p = np.zeros((len(x), 4), np.float32)
    p[np.arange(len(x)), group] = 1
    p[group >= 2] = 0.25
    found = uncertain(pool_of(x).vectors, NONE, 2, 0, p)
    assert sorted(group[[item.row for item in found]].tolist()) == [2, 3]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kind", ["blobs", "equal", "one dimension", "two samples", "copies"])
def test_every_strategy_gives_as_many_different_samples_as_there_are(name: str, kind: str) -> None:
    x = blobs((6, 6))[0]
    x = {"equal": np.ones_like(x), "one dimension": x[:, :1], "two samples": x[:2], "copies": x[[0] * 6 + [1] * 6]}.get(
        kind, x
    )
    p = np.full((len(x), 2), 0.4, np.float32)
    found = [item.row for item in pool_of(x).suggest({0: 0}, 50, name, 0, p)]
    assert sorted(found) == list(range(1, len(x)))


def test_auto_is_typical_until_the_labels_predict_each_other() -> None:
    x, group = blobs()
    pool = pool_of(x)
    assert pool.next({}, 3)[0].strategy == "typical"
    assert pool.next({0: 0}, 3)[0].strategy == "typical"
    assert pool.next({0: 0, 1: 1}, 3)[0].strategy == "typical"
    assert pool.next({i: int(group[i]) for i in range(30)}, 3)[0].strategy == "uncertain"
    assert pool.next({i: i % 3 for i in range(30)}, 3)[0].strategy == "typical"
    one_class, _ = pool.next({0: 0}, 3, "uncertain")
    assert one_class.strategy == "typical"
    assert "two classes" in one_class.notes[0]


def test_features_that_are_not_finite_are_refused() -> None:
    x = blobs()[0]
    x[3] = np.nan
    with pytest.raises(UserError, match="1 of 180 rows of features hold NaN"):
        pool_of(x)


def test_suggested_labels_are_at_least_as_good_as_random_ones() -> None:
    from selfsup.evaluation.propagate import spread_labels

    x, group = blobs((120, 80, 60, 50, 40))
    pool, reached = pool_of(x), {"random": [], "typical": []}
    for seed in range(5):
        rows = {
            "typical": np.array([item.row for item in pool.suggest({}, 5, "typical", seed)]),
            "random": np.random.default_rng(seed).choice(len(x), 5, replace=False),
        }
        for name, chosen in rows.items():
            guess = spread_labels(pool.graph, chosen, group[chosen], 5).argmax(1)
            reached[name].append((guess == group).mean())
    assert min(reached["typical"]) > 0.99
    assert np.mean(reached["typical"]) > np.mean(reached["random"])


def test_the_file_is_filled_in_and_given_back(finished_run: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "to-label.csv", tmp_path / "s.png"
    result = selfsup.suggest(finished_run, "digits", n=5, out=out, sheet=sheet, quiet=True)
    rows = read(out)
    assert rows[0] == ["path", "label"]
    assert [row[0] for row in rows[1:]] == [sample.path for sample in result.samples]
    assert all(row[1] == "" for row in rows[1:])
    assert Image.open(sheet).height > 100
    assert str(out) in str(result)
    out.write_text("path,label\n" + "".join(f"{path},{i % 2}\n" for i, (path, _) in enumerate(rows[1:])))
    with pytest.raises(UserError, match=r"holds labels that would be lost: give it as --labels"):
        selfsup.suggest(finished_run, "digits", n=5, out=out, quiet=True)
    again = selfsup.suggest(finished_run, "digits", n=3, labels=str(out), out=out, strategy="uncertain", quiet=True)
    assert (again.strategy, again.known) == ("uncertain", 5)
    filled = read(out)[1:]
    assert [label for _, label in filled] == ["", "", "", "0", "1", "0", "1", "0"] or sorted(
        label for _, label in filled
    ) == ["", "", "", "0", "0", "0", "1", "1"]
    assert not {path for path, _ in filled[:3]} & {path for path, _ in rows[1:]}


def test_folders_texts_and_json(finished_run: Path, images: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "x.csv"
    words = ["suggest", str(finished_run), str(images), "-n", "50", "-o", str(out), "--quiet"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["samples"]) == 8
    assert "not 50" in told["notes"][0]
    assert main([*words, "--labels", "folders"]) == 2
    assert "none is left to suggest" in capsys.readouterr().err


def test_bad_input_is_one_line(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange, several, numbers = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv"
    strange.write_text("path,label\nnowhere.png,cat\n")
    several.write_text("path,label\n1,cat|dog\n")
    numbers.write_text("path,label\n1,0.5\n2,1.25\n")
    cases = [
        (["-n", "0"], "--n must be a whole number"),
        (["--strategy", "typica"], "did you mean 'typical'?"),
        (["--sheet", "a.txt"], "--sheet must end in"),
        (["--labels", "nowhere.csv"], "no label file"),
        (["--labels", str(strange)], "labels 1 paths that digits does not have"),
        (["--labels", str(several)], "gives a sample several labels ('cat|dog')"),
        (["--labels", str(numbers)], "holds numbers (0.5 to 1.25), not classes"),
        (["-o", str(tmp_path)], "is a folder"),
    ]
    for words, told in cases:
        assert main(["suggest", str(finished_run), "digits", "--quiet", *words]) == 2, words
        error = capsys.readouterr().err
        assert told in error
        assert told in error.splitlines()[-1], "the last line; what was said of the labels stands before it"
