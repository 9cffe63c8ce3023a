"""Embeddings in parts: written by workers that are killed, united to the bytes that one of them alone would write."""

import multiprocessing
import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.data.vectors import VectorFile
from selfsup.errors import UserError
from selfsup.evaluation import embedding
from selfsup.evaluation.embedding import Shard

RNG = np.random.default_rng(0)
HERE = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 1,200 images, of which five batches are made."""
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x=RNG.integers(0, 255, (1200, 8, 8), dtype=np.uint8), y=RNG.integers(0, 3, 1200))
    return path


@pytest.fixture(scope="module")
def whole(one_run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file that one worker writes."""
    path = tmp_path_factory.mktemp("whole") / "e.parquet"
    assert selfsup.embed(one_run, data, labels=str(data), out=path, quiet=True).rows == 1200
    return path.read_bytes()


def test_parts_are_whole_batches_and_have_every_row_once() -> None:
    for count in (1, 255, 256, 1200, 100_000):
        for parts in (1, 2, 5, 16):
            rows = [Shard(i, parts).rows(count) for i in range(parts)]
            assert [row for part in rows for row in part] == list(range(count))
            assert all(part.start % 256 == 0 for part in rows if part)
    for wrong in ("3", "3/3", "-1/2", "1/0", "a/b", "1/2/3", "0/1000000"):
        with pytest.raises(UserError, match="--shard is i/n"):
            Shard.read(wrong)


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_that_are_killed_write_the_same_bytes(
    workers: int, whole: bytes, one_run: Path, data: Path, tmp_path: Path
) -> None:
    """Two processes at a time; each part is killed once, after as many batches as chance has it."""
    words = ["embed", str(one_run), str(data), "--labels", str(data), "--quiet"]
    chance = np.random.default_rng(workers)

    def work(number: int, left: int | None) -> None:
        batches = embedding.feature_batches

        def killed(*arguments, **options):
            for done, batch in enumerate(batches(*arguments, **options)):
                if done == left:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

        if left is not None:
            embedding.feature_batches = killed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main([*words, "--shard", f"{number}/{workers}", "--out", str(tmp_path / "parts")]))

    todo: list[tuple[int, int | None]] = [(number, int(chance.integers(5 // workers))) for number in range(workers)]
    todo += [(number, None) for number in range(workers)]  # behind: a part that is there already is not begun
    todo += [(0, None), (0, None)]  # the same part by two at once
    for place in range(0, len(todo), 2):
        processes = [HERE.Process(target=work, args=one) for one in todo[place : place + 2]]
        for process in processes:
            process.start()
        for process, (_, left) in zip(processes, todo[place : place + 2], strict=True):
            process.join()
            assert process.exitcode == (0 if left is None else -signal.SIGKILL)
    assert len(list((tmp_path / "parts").iterdir())) == workers, "nothing is left behind"
    united = selfsup.embed(
        one_run, data, labels=str(data), unite=tmp_path / "parts", out=tmp_path / "e.parquet", quiet=True
    )
    assert united.rows == 1200
    assert (tmp_path / "e.parquet").read_bytes() == whole
    assert len(VectorFile(tmp_path / "e.parquet")) == 1200


def test_a_finished_part_is_left_and_another_runs_is_refused(
    one_run: Path, data: Path, tmp_path: Path, whole: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    parts = tmp_path / "parts"
    first = selfsup.embed(one_run, data, labels=str(data), shard="1/3", out=parts, quiet=True)
    assert first.path.name == "embeddings-00001-of-00003.parquet"
    assert first.rows == len(Shard(1, 3).rows(1200))
    before = first.path.stat().st_mtime_ns
    again = selfsup.embed(one_run, data, labels=str(data), shard="1/3", out=parts, quiet=True)
    assert (again.rows, again.there, again.path.stat().st_mtime_ns) == (first.rows, 1, before)
    assert "it was there" in str(again)
    assert "fingerprint" not in caplog.text
    (tmp_path / data.name).write_bytes(data.read_bytes())
    selfsup.embed(one_run, tmp_path / data.name, labels=str(data), shard="1/3", out=parts, quiet=True)
    assert f"holds parts of {data}, which has the fingerprint of {tmp_path / data.name}" in caplog.text
    with pytest.raises(UserError, match=r"2 of 3 parts are missing in .*: --shard 0/3, 2/3"):
        selfsup.embed(one_run, data, labels=str(data), unite=parts, out=tmp_path / "e.parquet", quiet=True)
    with pytest.raises(UserError, match=r"holds parts of 3, not of 2: give --shard i/3"):
        selfsup.embed(one_run, data, labels=str(data), shard="0/2", out=parts, quiet=True)
    with pytest.raises(UserError, match="is of other data"):
        selfsup.embed(one_run, "digits", shard="0/3", out=parts, quiet=True)
    other = selfsup.pretrain("digits", encoder="convnet", steps=1, batch_size=16, out=tmp_path / "other", quiet=True)
    with pytest.raises(UserError, match="is of another encoder"):
        selfsup.embed(other, data, labels=str(data), shard="0/3", out=parts, quiet=True)
    first.path.write_bytes(first.path.read_bytes()[:-50])
    with pytest.raises(UserError, match="is damaged, remove it"):
        selfsup.embed(one_run, data, labels=str(data), shard="0/3", out=parts, quiet=True)
    with pytest.raises(UserError, match="give one as --out, not e"):
        selfsup.embed(one_run, data, shard="0/3", out=tmp_path / "e.parquet", quiet=True)
    with pytest.raises(UserError, match="has no parts of embeddings"):
        selfsup.embed(one_run, data, unite=tmp_path, out=tmp_path / "e.parquet", quiet=True)


def test_memory_does_not_grow_with_the_number_of_rows(one_run: Path, tmp_path: Path) -> None:
    run, peaks = selfsup.Run(one_run), []
    for count in (5_000, 20_000):
        source = Arrays(np.broadcast_to(RNG.integers(0, 255, (1, 8, 8), dtype=np.uint8), (count, 8, 8)))
        tracemalloc.start()
        selfsup.embed(run, source, out=tmp_path / f"{count}.parquet", quiet=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pq.ParquetFile(tmp_path / f"{count}.parquet").num_row_groups == -(-count // 4096)
    assert peaks[1] < peaks[0] + 2**20
