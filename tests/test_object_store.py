"""Shards in an object store that speaks S3: packed to, trained from, refused, slow, failing and gone."""

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from selfsup.cli import main
from selfsup.data.open import open_data
from selfsup.data.shards import objects
from selfsup.errors import RunFailed, UserError
from selfsup.tasks.image.simclr import SimCLR
from selfsup.train import fit
from support.ranks import free_port

moto = pytest.importorskip("moto.server", reason="the store is moto's: pip install 'moto[server,s3]' s3fs")
s3fs = pytest.importorskip("s3fs", reason="pip install 'selfsup[cloud]'")
WORDS = "--task simclr --encoder nature-cnn --batch-size 8 --steps 6 --quiet --workers 0 --log none --optimizer sgd"
ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>%s</Message></Error>"


class Store:
    """moto's S3, before which requests wait `latency` seconds and each `fails`-th is answered 503.

    `status`: what all are answered with instead, such as 403; `asked` counts them.
    """

    def __init__(self) -> None:
        from werkzeug.serving import make_server

        self.app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.latency, self.fails, self.status, self.asked = 0.0, 0, 0, 0
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, environ, start_response):
        self.asked += 1
        time.sleep(self.latency)
        status = self.status or (503 if self.fails and self.asked % self.fails == 0 else 0)
        if not status:
            return self.app(environ, start_response)
        code = {403: b"AccessDenied", 503: b"SlowDown"}[status]
        start_response(f"{status} {code.decode()}", [("Content-Type", "application/xml")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [ERROR % (code, b"Please reduce your request rate.")]


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    store = Store()
    yield store
    store.server.shutdown()


@pytest.fixture
def store(server: Store, tmp_path, monkeypatch) -> Store:
    """A store with an empty bucket, and nothing that was kept or known of it before."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "SELFSUP_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "WAIT", 0.01)
    server.latency, server.fails, server.status = 0.0, 0, 0
    s3fs.S3FileSystem.clear_instance_cache()
    objects._system.cache_clear()
    if bucket().exists("bucket"):
        bucket().rm("bucket", recursive=True)
    bucket().mkdir("bucket")
    return server


def bucket():
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data") / "images", np.random.default_rng(0)
    for number in range(24):
        path = root / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return root


def small(monkeypatch) -> None:
    monkeypatch.setattr("selfsup.data.shards.pack.MEBI", 1 << 14)


def test_packed_to_a_bucket_and_trained_from_it_as_from_the_folder(store, folder, tmp_path, monkeypatch, capsys):
    small(monkeypatch)
    there = "s3://bucket/shards"
    pack = ["pack", str(folder), "--labels", "folders", "--quiet", "--shard-mb", "1", "-o"]
    store.fails = 9
    assert main([*pack, there]) == 0
    store.fails = 0
    assert main([*pack, str(tmp_path / "here")]) == 0
    names = sorted(path.rsplit("/", 1)[1] for path in bucket().ls("bucket/shards"))
    assert names == sorted(os.listdir(tmp_path / "here"))
    assert len(names) > 4
    assert all(bucket().cat_file(f"bucket/shards/{name}") == (tmp_path / "here" / name).read_bytes() for name in names)
    assert not list((tmp_path / "cache").glob("packing/*"))
    capsys.readouterr()
    assert main([*pack, there]) == 0
    assert "from before" in capsys.readouterr().out
    store.latency, store.fails = 0.02, 9
    for name, data in (("far", there), ("near", tmp_path / "here")):
        assert main(f"pretrain {data} {WORDS} --out {tmp_path / name}".split()) == 0
    one, other = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("far", "near"))
    assert one == other


def test_a_killed_pack_goes_on_to_the_same_bytes(store, folder, tmp_path, monkeypatch):
    small(monkeypatch)
    from selfsup.data.shards import pack as packing

    source, sent = open_data(str(folder), "folders"), objects.put
    packing.pack(source, tmp_path / "here", shard_mb=1, quiet=True)

    def put(path, name):
        if "000001.tar.index" in name:
            raise KeyboardInterrupt
        sent(path, name)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "put", put)
        with pytest.raises(KeyboardInterrupt):
            packing.pack(source, "s3://bucket/shards", shard_mb=1, quiet=True)
    with pytest.raises(UserError, match="is not finished: run the same `selfsup pack` again"):
        open_data("s3://bucket/shards")
    assert packing.pack(source, "s3://bucket/shards", shard_mb=1, quiet=True).kept == 1
    for path in (tmp_path / "here").iterdir():
        assert bucket().cat_file(f"bucket/shards/{path.name}") == path.read_bytes()


def test_without_rights_or_a_bucket_it_is_one_line_at_once(store, folder, monkeypatch, capsys):
    assert main(["pack", str(folder), "-o", "s3://nobody/shards", "--quiet"]) == 1
    assert "s3://nobody/shards/images-000000.tar is not there: check the address" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"shards\.json is not there: check the address"):
        open_data("s3://bucket/shards")
    store.status, store.asked = 403, 0
    with pytest.raises(
        UserError, match=r"may not be read: the store refuses these credentials.*set others: AWS_PROFILE"
    ):
        open_data("s3://bucket/shards")
    assert main(["pack", str(folder), "-o", "s3://bucket/shards", "--quiet"]) == 1
    assert "may not be written: the store refuses these credentials" in capsys.readouterr().err
    assert store.asked < 12
    store.status = 0
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    objects._system.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"may not be read.*or has none"):
        open_data("s3://bucket/x.tar")
    assert main(["pack", str(folder), "-o", "http://x/y"]) == 2
    assert "not to http://x/y: give another --out" in capsys.readouterr().err


def test_a_bucket_that_goes_in_mid_run_ends_it_in_one_line_and_it_resumes(store, folder, tmp_path, monkeypatch, capsys):
    small(monkeypatch)
    here, there = tmp_path / "here", "s3://bucket/shards"
    assert main(["pack", str(folder), "--quiet", "--shard-mb", "1", "-o", str(here)]) == 0
    bucket().put(str(here), "bucket/shards", recursive=True)
    monkeypatch.setenv("SELFSUP_RANGES", "0")  # nothing is kept
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit, "SAVE_SHARE", 1e9)
    words = f"pretrain {there} {WORDS} --out {tmp_path / 'run'}".split()
    steps = SimCLR.after_step

    def after_step(task) -> None:
        steps(task)
        store.status = 503

    with monkeypatch.context() as patch:
        patch.setattr(SimCLR, "after_step", after_step)
        assert main(words) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("selfsup")]
    assert "cannot be read after 6 tries" in line
    assert "start again to resume" in line
    store.status = 0
    for what, told in ((503, "cannot be read after 6 tries"), (403, "may not be read"), (0, "is not there")):
        opened = open_data(there)
        store.status = what
        if not what:
            bucket().rm("bucket", recursive=True)
        with pytest.raises(RunFailed, match=told) as error:
            opened.content(3)
        assert "\n" not in str(error.value)
        store.status = 0
    bucket().mkdir("bucket")
    bucket().put(str(here), "bucket/shards", recursive=True)
    assert main(words) == 0
    assert main(f"pretrain {here} {WORDS} --out {tmp_path / 'near'}".split()) == 0
    one, other = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("run", "near"))
    assert one == other


def test_the_same_in_a_store_of_google(folder, tmp_path, monkeypatch, capsys):
    reason = "the store is an emulator: pip install gcsfs gcp-storage-emulator"
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason=reason)
    pytest.importorskip("gcsfs", reason=reason)
    small(monkeypatch)
    port = free_port()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    there, pack = "gs://bucket/shards", ["pack", str(folder), "--labels", "folders", "--quiet", "--shard-mb", "1"]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        assert main([*pack, "-o", there]) == 0
        assert main([*pack, "-o", there]) == 0
        assert "from before" in capsys.readouterr().out
        far, near = open_data(there), open_data(str(folder), "folders")
        assert [far.content(index) for index in range(len(far))] == [near.content(index) for index in range(len(near))]
        assert main([*pack, "-o", "gs://nobody/shards"]) == 1
        assert "gs://nobody/shards/images-000000.tar is not there: check the address" in capsys.readouterr().err
    finally:
        server.stop()
