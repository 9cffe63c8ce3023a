"""Indexes of embeddings: exact and approximate, made by several processes, killed, damaged, changed."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import selfsup
from selfsup.base.writing import whole_file
from selfsup.cli import main
from selfsup.data.vectors import VectorFile, Vectors
from selfsup.errors import RunFailed, UserError
from selfsup.neighbours import build as building
from selfsup.neighbours import ivf
from selfsup.neighbours.index import Index

FAISS = "pip install 'selfsup[faiss]'"


def write(path: Path, x: np.ndarray, first: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    table = {
        "path": pa.array([f"p/{first + i}.png" for i in range(len(x))], pa.string()),
        "label": pa.array(["a"] * len(x), pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1]),
    }
    pq.write_table(pa.table(table), path, row_group_size=700)
    return path


def parts(folder: Path, x: np.ndarray, sizes: list[int]) -> Path:
    for number, end in enumerate(np.cumsum(sizes).tolist()):
        start = end - sizes[number]
        write(folder / f"part-{number}.parquet", x[start:end], start)
    return folder


def clustered(n: int, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(40, dim))[rng.integers(40, size=n)] + 0.4 * rng.normal(size=(n, dim))).astype(np.float32)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = clustered(3000)
    x[17], x[2900] = 0, x[5]
    return parts(tmp_path_factory.mktemp("neighbours") / "e", x, [1000, 1300, 700])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts(tmp_path_factory.mktemp("neighbours") / "many", clustered(4500), [2000, 1500, 1000])


@pytest.fixture(scope="module")
def approximate(many: Path) -> Path:
    pytest.importorskip("faiss", reason=FAISS)
    with pytest.MonkeyPatch.context() as patch:
        few_are_many(patch)
        return selfsup.index(many, out=many.parent / "index", approximate=True, quiet=True).path


def few_are_many(patch: pytest.MonkeyPatch) -> None:
    """Put few vectors into many lists, of which few are read."""
    patch.setattr(building, "FEWEST", 1000)
    patch.setattr(ivf, "PER_LIST", 50)


def test_parts_are_one_set_of_rows(embeddings: Path, tmp_path: Path) -> None:
    whole = VectorFile(write(tmp_path / "whole.parquet", np.concatenate([x for _, x in Vectors(embeddings).vectors()])))
    vectors = Vectors(embeddings)
    assert (len(vectors), vectors.dim, vectors.starts.tolist()) == (3000, 16, [0, 1000, 2300, 3000])
    rows = [3, 999, 1000, 2299, 2300, 2999]
    assert (vectors.take(rows) == whole.take(rows)).all()
    assert vectors.names(rows[::-1]) == whole.names(rows[::-1])
    assert [vectors.find(f"p/{row}.png") for row in rows] == rows
    assert vectors.find("p/3000.png") is None


def test_few_rows_are_read_from_their_groups_alone(embeddings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = VectorFile(embeddings / "part-1.parquet")
    asked = []

    class Watched:
        metadata = file.file.metadata
        iter_batches = staticmethod(lambda *a, **k: asked.append(k["row_groups"]) or original.iter_batches(*a, **k))

    original, file.file = file.file, Watched()
    file.take([5, 6])
    assert asked == [[0]]
    assert file.names([1299, 0])[0][0] == "p/2299.png"
    assert asked == [[0], [0], [1]]


def test_an_exact_index_finds_what_its_embeddings_do(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = selfsup.index(embeddings, out=tmp_path / "index", quiet=True)
    assert (made.rows, made.approximate, made.finished, made.zeros, made.bytes_on_disk) == (3000, False, True, 1, 64.0)
    assert "1 vectors are zero" in str(made)
    for query in (5, 2500, "p/1200.png"):
        found, expected = selfsup.search(made.path, query, k=7), selfsup.search(embeddings, query, k=7)
        assert [(i.row, i.path) for i in found.neighbours] == [(i.row, i.path) for i in expected.neighbours]
    assert selfsup.search(made.path, 5, k=1).neighbours[0].row == 2900, "a copy is the nearest"
    assert main(["search", str(made.path), "17"]) == 2
    assert "zero or not finite" in capsys.readouterr().err
    ran: list[list[str]] = []
    monkeypatch.setattr("selfsup.commands.explore.find_spec", lambda name: object())
    monkeypatch.setattr(
        "subprocess.run", lambda command, check: ran.append(command) or type("Done", (), {"returncode": 0})
    )
    assert selfsup.explore(made.path) is None
    assert ran[0][3:6] == [str(embeddings / f"part-{i}.parquet") for i in range(3)], "the map is of the embeddings"
    assert selfsup.index(embeddings, out=tmp_path / "index", quiet=True) == made, "and is not made again"
    assert sorted(path.name for path in made.path.iterdir()) == [".turn", "index.json", "plan.json", "vectors.npy"]


def test_an_approximate_index_finds_nearly_the_same(many: Path, approximate: Path) -> None:
    index, x = Index(approximate), np.concatenate([x for _, x in Vectors(many).vectors()])
    assert index.about["recall_at_10"] >= 0.95
    assert index.about["held_out"] == building.HELD_OUT
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    queries = np.arange(0, 4500, 30)
    exact = np.argsort(-(unit[queries] @ unit.T), axis=1)[:, :10]
    rows, cosines = index.search(x[queries], 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]) > 0.93
    assert (rows[:, 0] == queries).all()
    assert cosines[:, 0] == pytest.approx(1, abs=1e-3)
    assert (np.diff(cosines, axis=1) <= 0).all()
    found = selfsup.search(approximate, int(queries[3]), k=5)
    assert found.neighbours[0].row == exact[3][1]
    assert len(selfsup.search(approximate, 0, k=20_000).neighbours) == 4499, "for many, more lists are read"
    assert index.search(x[:3], 5, probe=1)[0].shape == (3, 5)


def test_the_same_command_makes_the_same_bytes(
    many: Path, approximate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_are_many(monkeypatch)
    again = selfsup.index(many, out=tmp_path / "again", approximate=True, quiet=True).path
    names = sorted(path.name for path in approximate.iterdir() if path.suffix in (".npy", ".safetensors"))
    assert len(names) == 5
    for name in names:
        assert (again / name).read_bytes() == (approximate / name).read_bytes(), name


def _index(embeddings: Path, out: Path, slow: float) -> None:
    original = building.unit_rows
    building.unit_rows = lambda x: time.sleep(slow) or original(x)
    selfsup.index(embeddings, out=out, quiet=True)


def test_a_killed_build_goes_on_and_several_share_it(embeddings: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "index", selfsup.index(embeddings, out=tmp_path / "whole", quiet=True).path
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=_index, args=(embeddings, out, 0.5))
    killed.start()
    while not (out / "part-00000.json").exists():
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    begun = (out / "part-00000.bin").stat().st_mtime_ns
    with whole_file(out / "part-00001.bin"):  # another process writes it
        made = selfsup.index(embeddings, out=out, quiet=True)
        assert not made.finished
        assert "other processes are adding the rest" in str(made)
        assert (out / "part-00000.bin").stat().st_mtime_ns == begun, "what is done is not done again"
        with pytest.raises(UserError, match="not finished"):
            selfsup.search(out, 0)
        assert (out / "part-00002.json").exists()
    assert selfsup.index(embeddings, out=out, quiet=True).finished
    assert (out / "vectors.npy").read_bytes() == (whole / "vectors.npy").read_bytes()


def test_what_is_damaged_is_made_again_or_refused(embeddings: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            selfsup.index(embeddings, out=out, quiet=True)
    part = out / "part-00001.bin"
    part.write_bytes(part.read_bytes()[:-8] + b"12345678")
    with pytest.raises(RunFailed, match=r"part-00001\.bin is damaged"):
        selfsup.index(embeddings, out=out, quiet=True)
    assert selfsup.index(embeddings, out=out, quiet=True).finished
    store = out / "vectors.npy"
    store.write_bytes(store.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"vectors\.npy is damaged"):
        selfsup.search(out, 0)
    store.unlink()
    with pytest.raises(UserError, match=r"vectors\.npy is missing"):
        selfsup.search(out, 0)


def test_a_forged_index_is_refused(approximate: Path, tmp_path: Path) -> None:
    """Digests in the folder stop no stranger, who writes them too: row numbers and shapes are checked as well."""
    forged = tmp_path / "forged"
    forged.mkdir()
    for path in approximate.iterdir():
        os.link(path, forged / path.name)
    about = json.loads((approximate / "index.json").read_bytes())

    def put(name: str, array: np.ndarray, allow_pickle: bool = False) -> None:
        (forged / name).unlink()
        np.save(forged / name, array, allow_pickle=allow_pickle)
        about["files"][name] = (forged / name).stat().st_size, building.file_digest(forged / name)
        (forged / "index.json").unlink(missing_ok=True)
        (forged / "index.json").write_text(json.dumps(about))

    rows = np.load(approximate / "rows.npy")
    put("rows.npy", np.where(rows == 7, 10**9, rows))
    with pytest.raises(UserError, match="do not hold every row"):
        Index(forged)
    put("rows.npy", np.array([{"a": 1}] * len(rows), object), allow_pickle=True)
    with pytest.raises(UserError, match=r"rows\.npy is not a readable \.npy file"):
        Index(forged)
    put("rows.npy", rows)
    put("codes.npy", np.load(approximate / "codes.npy")[:, :-1])
    with pytest.raises(UserError, match="do not hold every row"):
        Index(forged)
    (forged / "index.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        Index(forged)


def test_changed_embeddings_are_refused(embeddings: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "index"
    own.mkdir()
    for path in embeddings.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    selfsup.index(own, out=out, quiet=True)
    part = own / "part-1.parquet"
    os.utime(part)
    assert selfsup.search(out, 3, k=1).neighbours, "the same bytes, copied: their digest is looked at"
    data = bytearray(part.read_bytes())
    data[200] ^= 1
    part.write_bytes(data)
    with pytest.raises(UserError, match=r"part-1.parquet has changed since"):
        selfsup.search(out, 3)
    with pytest.raises(UserError, match="has changed since"):
        selfsup.index(own, out=out, quiet=True)
    gone = part.rename(tmp_path / "gone.parquet")
    with pytest.raises(UserError, match=r"part-1.parquet is missing"):
        selfsup.search(out, 3)
    part.write_bytes((embeddings / "part-1.parquet").read_bytes())
    gone.unlink()
    write(own / "part-9.parquet", clustered(10))
    with pytest.raises(UserError, match=r"part-9.parquet is not in"):
        selfsup.search(out, 3)
    with pytest.raises(UserError, match="made or begun from other embeddings"):
        selfsup.index(own, out=out, quiet=True)
    own.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="move them back"):
        selfsup.search(out, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", "the vector of row 40 holds NaN"),
        ("mixed", "b.parquet holds vectors of 8 numbers"),
        ("empty", "holds no rows"),
        ("none", "holds no .parquet files"),
        ("few", "leave --approximate out"),
        ("file", "is not a folder"),
    ],
)
def test_bad_embeddings_are_told_in_one_line(
    tmp_path: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, x = tmp_path / "e", tmp_path / "index", clustered(90)
    folder.mkdir()
    if name != "none":
        write(folder / "a.parquet", x)
    if name == "nan":
        x[40, 3] = np.nan
        write(folder / "a.parquet", x)
    elif name == "mixed":
        write(folder / "b.parquet", x[:, :8].copy())
    elif name == "empty":
        write(folder / "b.parquet", x[:0])
    elif name == "file":
        out.write_text("")
    options = ["--approximate"] if name == "few" else []
    assert main(["index", str(folder), "-o", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
