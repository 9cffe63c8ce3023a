"""Shards are read as the folder they were made of, from here and from afar, and say what is wrong with them."""

import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from selfsup.data.open import open_data
from selfsup.data.shards import kept, objects, open, tar
from selfsup.data.shards.index import SUFFIX
from selfsup.data.shards.kept import Kept
from selfsup.data.shards.pack import pack
from selfsup.errors import RunFailed, UserError
from selfsup.source import Broken
from support.folders import write_images
from support.server import serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_images(tmp_path_factory.mktemp("data") / "images", count=10)
    for number in range(10):  # names with dots, as of Kaggle, and one stem twice
        Image.effect_noise((20, 14), 90).convert("RGB").save(root / "cat" / f"cat.{number}.jpg")
    Image.new("L", (9, 9), 40).save(root / "dog" / "cat.3.png")
    Image.new("L", (9, 9), 40).save(root / "dog" / "cat.3.jpg")
    return root


@pytest.fixture(scope="module")
def source(folder):
    return open_data(str(folder), "folders")


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    """Tars of the folder, small ones."""
    shards = tmp_path_factory.mktemp("packed") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfsup.data.shards.pack.MEBI", 1 << 14)
        pack(source, shards, shard_mb=1, quiet=True)
    return shards


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep nothing from one test to the next, and do not wait between tries."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "WAIT", 0.001)
    return tmp_path / "cache"


def same(found, source):
    """Assert that both have the same images under the same paths, and the same labels."""
    places = {source.path(index): index for index in range(len(source))}
    assert sorted(places) == sorted(found.path(index) for index in range(len(found)))
    order = np.array([places[found.path(index)] for index in range(len(found))])
    assert [found.content(index) for index in range(len(found))] == [source.content(index) for index in order]
    assert np.array_equal(found.read(3), source.read(int(order[3])))
    if source.labels is not None:
        assert found.labels.classes == source.labels.classes
        assert np.array_equal(found.labels.ids, source.labels.ids[order])


def write_tar(path, *members, end=True, **options):
    """Write a tar of (name, bytes) or TarInfo."""
    with tarfile.open(path, "w", **options) as made:
        for member in members:
            about, data = (
                (member, b"") if isinstance(member, tarfile.TarInfo) else (tarfile.TarInfo(member[0]), member[1])
            )
            if not isinstance(member, tarfile.TarInfo):
                about.size = len(data)
            made.addfile(about, io.BytesIO(data))
        length = made.offset
    if not end:
        os.truncate(path, length)
    return str(path)


def png(value=0):
    out = io.BytesIO()
    Image.new("L", (8, 8), value).save(out, "PNG")
    return out.getvalue()


def test_shards_are_read_as_the_folder_they_were_made_of(packed, source, cache):
    found = open_data(str(packed))
    assert len(list(packed.glob("*.tar"))) > 2
    same(found, source)
    assert not found.notes
    assert not (cache / "shards").exists()  # the indexes beside them are enough
    some = found.take(np.array([5, 1]))
    assert [some.path(0), some.path(1)] == [found.path(5), found.path(1)]
    assert some.content(0) == found.content(5)
    spec = found.spec(size=16)
    assert found.conform(spec).read(0).shape[2] == 3
    labels = open_data(str(packed), "folders").labels
    assert np.array_equal(labels.ids, found.labels.ids)


def test_a_pattern_a_tar_and_a_file_url_are_read_too(packed, source):
    last = len(list(packed.glob("*.tar"))) - 1
    name = str(packed / f"images-{{000000..{last:06}}}.tar")
    same(open_data(name), source)
    same(open_data(f"file://{packed}"), source)
    one = open_data(str(packed / "images-000000.tar"))
    assert 0 < len(one) < len(source)
    assert set(one.labels.classes) < set(source.labels.classes)
    with pytest.raises(UserError, match=r"cannot read .*images-.*: No such file"):
        open_data(str(packed / f"images-{{000000..{last + 1:06}}}.tar"))
    with pytest.raises(UserError, match="1 to 1,000,000 can be read"):
        open_data(str(packed / "images-{5..3}.tar"))


def test_without_its_index_a_shard_is_indexed_once_into_the_cache(packed, source, tmp_path, cache, monkeypatch):
    shards = tmp_path / "copy"
    shards.mkdir()
    for path in packed.iterdir():
        if path.suffix != SUFFIX:
            (shards / path.name).write_bytes(path.read_bytes())
    found = open_data(str(shards))
    assert [found.content(index) for index in range(len(found))] == [
        source.content(index) for index in range(len(found))
    ]
    assert found.labels.classes == source.labels.classes  # numbers in the tars, names in the manifest
    assert len(list((cache / "shards").rglob("*.arrow"))) == len(list(shards.glob("*.tar")))
    monkeypatch.setattr("selfsup.data.shards.index.indexed", None)
    assert open_data(str(shards)).fingerprint() == found.fingerprint()


def test_a_damaged_index_is_made_anew(packed, source, tmp_path):
    shards = tmp_path / "copy"
    shards.mkdir()
    for path in packed.iterdir():
        (shards / path.name).write_bytes(path.read_bytes())
    index = next(shards.glob(f"*{SUFFIX}"))
    index.write_bytes(index.read_bytes()[:-30] + b"x" * 30)
    assert len(open_data(str(shards))) == len(source)


def test_webdataset_of_somebody_else(tmp_path):
    write_tar(
        tmp_path / "a-0.tar",
        ("./000.jpg", png(0)), ("./000.cls", b"7\n"), ("./000.json", b'{"w": 8}'),
        ("001.png", png(1)), ("001.json", b'{"label": "fox"}'),
        ("002.seg.png", png(2)), ("002.png", png(3)),
        ("003.npz", b"zip"), ("003.cls", b"1"),
    )  # fmt: skip
    write_tar(tmp_path / "a-1.tar", ("000.jpg", png(4)), ("000.mp3", b"sound"))
    found = open_data(str(tmp_path))
    assert [found.path(index) for index in range(4)] == [
        "a-0.tar/000.jpg",
        "a-0.tar/001.png",
        "a-0.tar/002.seg.png",
        "a-1.tar/000.jpg",
    ]
    assert found.labels.classes == ("7", "fox")
    assert found.labels.ids.tolist() == [0, 1, -1, -1]
    assert [int(found.read(index)[0, 0, 0]) for index in range(4)] == [0, 1, 2, 4]
    assert any("1 further members of a sample" in note and "1 .mp3" in note for note in found.notes)
    assert any("1 samples without an image" in note for note in found.notes)


@pytest.mark.parametrize(
    ("texts", "classes"),
    [((b"cat", b"dog", b"cat", b"cat"), 2), ((b"a", b"b", b"c", b"d"), 0), ((b"cat", b"cat", b"a " * 50, b"cat"), 0)],
)
def test_a_txt_is_a_label_where_it_can_be_one_and_that_is_said(tmp_path, texts, classes):
    members = [((f"{n}.png", png(n)), (f"{n}.txt", text)) for n, text in enumerate(texts)]
    found = open_data(write_tar(tmp_path / "x.tar", *(one for pair in members for one in pair)))
    assert (len(found.labels.classes) if found.labels else 0) == classes
    told = "are their labels (2 classes)" if classes else "4 .txt beside the images are captions"
    assert any(told in note for note in found.notes)


def hostile():
    link, hard, device = tarfile.TarInfo("l.png"), tarfile.TarInfo("h.png"), tarfile.TarInfo("d.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "../x.png"
    device.type = tarfile.CHRTYPE
    fifo = tarfile.TarInfo("f.png")
    fifo.type = tarfile.FIFOTYPE
    return [
        link,
        hard,
        device,
        fifo,
        ("/abs.png", png()),
        ("../out.png", png()),
        ("a/../../b.png", png()),
        ("a/._c.png", png()),
    ]


def test_a_tar_from_a_stranger_is_counted_and_never_extracted(tmp_path):
    before = set(tmp_path.parent.rglob("*"))
    name = write_tar(tmp_path / "x.tar", *hostile(), ("empty.png", b""), ("good.png", png(9)))
    found = open_data(name)
    assert [found.path(0), len(found)] == ["good.png", 1]
    (note,) = found.notes
    for told in (
        "9 members are left out",
        "2 links",
        "2 device files",
        "3 paths that leave the folder",
        "1 hidden files",
        "1 empty members",
    ):
        assert told in note
    assert {path for path in set(tmp_path.parent.rglob("*")) - before if "cache" not in path.parts} == {
        tmp_path / "x.tar"
    }
    with pytest.raises(UserError, match=r"no images in .*: 8 members are left out"):
        open_data(write_tar(tmp_path / "y.tar", *hostile()))


def test_many_empty_members_end_early(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "FRUITLESS", 50)
    name = write_tar(tmp_path / "x.tar", *((f"{n}.png", b"") for n in range(60)))
    with pytest.raises(UserError, match="holds no image among its first 50 members"):
        open_data(name)
    monkeypatch.setattr(tar, "FRUITLESS", 500)
    same_key = write_tar(tmp_path / "y.tar", *((f"0.{n}.png", png()) for n in range(tar.MEMBERS + 5)))
    found = open_data(same_key)
    assert len(found) == 1
    assert f"{tar.MEMBERS + 4} further members" in found.notes[0]


@pytest.mark.parametrize("kind", ["not one", "empty", "compressed", "cut", "garbage", "negative"])
def test_what_is_no_tar_is_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "x.tar"
    write_tar(path, ("a.png", png()), ("b.png", bytes(9000)))
    data = path.read_bytes()
    if kind == "compressed":
        write_tar(tmp_path / "y", ("a.png", png()))
        with tarfile.open(path, "w:gz") as made:
            made.add(tmp_path / "y")
    else:
        header = bytearray(data[:512])
        header[124:136] = b"\xff" * 11 + b"\x00"  # a size below 0
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
        path.write_bytes(
            {
                "not one": b"text " * 400,
                "empty": b"",
                "cut": data[:3000],
                "garbage": data[:1024] + b"x" * 2048,
                "negative": bytes(header) + data[512:],
            }[kind]
        )
    with pytest.raises(UserError) as error:
        open_data(str(path))
    assert "\n" not in str(error.value)
    assert any(word in str(error.value) for word in ("is not a tar", "truncated or damaged"))


def test_a_tar_without_an_end_is_read_and_that_is_said(tmp_path):
    found = open_data(write_tar(tmp_path / "x.tar", ("a.png", png()), end=False))
    assert found.notes == (
        f"{tmp_path / 'x.tar'}: 1 of the tars have no end mark: they may be truncated between two members",
    )


def test_a_shard_that_changes_or_goes_is_counted_with_its_reason(packed, tmp_path):
    shards = tmp_path / "copy"
    shards.mkdir()
    for path in packed.iterdir():
        (shards / path.name).write_bytes(path.read_bytes())
    found = open_data(str(shards))
    first = shards / "images-000000.tar"
    whole = bytearray(first.read_bytes())
    whole[int(found.store.starts[0]) + 5] ^= 255
    first.write_bytes(whole)
    with pytest.raises(Broken, match="changed since its index was made"):
        found.content(0)
    with pytest.raises(Broken, match="not the checksum of its index"):
        open_data(str(shards)).content(0)
    first.write_bytes(whole[:-512])
    with pytest.raises(UserError, match=r"has [\d,]+ bytes instead of [\d,]+: it is truncated"):
        open_data(str(shards))
    first.unlink()
    with pytest.raises(Broken, match="its shard cannot be read: No such file"):
        found.content(0)
    with pytest.raises(UserError, match=r"1 of the .* are missing, for example .*images-000000\.tar: copy them again"):
        open_data(str(shards))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is damaged"),
        (
            '{"format": "selfsup shards 1", "to": "tar", "shards": [{"name": "../x.tar", "size": 1, "blake2b": ""}]}',
            "not a manifest",
        ),
        ('{"format": "selfsup shards 9", "to": "tar", "shards": []}', "not a manifest"),
        ('{"format": "selfsup shards 1", "to": "tar", "shards": [], "complete": false}', "is not finished"),
    ],
)  # fmt: skip
def test_a_manifest_from_a_stranger(tmp_path, content, told):
    (tmp_path / "shards.json").write_text(content)
    with pytest.raises(UserError, match=told):
        open_data(str(tmp_path))


def write_parquet(path, count, label=True, names=("cat", "dog"), first=0, plain=False):
    images = [png(first + n) if n != 3 else None for n in range(count)]
    columns = {
        "image": images if plain else [{"bytes": one, "path": f"{first + n}.png"} for n, one in enumerate(images)]
    }
    if label:
        columns["label"] = [n % 2 for n in range(count)]
    table = pa.table(columns)
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}}) if names else "{"
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), path, row_group_size=4)
    return path


def test_parquet_files_with_images_are_read_by_row_groups(tmp_path, monkeypatch):
    for number in range(2):
        write_parquet(tmp_path / f"train-{number}.parquet", 10, first=10 * number)
    (tmp_path / "README.txt").write_text("about")
    found = open_data(str(tmp_path))
    assert (len(found), found.block, found.labels.classes) == (20, 4, ("cat", "dog"))
    assert found.path(12) == "12.png"
    assert int(found.read(12)[0, 0, 0]) == 12
    with pytest.raises(Broken, match="no bytes"):
        found.content(3)
    read = []
    whole = type(found.store)._read
    monkeypatch.setattr(type(found.store), "_read", lambda store, *where: read.append(where) or whole(store, *where))
    found = open_data(str(tmp_path))
    for index in (0, 1, 2, 9, 1):
        found.content(index)
    assert len(read) == 2
    monkeypatch.setattr("selfsup.data.shards.parquet.HELD", 1)
    for index in (5, 0, 5):
        found.content(index)
    assert len(read) == 5
    assert "in blocks of 4 images" in found.notes[0]


def test_a_parquet_file_without_rows_does_not_shift_the_others(tmp_path):
    kept = write_parquet(tmp_path / "train-1.parquet", 10)
    pq.ParquetWriter(tmp_path / "train-0.parquet", pq.read_schema(kept)).close()  # not even a row group
    found = open_data(str(tmp_path))
    assert (len(found), found.block) == (10, 4)
    assert int(found.read(7)[0, 0, 0]) == 7


def test_parquet_of_other_columns(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", 5, names=(), plain=True)
    found = open_data(str(path))
    assert (len(found), found.path(4), found.labels.classes) == (5, "4", ("0", "1"))
    assert open_data(f"{path}:image:label").labels.classes == ("0", "1")
    with pytest.raises(UserError, match="no column 'species'"):
        open_data(f"{path}:image:species")
    pq.write_table(pa.table({"text": ["a", "b"], "image": [png(), png()]}), tmp_path / "t.parquet")
    assert open_data(str(tmp_path / "t.parquet")).kind == "text"
    assert open_data(f"{tmp_path / 't.parquet'}:image").kind == "image"
    write_parquet(tmp_path / "y.parquet", 5, label=False)
    with pytest.raises(UserError, match="has not the columns"):
        open.open_parquet("both", [str(tmp_path / "x.parquet"), str(tmp_path / "y.parquet")])
    (tmp_path / "z.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"z.parquet cannot be read"):
        open.open_parquet("z", [str(tmp_path / "z.parquet")])


def test_a_row_group_that_fills_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("selfsup.data.shards.parquet.HELD", 100)
    with pytest.raises(UserError, match="smaller row groups"):
        open_data(str(write_parquet(tmp_path / "x.parquet", 5)))


def test_shards_of_a_server_that_lags_and_fails(packed, source, cache):
    with serving(packed, latency=0.003, fails=7) as server:
        found = open_data(server.url)
        same(found, source)
        rows = np.arange(len(found))
        fresh = open_data(server.url)
        server.asked.clear()
        fresh.prefetch(rows)
        fresh.prefetch(rows)
        assert [fresh.content(index) for index in rows] == [found.content(index) for index in rows]
        assert not [one for one in server.asked if one[0].endswith(".tar")]  # all of it was kept here
        for path in (cache / "ranges").glob("*/*"):
            path.unlink()
        again = open_data(server.url)
        server.asked.clear()
        again.prefetch(rows)
        assert [again.content(index) for index in rows] == [found.content(index) for index in rows]
        tars = [one for one in server.asked if one[0].endswith(".tar")]
        assert len(tars) == len(list(packed.glob("*.tar")))  # neighbours are one request


def test_a_foreign_tar_and_parquet_of_a_server(tmp_path):
    write_tar(tmp_path / "a-0.tar", *((f"{n}.png", png(n)) for n in range(6)))
    write_parquet(tmp_path / "b.parquet", 6)
    with serving(tmp_path) as server:
        found = open_data(f"{server.url}/a-{{0..0}}.tar")
        assert [int(found.read(index)[0, 0, 0]) for index in range(6)] == list(range(6))
        server.asked.clear()
        assert len(open_data(f"{server.url}/a-0.tar")) == 6
        assert not server.asked  # its index was kept
        table = open_data(f"{server.url}/b.parquet")
        assert int(table.read(5)[0, 0, 0]) == 5


def test_a_server_that_refuses_is_one_line_and_is_not_asked_again(packed, tmp_path):
    (tmp_path / "x.tar").write_bytes((packed / "images-000000.tar").read_bytes())
    (tmp_path / "shards.json").write_bytes((packed / "shards.json").read_bytes())
    with serving(tmp_path) as server:
        with pytest.raises(UserError, match=r"images-000000\.tar is not there"):
            open_data(server.url)
        (tmp_path / "shards.json").unlink()
        with pytest.raises(UserError, match=r"y\.tar is not there: check the address"):
            open_data(f"{server.url}/y.tar")
        with pytest.raises(UserError, match=r"shards\.json is not there.*name the shards"):
            open_data(f"{server.url}/nothing")
        found = open_data(f"{server.url}/x.tar")
        server.cut = 10  # bytes that the next answer lacks
        before = found.content(0)
        server.forbidden = True
        with pytest.raises(RunFailed, match="may not be read"):
            found.content(1)
        server.forbidden, server.fails, server.counted = False, 1, 0
        with pytest.raises(RunFailed, match="after 6 tries: it answers 503; start again to resume"):
            found.content(1)
        assert server.counted == objects.TRIES
        server.fails, server.ranges = 0, False
        with pytest.raises(RunFailed, match="sends whole files"):
            found.content(1)
        server.ranges = True
        assert found.content(0) == before
        (tmp_path / "x.tar").write_bytes((packed / "images-000001.tar").read_bytes())
        with pytest.raises(RunFailed, match="has changed since it was opened"):
            found.content(1)
        server.forbidden = True
        with pytest.raises(UserError, match="may not be read"):
            open_data(f"{server.url}/x.tar")
    with pytest.raises(UserError, match="cannot be read after 6 tries"):
        open_data("http://127.0.0.1:9/x.tar")  # where nobody listens


def test_what_is_gone_is_not_asked_for_a_thousand_times(packed):
    with serving(packed) as server:
        found = open_data(server.url)
        server.fails, server.counted = 1, 0
        found.prefetch(np.random.default_rng(0).permutation(len(found))[::2])
        with pytest.raises(RunFailed, match="503"):
            [found.content(index) for index in range(len(found))]
        found.prefetch(np.arange(len(found)))
        with pytest.raises(RunFailed, match="503"):
            found.content(len(found) - 1)


def test_object_stores_are_read_through_fsspec(monkeypatch, packed, source):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in packed.iterdir():
        memory.pipe(f"/bucket/shards/{path.name}", path.read_bytes())
    monkeypatch.setattr(objects, "_system", lambda scheme: memory)
    monkeypatch.setattr(memory, "_strip_protocol", lambda name: "/" + name.rpartition("://")[2].strip("/"))
    same(open_data("s3://bucket/shards/"), source)
    memory.rm("/bucket/shards/shards.json")
    listed = open_data("s3://bucket/shards")
    assert len(listed) == len(source)
    assert listed.labels.classes == ("0", "1")  # as numbers: no manifest says their names
    with pytest.raises(UserError, match="is not there"):
        open_data("s3://bucket/others")


def test_a_store_whose_library_is_absent_says_what_to_install():
    with pytest.raises(UserError, match=r"pip install 'selfsup\[cloud\]'"):
        objects.file_system("gs://bucket/x.tar")


def test_ranges_are_kept_up_to_a_limit_and_the_oldest_go_first(tmp_path, monkeypatch):
    room = Kept(tmp_path / "ranges", limit=1000)
    for number in range(8):
        room.put("x", number * 100, bytes([number]) * 100)
        os.utime(room._path("x", number * 100, number * 100 + 100), ns=(number, number))
    assert room.get("x", 0, 100) == bytes(100)  # used just now
    for number in range(8, 11):
        room.put("x", number * 100, bytes([number]) * 100)
    assert sum(path.stat().st_size for path in (tmp_path / "ranges").rglob("*") if path.is_file()) <= 1000
    assert room.get("x", 0, 100) is not None
    assert room.get("x", 100, 200) is None
    assert room.get("y", 0, 100) is None
    room._path("x", 0, 100).write_bytes(b"short")
    assert room.get("x", 0, 100) is None
    room.put("", 0, b"data")
    assert room.get("", 0, 4) is None
    monkeypatch.setenv("SELFSUP_RANGES", "0.5")
    assert kept._limit(tmp_path) <= 1 << 29


def test_lance(source, tmp_path):
    pytest.importorskip("lance", reason="pip install 'selfsup[lance]'")
    done = pack(source, tmp_path / "x.lance", "lance", quiet=True)
    assert done.samples == len(source)
    found = open_data(str(tmp_path / "x.lance"))
    same(found, source)
    rows = np.random.default_rng(0).permutation(len(found))
    found.prefetch(rows)
    assert [found.content(index) for index in rows] == [source.content(index) for index in rows]
    (tmp_path / "y.lance").mkdir()
    with pytest.raises(UserError, match="is not a Lance dataset"):
        open_data(str(tmp_path / "y.lance"))


def test_lance_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lance", None)
    (tmp_path / "x.lance").mkdir()
    with pytest.raises(UserError, match=r"pip install 'selfsup\[lance\]'"):
        open_data(str(tmp_path / "x.lance"))
