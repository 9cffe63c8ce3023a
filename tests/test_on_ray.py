"""Embeddings on a Ray cluster of two nodes, of which one is removed in mid-run."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import selfsup
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation import on_ray

pytest.importorskip("ray", reason="ray is not installed")
import ray
from ray.cluster_utils import Cluster

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x=RNG.integers(0, 255, (4000, 8, 8), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose encoder is the same in processes that know nothing of conftest.py."""
    folder = tmp_path_factory.mktemp("run") / "rotation"
    selfsup.pretrain("digits", encoder="mlp", steps=2, batch_size=16, out=folder, quiet=True)
    return folder


@pytest.mark.timeout(280)
def test_a_node_is_removed_in_mid_run_and_every_row_is_there_once(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "ROWS", 256)  # 16 parts
    assert selfsup.embed(run, data, out=tmp_path / "whole.parquet", quiet=True).rows == 4000
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second, parts = cluster.add_node(num_cpus=1), tmp_path / "parts"

    def remove() -> None:
        while len(list(parts.glob("embeddings-*.parquet"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        found = selfsup.embed(run, data, ray=cluster.address, out=parts, quiet=True)
        remover.join()
        assert (found.rows, found.there) == (4000, 0)
        assert selfsup.embed(run, data, ray=cluster.address, out=parts, quiet=True).there == 16
    finally:
        ray.shutdown()
        cluster.shutdown()
    selfsup.embed(run, data, unite=parts, out=tmp_path / "e.parquet", quiet=True)
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_what_a_cluster_cannot_open_is_refused(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="the data are a path that all machines see, not ndarray"):
        selfsup.embed(run, np.load(data)["x"], ray="local", out=tmp_path / "parts", quiet=True)

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody answers")  # as ray does after minutes

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(RunFailed, match=r"cannot reach the Ray cluster 127.0.0.1:1"):
        selfsup.embed(run, data, ray="127.0.0.1:1", out=tmp_path / "parts", quiet=True)
