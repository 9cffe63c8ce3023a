"""Curating a pool: near copies are removed, clusters give evenly, the list is data, and the same seed the same list."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.neighbours.balance import _drawn, divide, evenly
from selfsup.neighbours.copies import connect

SIZES = (1500, 300, 100, 40)  # of the clusters of the pool, each made of samples that differ
DIM = 12


def write(path: Path, x: np.ndarray, names: list[str], data: str | None = None) -> Path:
    vector = pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float32).reshape(-1)), x.shape[1])
    table = pa.table({"path": pa.array(names, pa.string()), "vector": vector})
    pq.write_table(table.replace_schema_metadata({"data": data} if data else {}), path, row_group_size=512)
    return path


def pool() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    cluster = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    return 3 * np.eye(DIM)[cluster] + 0.5 * rng.normal(size=(len(cluster), DIM)), cluster


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, cluster = pool()
    x[100:110] = x[99] * np.linspace(1, 2, 10)[:, None]  # copies of one
    x[700] = 0
    names = [f"{c}/{i}.png" for i, c in enumerate(cluster)]
    names[3] = "a\nb.png"
    return write(tmp_path_factory.mktemp("curate") / "e.parquet", x, names)


def test_clusters_give_evenly_and_copies_once(embeddings: Path, tmp_path: Path) -> None:
    made = selfsup.curate(embeddings, n=160, clusters=40, above=0.9999, out=tmp_path / "s.txt", quiet=True)
    lines = made.path.read_text().splitlines()
    assert (made.rows, made.copies, made.groups, made.zeros, made.chosen + made.lines) == (1940, 10, 1, 1, 160)
    counts = np.bincount([int(line.split("/")[0]) for line in lines], minlength=4)
    assert counts[0] < 0.8 * 160 * SIZES[0] / sum(SIZES), "the largest of them gives less than its part of the pool"
    assert counts[3] > 3 * 160 * SIZES[3] / sum(SIZES), "and the smallest more"
    assert made.after[1] < made.before[1]
    assert not {f"/{row}.png" for row in range(100, 110)} & {"/" + line.split("/")[1] for line in lines}
    assert "give it with --data" in str(made)
    again = selfsup.curate(embeddings, n=160, clusters=40, above=0.9999, out=tmp_path / "t.txt", quiet=True)
    assert again.path.read_bytes() == made.path.read_bytes()
    other = selfsup.curate(embeddings, n=160, clusters=40, above=0.9999, out=tmp_path / "u.txt", seed=1, quiet=True)
    assert other.path.read_bytes() != made.path.read_bytes()


def test_all_that_is_left_can_be_chosen(embeddings: Path, tmp_path: Path) -> None:
    made = selfsup.curate(embeddings, n=1929, above=0.9999, out=tmp_path / "s.txt", quiet=True)
    assert (made.chosen, made.lines) == (1928, 1), "one path has a line break"
    assert made.before == made.after
    assert len(set(made.path.read_text().splitlines())) == 1928
    assert "1 paths with a line break" in str(made)


def test_an_index_finds_the_same_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="pip install 'selfsup[faiss]'")
    rng = np.random.default_rng(0)
    monkeypatch.setattr("selfsup.neighbours.build.FEWEST", 1000)
    monkeypatch.setattr("selfsup.neighbours.ivf.PER_LIST", 100)
    x = rng.normal(size=(2500, DIM))
    x[2000:] = x[:500] + 0.002 * rng.normal(size=(500, DIM))
    file = write(tmp_path / "e.parquet", x, [f"{i}.png" for i in range(len(x))])
    index = selfsup.index(file, out=tmp_path / "index", approximate=True, quiet=True).path
    exact, found = (
        selfsup.curate(where, n=100, above=0.999, out=tmp_path / "s.txt", clusters=5, quiet=True)
        for where in (file, index)
    )
    assert exact.copies >= 500
    assert found.copies >= 0.98 * exact.copies


def test_the_list_is_data(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(30):
        Image.fromarray(np.full((8, 8, 3), 8 * i, np.uint8)).save(photos / f"{i}.png")
    x = np.random.default_rng(0).normal(size=(30, DIM))
    file = write(tmp_path / "e.parquet", x, [f"{i}.png" for i in range(30)], data=str(photos))
    made = selfsup.curate(file, n=20, out=tmp_path / "s.txt", quiet=True)
    assert len(selfsup.open_data(made.path)) == 20
    assert made.note == ""
    source = selfsup.open_data(made.path)
    shade = int(np.asarray(source.read(3)).max())
    assert source.path(3).endswith(f"{shade // 8}.png")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-n", "3000"], "-n 3,000 is more than the 1,9"),
        (["-n", "10", "--clusters", "2000"], "--clusters 2,000 is more than"),
        (["-n", "0"], "--n must be"),
        (["-n", "10", "--above", "2"], "--above must be"),
        (["-n", "10", "-o", "s.csv"], "must end in .txt or .lst"),
        (["-n", "10", "--data", "nowhere"], "no such folder"),
        (["-n", "10", "--data", "."], "none of the samples is in"),
    ],
)
def test_what_cannot_be_curated_is_told_in_one_line(
    embeddings: Path,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["curate", str(embeddings), "--above", "0.9999", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_many_vectors_need_an_index(
    embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("selfsup.neighbours.copies.COMPARED", 1000)
    assert main(["curate", str(embeddings), "-n", "10", "-o", str(tmp_path / "s.txt")]) == 2
    assert "--approximate -o index/" in capsys.readouterr().err


def test_a_collapsed_encoder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.ones((50, DIM)) + 1e-3 * np.random.default_rng(0).normal(size=(50, DIM))
    file = write(tmp_path / "e.parquet", x, [f"{i}.png" for i in range(50)])
    assert main(["curate", str(file), "-n", "1", "-o", str(tmp_path / "s.txt"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["copies"], told["chosen"], told["groups"]) == (49, 1, 1)
    assert (tmp_path / "s.txt").read_text() == "0.png\n", "the first stays"
    assert "More than half are near copies" in told["note"]


def test_pairs_connect_to_groups() -> None:
    pairs = np.array([[7, 9], [2, 9], [4, 5], [5, 4], [9, 11]])
    assert connect(pairs).tolist() == [[4, 5], [2, 7], [2, 9], [2, 11]]
    assert connect(np.empty((0, 2), np.int64)).shape == (0, 2)


def test_quotas_are_even_and_sum_up() -> None:
    assert evenly(np.array([1, 50, 3, 50]), 30).tolist() == [1, 13, 3, 13]
    assert evenly(np.array([1, 50, 3, 50]), 31).tolist() == [1, 14, 3, 13]
    assert evenly(np.array([2, 3]), 5).tolist() == [2, 3]
    assert evenly(np.array([0, 0]), 0).tolist() == [0, 0]
    sizes, group = np.array([100, 100, 100, 9, 0]), np.array([0, 0, 0, 1, 1])
    quotas = divide(sizes, group, 30)
    assert quotas.tolist() == [7, 7, 7, 9, 0], "the small group gives all it has"


def test_rows_are_drawn_to_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.neighbours.balance.BLOCK", 100)
    labels = np.array([0] * 500 + [1] * 20 + [-1] * 30 + [2] * 3, np.int32)
    rows = _drawn(labels, np.array([500, 20, 3]), np.array([50, 20, 0]), 0)
    assert np.bincount(labels[rows], minlength=3).tolist() == [50, 20, 0]
    assert (np.diff(rows) > 0).all()
    assert rows[:50].max() > 300
