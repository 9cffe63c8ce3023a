"""Labels for all from a few: accuracy, calibration, unsure samples, label errors, and what is refused."""

import csv
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import selfsup
from selfsup.cli import main
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.labelling.assign import UNSURE_BELOW, Calibration, _fit, check_classes
from selfsup.source import Labels
from test_evaluation_propagate import clusters
from test_suggest import blobs, pool_of


def few_labels(path: Path, count: int, seed: int = 0, wrong: int = 0) -> list[int]:
    """Write `count` random labels of digits, of which `wrong` are false; return the numbers of the false ones."""
    labels = open_data("digits").labels
    assert labels is not None
    chosen = np.random.default_rng(seed).permutation(len(labels.ids))[:count].tolist()
    names = [labels.classes[(labels.ids[number] + (place < wrong)) % 10] for place, number in enumerate(chosen)]
    path.write_text("path,label\n" + "".join(f"{n},{name}\n" for n, name in zip(chosen, names, strict=True)))
    return chosen[:wrong]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_groups_get_their_label_and_an_island_without_one_none() -> None:
    x, group = blobs((60, 50, 40))
    pool = pool_of(x)
    known = {int(np.flatnonzero(group == g)[i]): g for g in (0, 1) for i in range(3)}
    found = pool.assign(known, 2)
    for g in (0, 1):
        assert (found.ids[group == g] == g).mean() > 0.95
    assert (found.ids[group == 2] == -1).all(), "nobody labelled this group"
    assert (found.guess[group == 2] == -1).all(), "and nothing is guessed"
    assert (found.confidence[group == 2] == 0).all()
    assert found.calibration.tested == 6


def test_a_given_label_stands_and_one_that_others_contradict_is_told() -> None:
    x, group = blobs((60, 50, 40))
    pool = pool_of(x)
    known = {int(row): int(group[row]) for g in range(3) for row in np.flatnonzero(group == g)[:8]}
    false = int(np.flatnonzero(group == 0)[0])
    known[false] = 1
    found = pool.assign(known, 3)
    assert found.ids[false] == 1
    assert [(doubt.row, doubt.given, doubt.instead) for doubt in found.doubts] == [(false, 1, 0)]


def test_labels_of_one_class_and_of_unreadable_samples_are_refused() -> None:
    pool = pool_of(blobs()[0])
    with pytest.raises(UserError, match="all labels are of one class"):
        pool.assign({0: 0, 1: 0}, 1)
    pool.row_of[0] = -1
    with pytest.raises(UserError, match="none of the labelled samples"):
        pool.assign({0: 0}, 1)


def test_a_class_that_nobody_labelled_gets_no_sample() -> None:
    x, group = blobs((60, 50, 40))
    known = {int(row): 2 * g for g in (0, 1) for row in np.flatnonzero(group == g)[:3]}
    found = pool_of(x).assign(known, 4)
    assert set(found.ids.tolist()) == {-1, 0, 2}
    assert not found.probabilities[:, [1, 3]].any()
    assert found.calibration.tested == 6


def test_samples_that_are_all_alike_are_unsure_whatever_the_limit() -> None:
    found = pool_of(np.ones((20, 4), np.float32)).assign({0: 0, 1: 1, 2: 0, 3: 1}, 2, unsure_below=0)
    assert found.ids.tolist() == [0, 1, 0, 1] + [-1] * 16
    assert found.confidence.tolist() == [1] * 4 + [0] * 16


def test_one_label_a_class_is_enough_but_cannot_be_checked() -> None:
    x, group = blobs((60, 50, 40))
    pool = pool_of(x)
    found = pool.assign({int(np.flatnonzero(group == g)[0]): g for g in range(3)}, 3)
    assert (found.guess == group).mean() > 0.95
    assert found.calibration.tested == 0
    assert not found.doubts


def test_a_label_astray_among_samples_of_another_class_is_told() -> None:
    x, group = clusters([60] * 5)
    pool = pool_of(x)
    known = {int(np.flatnonzero(group == g)[0]): g for g in range(5)}
    assert pool.assign(known, 5).stray == ()
    astray = {row: g for row, g in known.items() if g != 4} | {int(np.flatnonzero(group == 3)[1]): 4}
    found = pool.assign(astray, 5).stray
    assert found in ((3,), (4,), (3, 4)), "two labels in one group"
    assert pool.assign(astray | {int(row): 4 for row in np.flatnonzero(group == 4)[:2]}, 5).stray == ()
    mixed = {int(row): g for g, row in enumerate(np.flatnonzero(group == 3)[:5])}
    assert pool.assign(mixed, 5).stray in ((), *((g,) for g in range(5)), *itertools.combinations(range(5), 2))


def test_the_confidence_follows_what_was_held_out() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 0.9, 4000).astype(np.float32)
    right = rng.random(4000) < 1 / (1 + np.exp(-(2 * np.log(p / (1 - p)) + 1)))
    slope, shift = _fit(p, right, 5)
    assert (slope, shift) == pytest.approx((2, 1), abs=0.2)
    confidence = Calibration(slope, shift)(p)
    for low in np.arange(0.1, 0.9, 0.2):
        inside = (confidence >= low) & (confidence < low + 0.2)
        assert right[inside].mean() == pytest.approx(confidence[inside].mean(), abs=0.06)
    few = Calibration(*_fit(np.full(3, 0.9, np.float32), np.ones(3, bool), 5))
    none = Calibration(*_fit(np.empty(0, np.float32), np.empty(0, bool), 5))
    assert none(np.array([0.2]))[0] == pytest.approx(0.2, abs=0.03), "a guess among five is right by chance"
    assert few(np.array([0.9]))[0] > none(np.array([0.9]))[0]
    assert none(np.zeros(1))[0] == 0


def test_numbers_and_several_labels_are_refused_and_digits_are_not() -> None:
    for names in (["1.5", "2"], ["nan", "1"], [str(1000 + 37 * i) for i in range(30)]):
        with pytest.raises(UserError, match="holds numbers"):
            check_classes(Labels.of(names), "few.csv")
    with pytest.raises(UserError, match="several labels"):
        check_classes(Labels.of(["a", "a|b"]), "few.csv")
    check_classes(Labels.of([str(i) for i in range(100)]), "few.csv")
    check_classes(Labels.of(["1", "2", "10", "cat"]), "few.csv")


def test_every_sample_has_a_row(one_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, out = tmp_path / "few.csv", tmp_path / "all.csv"
    false = few_labels(few, 200, wrong=10)
    result = selfsup.label(one_run, "digits", labels=str(few), out=out, quiet=True)
    assert result is not None
    rows, truth = read(out), open_data("digits").labels
    assert truth is not None
    assert [row["path"] for row in rows] == [str(i) for i in range(len(truth.ids))]
    names = np.array([truth.classes[i] for i in truth.ids])
    sure = np.array([row["status"] == "propagated" for row in rows])
    assert sure.mean() > 0.5
    assert (
        np.mean([row["label"] == name for row, name in zip(rows, names, strict=True) if row["status"] == "propagated"])
        > 0.9
    )
    for row, label, confidence in zip(rows, result.labels, result.confidence, strict=True):
        assert row["label"] == (label or "")
        assert float(row["confidence"]) == pytest.approx(confidence, abs=1e-4)
        assert (row["label"] == "") == (row["status"] == "unsure")
        assert row["status"] != "propagated" or confidence >= UNSURE_BELOW
    doubted = {doubt.number for doubt in result.doubtful}
    assert len(doubted & set(false)) >= 6
    assert {int(row["path"]) for row in rows if row["status"] == "doubtful"} == doubted
    text = str(result)
    assert "A confidence below 0.7 is unsure" in text
    assert "cross-validation" in text
    assert f"{result.status['unsure']:,} unsure" in text
    assert len(result.next) == 15
    assert selfsup.Run(one_run).done
    words = ["label", str(one_run), "digits", "--labels", str(few), "-o", str(out), "--quiet", "--json"]
    assert main([*words, "--unsure-below", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"].get("unsure", 0) == 0
    assert sum(told["classes"].values()) == len(truth.ids)


def test_the_result_can_be_given_as_labels(one_run: Path, tmp_path: Path) -> None:
    few, out = tmp_path / "few.csv", tmp_path / "all.csv"
    few_labels(few, 100)
    selfsup.label(one_run, "digits", labels=str(few), out=out, quiet=True)
    labels = open_data("digits", str(out)).labels
    assert labels is not None
    assert (labels.ids >= 0).sum() == sum(row["label"] != "" for row in read(out))


def test_broken_files_and_odd_names(one_run: Path, images: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff,\"'\n<b>.png")
    (images / "cat" / "1.png").rename(images / "cat" / odd)
    (images / "cat" / "3.png").write_bytes(b"no image")
    few, out = tmp_path / "few.csv", tmp_path / "all.csv"
    few.write_text("path,label\ncat/0.png,cat\ndog/0.png,dog\ndog/1.png,dog\n")
    result = selfsup.label(one_run, images, labels=str(few), out=out, quiet=True)
    assert result is not None
    rows = {row["path"]: row for row in read(out)}
    assert rows["cat/3.png"]["status"] == "unreadable"
    assert rows["cat/3.png"]["label"] == ""
    assert f"cat/{odd}" in rows
    assert open_data(images, str(out)).labels is not None
    assert str(result)


def test_classes_only_on_unreadable_samples_are_told(
    one_run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "cat" / "3.png").write_bytes(b"no image")
    few, out = tmp_path / "few.csv", tmp_path / "all.csv"
    rows = "path,label\ncat/0.png,cat\ncat/3.png,bird\n"
    few.write_text(rows + "dog/0.png,dog\n")
    words = [str(one_run), str(images), "--labels", str(few), "-o", str(out), "--quiet", "--json"]
    assert main(["label", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "no other sample gets the label 'bird': the samples that have it cannot be read" in told["notes"]
    assert [row["path"] for row in read(out) if row["label"] == "bird"] == ["cat/3.png"]
    few.write_text(rows)
    assert main(["label", *words]) == 2
    assert "that can be read are all of one class" in capsys.readouterr().err
    assert main(["suggest", *words[:4], "-o", str(tmp_path / "s.csv"), "--quiet", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 6


def test_an_encoder_that_gives_nan_is_one_line(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished_run / "encoder.safetensors"
    with safe_open(weights, "np") as file:
        metadata = file.metadata()
    broken = {name: x * np.float32("nan") if x.dtype.kind == "f" else x for name, x in load_file(weights).items()}
    save_file(broken, weights, metadata)
    few = tmp_path / "few.csv"
    few_labels(few, 20)
    given = [str(finished_run), "digits", "--quiet"]
    for words in (
        ["label", *given, "--labels", str(few), "-o", str(tmp_path / "all.csv")],
        ["suggest", *given, "-o", str(tmp_path / "to-label.csv")],
        ["evaluate", str(finished_run), "--data", "digits", "--protocol", "propagate", "--no-scratch", "--quiet"],
    ):
        assert main(words) in (1, 2)
        error = capsys.readouterr().err
        assert "NaN" in error.splitlines()[-1]
        assert "Traceback" not in error
    assert not (tmp_path / "all.csv").exists()


def test_bad_input_is_one_line(one_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "one": "0,cat\n1,cat\n", "two": "0,cat\n0,dog\n", "strange": "nowhere,cat\n0,dog\n", "numeric": "0,0.5\n1,2\n",
        "multi": "0,a|b\n1,a\n", "empty": "0,\n",
    }  # fmt: skip
    for name, rows in files.items():
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{rows}")
    cases = [
        (["one"], "all labels are of one class"),
        (["two"], "two different labels"),
        (["strange"], "labels 1 paths that digits does not have"),
        (["numeric"], "holds numbers"),
        (["multi"], "several labels"),
        (["empty"], "gives no label to any sample"),
        (["two", "--unsure-below", "2"], "--unsure-below must be from 0 to 1"),
        (["two", "--port", "99999"], "--port must be"),
        (["one", "-o", str(tmp_path / "one.csv")], "which would be lost"),
        (["one", "-o", str(tmp_path / "two.csv")], "holds labels that would be lost"),
    ]
    for (name, *words), told in cases:
        given = ["label", str(one_run), "digits", "--labels", str(tmp_path / f"{name}.csv"), "--quiet"]
        out = [] if "-o" in words else ["-o", str(tmp_path / "all.csv")]
        assert main([*given, *out, *words]) == 2, name
        error = capsys.readouterr().err
        assert told in error
        assert told in error.splitlines()[-1], "the last line; what was said of the labels stands before it"
