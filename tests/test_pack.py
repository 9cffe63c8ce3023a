"""Packing: the same bytes however often it is killed, what is left out is counted, and runs on what it wrote."""

import hashlib
import json
import os
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.open import open_data
from selfsup.data.shards import pack as packing
from selfsup.data.shards.kept import Kept
from selfsup.errors import RunFailed, UserError
from selfsup.tasks.image.rotation import Rotation
from selfsup.views import loader
from support.folders import write_images
from support.server import serving

TINY = 1 << 14  # bytes of a "MiB" here


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setattr(packing, "MEBI", TINY)
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_images(tmp_path_factory.mktemp("data") / "images", count=20)
    (root / "dog" / "broken.png").write_bytes(b"no image")
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "cat" / "no permission.txt").write_text("other")
    return root


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_it_writes_and_what_it_says(folder, tmp_path):
    done = selfsup.pack(folder, out=tmp_path / "a", labels="folders", shard_mb=1, quiet=True)
    about = json.loads((tmp_path / "a" / "shards.json").read_text())
    assert (done.samples, done.kept, done.shards) == (40, 0, len(about["shards"]))
    assert done.left == {"not an image": 1, "empty file": 1}
    assert about["complete"]
    assert about["classes"] == ["cat", "dog"]
    assert done.shards > 2
    for one in about["shards"]:
        data = (tmp_path / "a" / one["name"]).read_bytes()
        assert len(data) == one["size"] <= 2 * TINY
        assert hashlib.blake2b(data).hexdigest() == one["blake2b"]
    with tarfile.open(tmp_path / "a" / "images-000000.tar") as made:
        members = made.getmembers()
    assert [members[0].name, members[1].name] == ["cat/0.png", "cat/0.cls"]
    assert {member.mtime for member in members} == {0}
    told = done.__rich__()
    assert "40 images in" in told
    assert "1 left out: empty file" in told
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]


def test_no_two_names_in_a_tar_share_what_comes_before_the_first_dot(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    names = ["a.jpg", "a.png", "a.b.png", "a%2Eb.png", "c.d.e.png", "c.png", "a.png.png"]
    for name in names:
        Image.new("L", (8, 8)).save(root / name)
    selfsup.pack(root, out=tmp_path / "shards", quiet=True)
    with tarfile.open(tmp_path / "shards" / "images-000000.tar") as made:
        keys = [name.partition(".")[0] for name in made.getnames()]
    assert len(set(keys)) == len(names)
    found = open_data(str(tmp_path / "shards"))
    assert sorted(found.path(index) for index in range(len(found))) == sorted(names)


def killed_after(source, reads):
    content, left = source.content, iter(range(reads))
    source.content = lambda index: content(index) if next(left, None) is not None else os._exit(9)


@pytest.mark.parametrize("to", ["tar", "parquet"])
def test_killed_at_any_place_it_ends_with_the_same_bytes(folder, tmp_path, to):
    source = open_data(str(folder), "folders")
    packing.pack(source, tmp_path / "whole", to, 1, quiet=True)
    wanted = contents(tmp_path / "whole")
    again = tmp_path / "again"
    for most in (3, 9, 20, 14):
        child = os.fork()
        if not child:  # it dies as by kill -9: nothing is cleaned up
            killed_after(source, most)
            packing.pack(source, again, to, 1, quiet=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] >> 8 == 9
        if (again / "shards.json").exists():
            with pytest.raises(UserError, match="is not finished: run the same `selfsup pack` again"):
                open_data(str(again))
    done = packing.pack(source, again, to, 1, quiet=True)
    assert done.kept > 0
    assert contents(again) == wanted
    assert done.left == {"not an image": 1, "empty file": 1}
    assert packing.pack(source, again, to, 1, quiet=True).kept == done.shards
    last = sorted(again.glob(f"*.{to}"))[-1]
    os.truncate(last, 100)
    assert packing.pack(source, again, to, 1, quiet=True).kept == done.shards - 1
    assert contents(again) == wanted


def test_what_cannot_be_packed_is_one_line(folder, tmp_path):
    out = tmp_path / "shards"
    selfsup.pack(folder, out=out, quiet=True)
    with pytest.raises(UserError, match="holds shards of other data, labels or sizes"):
        selfsup.pack(folder, out=out, labels="folders", quiet=True)
    with pytest.raises(UserError, match="arrays: image files are packed as they are"):
        selfsup.pack(np.zeros((4, 8, 8), np.uint8), out=tmp_path / "x", quiet=True)
    with pytest.raises(UserError, match="unknown --to 'zip'"):
        selfsup.pack(folder, out=tmp_path / "x", to="zip")
    with pytest.raises(UserError, match="--shard-mb must be a whole number from 1"):
        selfsup.pack(folder, out=tmp_path / "x", shard_mb=0)
    with pytest.raises(UserError, match="is not a folder"):
        selfsup.pack(folder, out=folder / "cat" / "0.png")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no")
    with pytest.raises(RunFailed, match=r"none of the 1 images of .* can be read: 1 not an image"):
        selfsup.pack(broken, out=tmp_path / "y", quiet=True)
    with packing.only_here(out), pytest.raises(UserError, match="is in use by process"):
        selfsup.pack(folder, out=out, quiet=True)


def test_parquet_is_what_hugging_face_reads_and_shards_are_packed_anew(folder, tmp_path):
    selfsup.pack(folder, out=tmp_path / "tar", labels="folders", shard_mb=1, quiet=True)
    selfsup.pack(tmp_path / "tar", out=tmp_path / "parquet", to="parquet", shard_mb=1, quiet=True)
    table = pq.read_table(tmp_path / "parquet" / "images-000000.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    tars, tables = open_data(str(tmp_path / "tar")), open_data(str(tmp_path / "parquet"))
    assert tables.labels.classes == ("cat", "dog")
    assert np.array_equal(tables.labels.ids, tars.labels.ids)
    assert [tables.content(index) for index in range(40)] == [tars.content(index) for index in range(40)]


def test_a_run_on_shards_is_the_run_on_the_folder(tmp_path, capsys, monkeypatch):
    root = write_images(tmp_path / "images", count=20)
    assert main(["pack", str(root), "-o", str(tmp_path / "shards"), "--labels", "folders", "--quiet"]) == 0
    options = {"encoder": "convnet", "steps": 2, "batch_size": 8, "device": "cpu", "workers": 2, "quiet": True}
    runs = [selfsup.pretrain(data, out=tmp_path / data.name / "run", **options) for data in (root, tmp_path / "shards")]
    assert same_weights(*runs)
    tables = [
        selfsup.embed(runs[0], data, out=tmp_path / f"{data.name}.parquet", quiet=True).path
        for data in (root, tmp_path / "shards")
    ]
    folder, shards = map(pq.read_table, tables)
    assert folder["path"].to_pylist() == shards["path"].to_pylist()
    assert folder["vector"].to_pylist() == shards["vector"].to_pylist()
    assert shards["label"].to_pylist() == ["cat"] * 20 + ["dog"] * 20
    assert "40 images in 1 shard," in capsys.readouterr().out

    # the same from a store that refuses in mid-run: one line, and the same command resumes to the same weights
    options["workers"] = 0
    with serving(tmp_path / "shards") as server:
        with monkeypatch.context() as patch:
            patch.setattr(Kept, "get", lambda *_: None)  # or all of it were here already
            patch.setattr(loader, "READ_AHEAD", 0)
            patch.setattr(Rotation, "after_step", lambda task: setattr(server, "forbidden", True))
            with pytest.raises(RunFailed, match="the store refuses these credentials"):
                selfsup.pretrain(server.url, out=tmp_path / "far", **options)
        server.forbidden = False
        assert same_weights(selfsup.pretrain(server.url, out=tmp_path / "far", **options), runs[0])


def same_weights(one, other):
    pairs = zip(one.load().state_dict().values(), other.load().state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)
