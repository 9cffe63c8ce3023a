"""Search and explore: the nearest rows of an embedding file, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.vectors import VectorFile
from selfsup.errors import UserError
from selfsup.neighbours.index import nearest

X = np.random.default_rng(0).normal(size=(9000, 16)).astype(np.float32)  # more than two batches


def write(path: Path, x: np.ndarray, kind: pa.DataType | None = None, **about: str) -> Path:
    kind = kind or pa.list_(pa.float32(), x.shape[1])
    columns = {"path": [f"p/{i}.png" for i in range(len(x))], "label": ["a", None, "c"] * (len(x) // 3)}
    columns["label"] += ["a"] * (len(x) - len(columns["label"]))
    texts = {key: pa.array(values, pa.string()) for key, values in columns.items()}
    table = pa.table({**texts, "vector": pa.array(x.tolist(), kind)})
    pq.write_table(table.replace_schema_metadata(about), path, row_group_size=500)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vectors") / "e.parquet", X)


@pytest.fixture
def embedded(finished_run: Path, images: Path, tmp_path: Path) -> Path:
    return selfsup.embed(finished_run, images, out=tmp_path / "e.parquet", labels="folders", quiet=True).path


def test_the_nearest_rows_are_those_of_one_large_product(file: Path) -> None:
    unit = X.astype(np.float64) / np.linalg.norm(X, axis=1, keepdims=True)
    cosine = unit @ unit[5000]
    cosine[5000] = -2
    expected = np.argsort(-cosine)[:20]
    found = selfsup.search(file, 5000, k=20)
    assert [item.row for item in found.neighbours] == expected.tolist()
    assert [item.similarity for item in found.neighbours] == pytest.approx(cosine[expected], abs=1e-5)
    assert found.neighbours[0].path == f"p/{expected[0]}.png"
    assert found.neighbours[0].label == ["a", None, "c"][expected[0] % 3]
    assert selfsup.search(file, "p/5000.png", k=20).neighbours == found.neighbours
    assert len(selfsup.search(file, "0", k=10**6).neighbours) == len(X) - 1


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 16)])
def test_other_kinds_of_lists_do(tmp_path: Path, kind: pa.DataType) -> None:
    x = X[:60].astype(np.float16)
    found = selfsup.search(write(tmp_path / "e.parquet", x, kind), 3, k=5)
    assert [i.row for i in found.neighbours] == np.argsort(
        -(x[3].astype(float) @ (x / np.linalg.norm(x.astype(float), axis=1)[:, None]).T)
    )[1:6].tolist()


def test_a_image_is_found_and_drawn(embedded: Path, images: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    found = selfsup.search(embedded, images / "dog" / "2.png", k=3, out=sheet)
    assert (found.neighbours[0].path, found.neighbours[0].label) == ("dog/2.png", "dog")
    assert found.neighbours[0].similarity == pytest.approx(1, abs=1e-4)
    assert found.missing == 0
    assert Image.open(sheet).width > 4 * 128
    row = selfsup.search(embedded, "dog/2.png", k=8)
    assert "dog/2.png" not in [item.path for item in row.neighbours], "a row is not its own neighbour"
    assert len(row.neighbours) == 7


def test_the_command_line_prints_a_table(embedded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(embedded), "cat/0.png", "-k", "2"]) == 0
    assert "similarity" in capsys.readouterr().out
    assert main(["search", str(embedded), "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["neighbours"][0]["row"] != 0


def test_images_that_are_gone_are_said_to_be(embedded: Path, images: Path, tmp_path: Path) -> None:
    moved = images.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="give --data"):
        selfsup.search(embedded, 0, out=tmp_path / "s.png")
    (moved / "cat" / "1.png").unlink()
    assert selfsup.search(embedded, 0, data=str(moved), out=tmp_path / "s.png").missing == 1


def bad(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "bad.parquet"
    x = X[:5000].copy()
    if name == "nan":
        x[4567, 3] = np.nan
    if name == "text":
        path.write_text("no parquet")
    elif name == "foreign":
        pq.write_table(pa.table({"a": [1, 2]}), path)
    elif name == "empty":
        write(path, X[:0])
    elif name == "ragged":
        table = pa.table({"path": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]})
        pq.write_table(table, path)
    elif name == "cut":
        path.write_bytes(write(tmp_path / "whole.parquet", x).read_bytes()[:-200])
    elif name != "missing":
        write(path, x)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "no such file"),
        ("text", "is not a Parquet file"),
        ("foreign", "it needs the columns path"),
        ("empty", "holds no rows"),
        ("ragged", "not all of one length"),
        ("cut", "is not a Parquet file"),
        ("nan", "the vector of row 4567 holds NaN"),
    ],
)
@pytest.mark.parametrize("command", ["search", "explore"])
def test_bad_files_are_told_in_one_line(
    tmp_path: Path, name: str, words: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    query = ["0"] if command == "search" else ["-o", str(tmp_path / "x.html")]
    assert main([command, str(bad(tmp_path, name)), *query]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_bad_queries_are_told_in_one_line(file: Path, embedded: Path, images: Path, finished_run: Path) -> None:
    image, broken = images / "cat" / "0.png", images / "broken.png"
    broken.write_bytes(image.read_bytes()[:60])
    cases = [
        (file, "9000", {}, "has the rows 0 to 8999, not row 9000"),
        (file, "nowhere.png", {}, "is neither a row number nor a path"),
        (file, image, {}, "give --run"),
        (file, image, {"run": finished_run}, "gives vectors of 128 numbers, .* of 16"),
        (file, image, {"run": "nowhere"}, "is not a run folder"),
        (embedded, broken, {}, "cannot read the image"),
        (embedded, "0", {"k": 0}, "--k must be"),
        (embedded, "0", {"out": "sheet.gif"}, "must end in"),
        (embedded, "0", {"out": "nowhere/sheet.png"}, "no such folder"),
    ]
    for path, query, options, words in cases:
        with pytest.raises(UserError, match=words):
            selfsup.search(path, query, **options)


def test_a_query_of_another_run_is_refused(embedded: Path, images: Path, tmp_path: Path) -> None:
    made_by = selfsup.Run(VectorFile(embedded).about["run"])
    given = {"task": "diet", "encoder": made_by.encoder_name, "steps": 1, "batch_size": 4, "quiet": True, "seed": 7}
    other = selfsup.pretrain(images, out=tmp_path / "run", **given)
    assert other.load().dim == made_by.load().dim
    selfsup.search(embedded, images / "cat" / "1.png", run=made_by)
    with pytest.raises(
        UserError, match=r"holds vectors of another encoder than that of .*run, which cannot be compared"
    ):
        selfsup.search(embedded, images / "cat" / "1.png", run=other)


def test_a_query_without_direction_has_no_neighbours(tmp_path: Path) -> None:
    x = X[:30].copy()
    x[7] = 0
    path = write(tmp_path / "e.parquet", x)
    with pytest.raises(UserError, match="zero or not finite"):
        selfsup.search(path, 7)
    assert nearest(VectorFile(path), x[1], 30)[1].min() <= 0, "a row of zeros is like nothing, and no NaN"


def test_explore_writes_a_page(embedded: Path, tmp_path: Path, images: Path) -> None:
    page = selfsup.explore(embedded, out=tmp_path / "x.html")
    assert (page.shown, page.rows) == (8, 8)
    text = page.path.read_text()
    assert text.count("<circle") == 8
    assert "cat/0.png" in text
    assert "data:image/jpeg" in text
    shutil.rmtree(images)
    page = selfsup.explore(embedded, out=tmp_path / "y.html")
    assert "samples were not found" in page.note
    assert "data:image" not in page.path.read_text()


def test_explore_takes_random_rows_of_many(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.reports.items.MOST", 50)
    page = selfsup.explore(file, out=tmp_path / "x.html")
    assert (page.shown, page.rows) == (50, 9000)
    assert page.path.read_text().count("<circle") == 50


def test_explore_serves_every_row_where_the_extra_is_installed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr("selfsup.commands.explore.find_spec", lambda name: object())
    monkeypatch.setattr(
        "subprocess.run", lambda command, check: ran.append(command) or type("Done", (), {"returncode": 0})
    )
    assert selfsup.explore(file) is None
    assert ran[0][1:] == ["-m", "embedding_atlas.cli", str(file.absolute()), "--vector", "vector"]
