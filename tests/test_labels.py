"""Labels as people write them: one rule on every way in, and whatever is done to them is said."""

import json
import os
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.data.label_values import MISSING, read_labels
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.evaluation.targets import TARGETS
from selfsup.source import Labels, Source

X = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
SMALL = ["--encoder", "convnet", "--steps", "1", "--batch-size", "4", "--device", "cpu", "--precision", "float32"]


def names(source: Source) -> list[str | None]:
    assert source.labels is not None
    return [source.labels.classes[i] if i >= 0 else None for i in source.labels.ids]


def said(source: Any) -> str:
    return "\n".join(getattr(source, "notes", ()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a/0.png, a/1.png, a/2.png and Ä/10.png, Ä/11.png, Ä/12.png, with a decomposed Ä as macOS stores it."""
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(PATHS):
        Path("p", path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[number]).save(Path("p", path))
    return Path("p")


NFD = unicodedata.normalize("NFD", "Ä")
PATHS = [f"{NFD}/{i}.png" for i in (10, 11, 12)] + [f"a/{i}.png" for i in range(3)]
LABELS = ["001", "1", "b c", "001", "é", "b c"]
PLAIN = "path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(PATHS, LABELS, strict=True))


# One rule on every way in

VALUES = ["001", "1", " cat ", "NA", "-1", "cat"]
WANTED = ["001", "1", "cat", None, None, "cat"]


def texts(path: Path, column: Any) -> None:
    sentences = [f"number {i} of many sentences" for i in range(len(column))]
    pa.parquet.write_table(pa.table({"text": sentences, "label": column}), path)


def by_csv(folder: Path, values: list[str]) -> Source:
    rows = (f"{path},{value}\n" for path, value in zip(PATHS, values, strict=True))
    Path("l.csv").write_text("path,label\n" + "".join(rows))
    return open_data(folder, "l.csv")


def by_text_csv(folder: Path, values: list[str]) -> Source:
    Path("t.csv").write_text("text,label\n" + "".join(f"sentence {i},{v}\n" for i, v in enumerate(values)))
    return open_data("text:t.csv:text:label")


def by_jsonl(folder: Path, values: list[Any]) -> Source:
    Path("t.jsonl").write_text("".join(json.dumps({"text": "a sentence", "label": v}) + "\n" for v in values))
    return open_data("t.jsonl:text:label")


def by_parquet(folder: Path, values: list[Any]) -> Source:
    texts(Path("t.parquet"), values)
    return open_data("text:t.parquet:text:label")


def by_label_parquet(folder: Path, values: list[Any]) -> Source:
    pa.parquet.write_table(pa.table({"path": PATHS, "label": values}), "l.parquet")
    return open_data(folder, "l.parquet")


def by_npz(folder: Path, values: list[Any]) -> Source:
    np.savez("y.npz", x=X, y=np.array(values))
    return open_data("y.npz")


def by_label_npz(folder: Path, values: list[Any]) -> Source:
    np.savez("l.npz", y=np.array(values))
    return open_data(folder, "l.npz")


def by_npy(folder: Path, values: list[Any]) -> Source:
    np.save("l.npy", np.array(values))
    return open_data(folder, "l.npy")


def by_list(folder: Path, values: list[Any]) -> Source:
    return open_data(X, values)


def by_array(folder: Path, values: list[Any]) -> Source:
    return open_data(X, np.array(values))


def by_mapping(folder: Path, values: list[Any]) -> Source:
    return open_data(folder, dict(zip(PATHS, values, strict=True)))


def by_series(folder: Path, values: list[Any]) -> Source:
    return open_data(X, pytest.importorskip("pandas").Series(values))


WAYS = [by_csv, by_text_csv, by_jsonl, by_parquet, by_label_parquet, by_npz, by_label_npz, by_npy, by_list, by_array]
WAYS += [by_mapping, by_series]


@pytest.mark.parametrize("way", WAYS)
def test_text_labels_keep_what_is_written_on_every_way_in(way: Any, folder: Path) -> None:
    source = way(folder, VALUES)
    assert names(source) == WANTED
    assert "blanks around 1 labels" in said(source)
    assert "2 of 6 samples have no label" in said(source)
    assert "NA 1" in said(source)
    assert "-1 1" in said(source)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in (by_csv, by_text_csv)])
@pytest.mark.parametrize("values", [[7, 0, 10, -1, -1, 7], [7.0, 0.0, 10.0, -1.0, float("nan"), 7.0]])
def test_numbers_are_whole_numbers_and_minus_one_is_none(way: Any, values: list[Any], folder: Path) -> None:
    source = way(folder, values)
    assert names(source) == ["7", "0", "10", None, None, "7"]
    assert "2 of 6 samples have no label" in said(source)


@pytest.mark.parametrize("word", sorted(MISSING))
@pytest.mark.parametrize("way", [by_csv, by_text_csv, by_jsonl, by_parquet, by_npz, by_list])
def test_words_for_no_label(way: Any, word: str, folder: Path) -> None:
    assert names(way(folder, ["a", "b", word, "a", "b", word])) == ["a", "b", None] * 2


@pytest.mark.parametrize("name", ["-1", "NA", "None", "nan", "null"])
def test_folders_are_classes_whatever_they_are_called(name: str, tmp_path: Path) -> None:
    for one in (name, "other"):
        (tmp_path / one).mkdir()
        Image.fromarray(X[0]).save(tmp_path / one / "0.png")
    assert set(names(open_data(tmp_path, "folders"))) == {name, "other"}


@pytest.mark.parametrize("way", [by_jsonl, by_parquet, by_label_parquet, by_list, by_mapping])
def test_lists_are_several_labels_and_no_class(way: Any, folder: Path) -> None:
    source = way(folder, [["a", "b"], ["a"], [], ["b", "c"], ["c"], ["a"]])
    assert names(source)[:3] == ["a|b", "a", None]
    assert "--target multi" in said(source)
    labelled = source.labels.take(np.flatnonzero(source.labels.ids >= 0))
    assert TARGETS["multi"].truth(labelled).tolist()[0] == [1, 1, 0]
    with pytest.raises(UserError, match="--target multi"):
        TARGETS["classes"].truth(labelled)


def test_a_task_that_needs_labels_refuses_several() -> None:
    with pytest.raises(UserError, match="several labels"):
        selfsup.pretrain(X, labels=[["a", "b"], ["a"]] * 3, task="supervised", encoder="convnet", steps=1, batch_size=4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a|b"], "separates several labels"),
        ({"a": 1}, "not dict"),
        (float("inf"), "infinity"),
    ],
)
def test_what_is_no_label(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels([value, "b"])


@pytest.mark.parametrize("labels", [np.eye(6), [float("inf")] * 6, ["a"] * 5, 7, object()])
def test_python_labels_that_do_not_fit(labels: Any) -> None:
    with pytest.raises(UserError):
        open_data(X, labels)


def test_python_labels() -> None:
    torch, pd = pytest.importorskip("torch"), pytest.importorskip("pandas")
    y = [0, 1, -1, 1, 0, 1]
    wanted = ["0", "1", None, "1", "0", "1"]
    series = pd.Series(y, index=range(6, 0, -1))
    given = [y, tuple(y), np.array(y), np.array(y)[:, None], torch.tensor(y), series, iter(y)]
    for labels in given:
        assert names(open_data(X, labels)) == wanted
    assert names(open_data(X, pd.Series(["a", pd.NA, None, "b", "a", "b"]))) == ["a", None, None, "b", "a", "b"]
    assert names(open_data(X, pd.Series(["a", "b", "a"] * 2, dtype="category"))) == ["a", "b", "a"] * 2
    assert names(open_data(X, Labels.of(["a", "b"] * 3))) == ["a", "b"] * 3
    with pytest.raises(UserError, match="one of its columns"):
        open_data(X, pd.DataFrame({"path": PATHS}))


def test_a_series_indexed_by_path_goes_by_path(folder: Path) -> None:
    series = pytest.importorskip("pandas").Series(LABELS, index=PATHS)
    assert names(open_data(folder, series.iloc[::-1])) == LABELS


def test_classes_that_differ_only_in_case_are_named() -> None:
    assert "'Cat', 'cat'" in said(open_data(X, ["Cat", "cat", "dog"] * 2))


def test_scikit_learn_reads_y_by_the_same_rule() -> None:
    from selfsup.sklearn import InputError, _labels

    pd = pytest.importorskip("pandas")
    assert _labels(pd.Series([" a", pd.NA, "NA", "-1", "b"]), 5).ids.tolist() == [0, -1, -1, -1, 1]
    with pytest.raises(InputError, match="infinity"):
        _labels([np.inf, 1.0], 2)


@pytest.mark.parametrize("label", ["label", "topic"])
def test_labels_of_the_hub_are_names_and_minus_one_is_none(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(list):
        column_names = ("text", label)
        features = {label: SimpleNamespace(names=["no", "yes"])}  # noqa: RUF012

        def __getitem__(self, name: Any) -> Any:
            return [row[name] for row in self]

    rows = Rows({"text": "a few words", label: value} for value in (0, 1, -1, 1))
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name, split: rows))
    source = open_data("hf:some/thing" if label == "label" else "hf:some/thing::text:topic")
    assert names(source) == ["no", "yes", None, "yes"]
    assert "-1 1" in said(source)
    with pytest.raises(UserError, match="unknown column"):
        open_data("hf:some/thing::text:nothing")


# Parts of a data set are no classes


@pytest.mark.parametrize("parts", [("train", "val"), ("Train", "Test"), ("training", "validation", "test")])
def test_a_parent_of_train_and_val_is_asked_back(parts: tuple[str, ...], tmp_path: Path) -> None:
    for part in parts:
        (tmp_path / part / "cat").mkdir(parents=True)
        Image.fromarray(X[0]).save(tmp_path / part / "cat" / "0.png")
    with pytest.raises(UserError, match=f"{parts[0]} as data, and .*--test"):
        open_data(tmp_path, "folders")


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        (tmp_path / name).mkdir()
        Image.fromarray(X[0]).save(tmp_path / name / "0.png")
    assert names(open_data(tmp_path, "folders")) == ["bus", "train"]


# Tables of labels

NFC = unicodedata.normalize("NFC", PLAIN)
BODY = PLAIN.split("\n", 1)[1]
TABLES: dict[str, tuple[bytes, str]] = {
    "plain": (PLAIN.encode(), ""),
    "mark, CRLF": (("\ufeff" + PLAIN).replace("\n", "\r\n").encode(), ""),
    "CR": (PLAIN.replace("\n", "\r").encode(), ""),
    "semicolons": (PLAIN.replace(",", ";").encode(), "semicolons"),
    "tabs": (PLAIN.replace(",", "\t").encode(), "tabs"),
    "bars": (PLAIN.replace(",", "|").encode(), "bars"),
    "sep=": (("sep=;\r\n" + PLAIN.replace(",", ";")).encode(), "semicolons"),
    "UTF-16": (PLAIN.encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), "UTF-16"),
    "UTF-32": (PLAIN.encode("utf-32"), "UTF-32"),
    "cp1252": (NFC.encode("cp1252"), "Windows-1252"),
    "NFC": (NFC.encode(), "Unicode composition"),
    "capital header": (PLAIN.replace("path,label", "Path, Label").encode(), "'Path' was read as path"),
    "other header": (PLAIN.replace("path,label", "filename,class").encode(), "'class' as label"),
    "unknown header": (PLAIN.replace("path,label", "where,what").encode(), "'what' as label"),
    "no header": (BODY.encode(), "no header"),
    "labels first": (
        ("label,path\n" + "".join(f"{label},{path}\n" for path, label in zip(PATHS, LABELS, strict=True))).encode(), "",
    ),
    "folder in front": (("path,label\n" + BODY.replace("a/", "p/a/").replace(NFD, "p/" + NFD)).encode(), "p/"),
    "backslashes": (("path,label\n" + BODY.replace("/", "\\")).encode(), "written unlike"),
    "Windows": (("path,label\n" + "".join(f"C:\\x\\p\\{r}\n" for r in BODY.replace("/", "\\").splitlines())).encode(),
                "written unlike"),
    "upper case": (PLAIN.replace(".png", ".PNG").encode(), "upper and lower case"),
    "no suffix": (PLAIN.replace(".png", "").encode(), "written unlike"),
    "names alone": (("path,label\n" + BODY.replace("a/", "").replace(NFD + "/", "")).encode(), "written unlike"),
    "blank lines": (("\n\n" + PLAIN + "\n,\n").encode(), ""),
}  # fmt: skip
TABLES["index of pandas"] = (
    (",path,label\n" + "".join(f"{i},{row}\n" for i, row in enumerate(BODY.splitlines()))).encode(), "",
)  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_spreadsheets_and_tools_write_them(name: str, folder: Path) -> None:
    data, note = TABLES[name]
    Path("l.csv").write_bytes(data)
    source = open_data(folder, "l.csv")
    assert names(source) == LABELS
    assert note in said(source)
    assert bool(note) == bool(said(source))


def test_absolute_paths_in_both_directions(folder: Path) -> None:
    absolute = "path,label\n" + "".join(f"{Path.cwd()}/p/{row}\n" for row in BODY.splitlines())
    Path("l.csv").write_text(absolute)
    assert names(open_data(folder, "l.csv")) == LABELS
    Path("list.txt").write_text("".join(f"{Path.cwd()}/p/{path}\n" for path in PATHS))
    Path("l.csv").write_text(PLAIN)
    assert names(open_data("list.txt", "l.csv")) == LABELS


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("path,label\n0.png,a\n1.png,b\n", "'0.png' may mean 'a/0.png' or 'b/0.png'"),
        ("path,label\nc/0.png,a\n", "does not have, for example 'c/0.png'"),
        ("path,label\na/0.png,a\nx/a/1.png,b\ny/b/0.png,a\n", "does not have, for example 'y/b/0.png'"),
        ("path,label\na/0.png,a\nA/0.PNG,b\n", "two different labels"),
        ("id,size,kind of thing\na/0.png,3,x\n", "--columns path=COLUMN,label=COLUMN"),
        ("one,two,three\n1,2,3\n", "--columns"),
        ("one,two\n1,2,a/0.png\n", "--columns"),
        ("path,label,label\na/0.png,x,y\n", "2 columns called 'label'"),
        ("path,label\na/0.png,a,b\n", "Expected 2 columns, got 3"),
        ("path,label\n,a\n", "for example ''"),
        ("path,label\na/0.png,NA\n", "gives no label.*NA 1"),
    ],
)
def test_tables_that_are_refused(rows: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        Path("p", path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[0]).save(Path("p", path))
    Path("l.csv").write_text(rows)
    with pytest.raises(UserError, match=message):
        open_data("p", "l.csv")


@pytest.mark.parametrize("header", ["id,file,species\n", ""])
def test_columns_are_named_or_numbered(header: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{i},{row}\n" for i, row in enumerate(BODY.splitlines()))
    Path("l.csv").write_text(header + rows)
    columns = "path=file,label=species" if header else "path=2,label=3"
    source = open_data(folder, f"l.csv:{columns}")
    assert names(source) == LABELS
    words = ["pretrain", "p", "--task", "supervised", "--labels", "l.csv", "--quiet", *SMALL]
    assert main([*words, "--columns", columns, "--out", "run"]) == 0, capsys.readouterr().err
    noted = json.loads(Path("run/recipe.json").read_text())["data"]
    assert noted["fingerprint"] == source.fingerprint()
    assert names(open_data("p", noted["labels"])) == LABELS  # as `report` opens them again
    for wrong in ("path=nothing,label=species", "file", "path=a,label=b,more=c"):
        assert main([*words, "--columns", wrong, "--out", "other"]) == 2
    assert main(["embed", "run", "p", "--columns", columns]) == 2
    assert "give --labels FILE.csv" in capsys.readouterr().err


def test_what_was_done_is_printed_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("l.csv").write_text(PLAIN.replace("path,label", "file,class").replace("001", "NA", 1))
    words = ["pretrain", "p", "--task", "supervised", "--labels", "l.csv", "--out", "run", "--quiet", *SMALL]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert told.count("'class' as label") == 1
    assert told.count("1 of 6 samples have no label (NA 1)") == 1


def test_labels_of_arrays_go_into_the_evaluation() -> None:
    source = Arrays(X)
    assert open_data(source) is source
    labelled = open_data(source, [0, 1] * 3)
    assert source.labels is None
    assert names(labelled) == ["0", "1"] * 3


def test_bytes_of_file_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"\xe9.png")
    Path(os.fsdecode(name)).write_bytes(b"")
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "l.csv").write_bytes(b"path,label\n\xe9.png,caf\xe9\nx.png,long enough to be text\n")
    assert sorted(filter(None, names(open_data(tmp_path, str(tmp_path / "l.csv"))))) == [
        "café", "long enough to be text",
    ]  # fmt: skip


# What a label file is, is known by what it holds

CONTAINERS = {
    "parquet": (by_label_parquet, "l.parquet"), "npz": (by_label_npz, "l.npz"), "npy": (by_npy, "l.npy"),
    "table": (by_csv, "l.csv"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", ["LABELS.DATA", "labels"])
def test_a_label_file_may_be_called_anything(kind: str, name: str, folder: Path) -> None:
    way, path = CONTAINERS[kind]
    way(folder, LABELS)
    os.rename(path, name)
    assert names(open_data(folder, name)) == LABELS


@pytest.mark.parametrize("way", [by_label_npz, by_npy])
def test_labels_by_order_are_said_where_samples_have_paths(way: Any, folder: Path) -> None:
    assert "in the order of the samples, of which the first is" in said(way(folder, LABELS))
    np.save("l.npy", np.array(LABELS))
    assert "order" not in said(open_data(X, "l.npy"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"path": "a/0.png", "label": "x"}]', "is JSON; save"),
        (b'\xef\xbb\xbf{"a/0.png": "x"}', "is JSON"),
        (b"\x1f\x8b\x08\x00some", "is compressed"),
        (b"\xd0\xcf\x11\xe0old", "is a spreadsheet"),
        (b"\x80\x04\x95pickle", "is a pickle"),
        (b"path label\na/0.png x\n", "only one, 'path label'; cells are separated by"),
        (b"PK\x03\x04" + bytes(90), "is not a readable .npz file"),
        (b"PAR1" + bytes(90), "Parquet"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(content: bytes, message: str, folder: Path) -> None:
    Path("l.data").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_data(folder, "l.data")


def test_parquet_finds_its_columns_like_a_table(folder: Path) -> None:
    pa.parquet.write_table(pa.table({"species": LABELS, "n": range(6), "file": [f"p/{p}" for p in PATHS]}), "l.parquet")
    source = open_data(folder, "l.parquet")
    assert names(source) == LABELS
    assert "the column 'file' was read as path and 'species' as label" in said(source)
    assert names(open_data(folder, "l.parquet:label=n")) == [str(i) for i in range(6)]
    pa.parquet.write_table(pa.table({"what": [*PATHS, None], "label": [*LABELS, None]}), "l.parquet")
    assert names(open_data(folder, "l.parquet")) == LABELS
    pa.parquet.write_table(pa.table({"path": [*PATHS, None], "label": [*LABELS, "x"]}), "l.parquet")
    with pytest.raises(UserError, match="for example ''"):
        open_data(folder, "l.parquet")


def test_objects_in_an_array_of_labels_are_refused_with_the_remedy(folder: Path) -> None:
    np.savez("l.npz", y=np.array(["a", None] * 3, object))
    with pytest.raises(UserError, match=r"Python objects.*save an array"):
        open_data(folder, "l.npz")
    np.savez("l.npz", labels=np.arange(6))
    with pytest.raises(UserError, match="it holds 'labels'"):
        open_data(folder, "l.npz")
