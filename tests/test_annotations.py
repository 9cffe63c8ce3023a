"""Labels inside of samples: tables of intervals, TextGrids, what is refused, and what is counted."""

import os
from pathlib import Path

import numpy as np
import pytest

from selfsup.data.annotations import check_lengths, read_annotations, with_annotations
from selfsup.data.index import pack
from selfsup.data.textgrid import read_textgrid
from selfsup.data.video import Moving, Videos
from selfsup.errors import UserError
from selfsup.source import Broken

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks 3"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "!"
    item [2]:
        class = "IntervalTier"
        name = "phones"  ! not "words" 9
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "a ""b"" 7"
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = ""
        intervals [3]:
            xmin = 1.25
            xmax = 2.5
            text = "ə"
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "one"
"""
SHORT = """File type = "ooTextFile"
"TextGrid"

0
2.5
<exists>
3
"TextTier"
"clicks 3"
0
2.5
1
0.5
"!"
"IntervalTier"
"phones"
0
2.5
3
0
0.5
"a ""b"" 7"
0.5
1.25
""
1.25
2.5
"ə"
"IntervalTier"
"words"
0
2.5
1
0
2.5
"one"
"""


def videos(*names: str) -> Videos:
    """Return videos of these names; there are no files, which nothing here reads."""
    return Videos("/nowhere", pack(name.encode() for name in names), name="v")


def table(folder: Path, text: str, name: str = "frames.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def names(found, index: int, *times: float) -> list[str]:
    return [(*found.classes, "-")[number] for number in found.at(index, np.array(times))]


def test_a_table_gives_each_time_its_label(tmp_path: Path) -> None:
    path = table(tmp_path, "path,start,end,label\nb.mp4,0.5,1,run\na.mp4,0,0.3,walk\nb.mp4,1,2.25,walk\nb.mp4,3,4,\n")
    found = read_annotations(path, videos("a.mp4", "b.mp4", "c.mp4"))
    assert found.classes == ("run", "walk")
    assert names(found, 1, 0.4, 0.5, 0.99, 1.0, 2.2499, 2.25, 3.5) == ["-", "run", "run", "walk", "walk", "-", "-"]
    assert names(found, 1, 3 * 0.1 + 0.2 - 1e-12) == ["run"], "times are compared to a microsecond"
    assert names(found, 0, 0.0, 0.3) == ["walk", "-"]
    assert names(found, 2, 0.0) == ["-"]
    assert "1 of 3 samples have no label inside" in found.notes[-1]
    assert any("1 of 4 intervals have no label (empty 1)" in note for note in found.notes)
    some = found.take(np.array([2, 1, 1]))
    assert names(some, 0, 0.5) == ["-"]
    assert names(some, 1, 0.5, 1.5) == names(some, 2, 0.5, 1.5) == ["run", "walk"]
    assert some.digest() != found.digest()


def test_columns_are_found_by_their_names_and_can_be_named(tmp_path: Path) -> None:
    path = table(tmp_path, "Onset\tfile\tspeaker\tEnd_Time\tphone\n0.1\tx/a\tkal\t0.2\tAH\n", "frames.tsv")
    found = read_annotations(path, videos("a.mp4", "b.mp4"))
    assert names(found, 0, 0.15) == ["AH"]
    assert any("'Onset' as start" in note for note in found.notes)
    named = read_annotations(f"{path}:label=speaker", videos("a.mp4"))
    assert named.classes == ("kal",)
    bare = table(tmp_path, "a.mp4;0;1;x\n", "bare.csv")
    found = read_annotations(f"{bare}:path=1,start=2,end=3,label=4", videos("a.mp4"))
    assert names(found, 0, 0.5) == ["x"]
    assert any("no header" in note for note in found.notes)


def test_where_two_labels_overlap_there_is_none(tmp_path: Path) -> None:
    rows = ["a,0,2,x", "a,1,3,y", "a,2.5,4,y", "a,5,5,x", "b,0,1,x", "b,1,2,y", "c,0,9,x", "c,2,3,x", "c,4,5,y"]
    found = read_annotations(table(tmp_path, "\n".join(["path,start,end,label", *rows])), videos("a.mp4", "b.avi", "c"))
    assert names(found, 0, 0.5, 1.5, 2.2, 2.7, 3.5, 4.5, 5.0) == ["x", "-", "y", "y", "y", "-", "-"]
    assert names(found, 1, 0.5, 1.0) == ["x", "y"]
    assert names(found, 2, 1.0, 2.5, 3.5, 4.5, 8.0) == ["x", "x", "x", "-", "x"]
    told = "\n".join(found.notes)
    assert "4 intervals overlap one with another label, for example in 'a.mp4' at 1 s" in told
    assert "1 intervals end when they begin" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,start,end,label\nz.mp4,0,1,x\n", "labels 1 paths that v does not have, for example 'z.mp4'"),
        ("path,start,end,label\na.mp4,1,0.5,x\n", r"1 intervals end before they begin.*is the second a length"),
        ("path,start,end,label\na.mp4,0:01,0:02,x\n", "the start '0:01' in 'a.mp4' is not a number of seconds"),
        ("path,start,end,label\na.mp4,-1,2,x\n", "'-1' in 'a.mp4' is not a number of seconds from 0 on"),
        ("path,start,end,label\na.mp4,0,inf,x\n", "the end 'inf'"),
        ("path,start,end,label\na.mp4,0,1,\n", "gives no label to any part"),
        ("path,start,label\na.mp4,0,x\n", "none of its columns .* is known as the end: name them with --columns"),
        ("", "is empty"),
    ],
)
def test_a_bad_table_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_annotations(table(tmp_path, text), videos("a.mp4", "b.mp4"))
    assert "\n" not in str(error.value)


def test_bad_names_are_one_line(tmp_path: Path) -> None:
    path = table(tmp_path, "path,start,end,label\na.mp4,0,1,x\n")
    for given, message in {
        str(tmp_path / "none.csv"): "no such file or folder",
        f"{path}:begin=x": "--columns takes path=COLUMN,start=COLUMN,end=COLUMN,label=COLUMN,tier=COLUMN",
        f"{path}:tier=x": "is for a folder of TextGrids",
        f"{path}:label=nothing": "unknown column",
        f"{path}:label=end": "two of path, start, end, label are the same column",
        str(tmp_path): "no TextGrids below",
    }.items():
        with pytest.raises(UserError, match=message):
            read_annotations(given, videos("a.mp4"))
    with pytest.raises(UserError, match="not list"):
        with_annotations(videos("a.mp4"), ["x"])  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
def test_textgrids_are_read_in_both_forms(text: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.TextGrid").write_text(text, encoding=encoding)
    source = videos("sub/a.wav", "sub/b.wav")
    found = read_annotations(tmp_path, source)
    assert found.classes == ('a "b" 7', "ə")
    assert names(found, 0, 0.0, 0.5, 1.25, 2.49, 2.5) == ['a "b" 7', "-", "ə", "ə", "-"]
    assert found.lengths[0] == 2.5
    assert "the tier 'phones' (1) was read; others: 'words' (--columns tier=NAME)" in "\n".join(found.notes)
    words = read_annotations(f"{tmp_path}:tier=words", source)
    assert names(words, 0, 1.0) == ["one"]
    assert not any("tier" in note for note in words.notes)


def test_textgrids_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(SHORT)
    (tmp_path / "b.TextGrid").write_text(SHORT[:150])
    (tmp_path / "c.TextGrid").write_bytes(b"ooBinaryFile\x08TextGrid")
    (tmp_path / "d.TextGrid").write_text(SHORT.replace('"phones"', '"x"').replace('"words"', '"y"'))
    source = videos("a.mp4", "b.mp4", "c.mp4", "d.mp4")
    found = read_annotations(f"{tmp_path}:tier=words", source)
    assert any("3 of 4 TextGrids are left out" in note and "without a tier 'words'" in note for note in found.notes)
    assert any("3 of 4 samples have no label inside" in note for note in found.notes)
    with pytest.raises(UserError, match=r"none of the 4 TextGrids .*without a tier 'tones'"):
        read_annotations(f"{tmp_path}:tier=tones", source)
    (tmp_path / "e.TextGrid").write_text(SHORT)
    with pytest.raises(UserError, match="1 paths that v does not have, for example 'e'"):
        read_annotations(tmp_path, source)
    with pytest.raises(UserError, match=r"may be that of 'e\.mp4' or of 'e\.wav'"):
        read_annotations(tmp_path, videos("a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "e.wav"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "A.TextGrid").write_text(SHORT)
    with pytest.raises(UserError, match=r"2 TextGrids for 'a\.mp4'"):
        read_annotations(tmp_path, videos("a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"))


def test_a_damaged_textgrid_is_broken_and_nothing_else(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "x.TextGrid"
    raw = LONG.encode()
    for number in range(100):
        cut = bytearray(raw[: rng.integers(len(raw))] if number % 2 else raw)
        for place in rng.integers(len(cut) or 1, size=rng.integers(6)) if cut else ():
            cut[place] = rng.integers(256)
        path.write_bytes(cut)
        try:
            grid = read_textgrid(os.fsencode(path))
        except Broken:
            continue
        assert all(np.isfinite(row[:2]).all() for tier in grid.tiers for row in tier.intervals)


def test_annotations_of_another_recording_are_left_out(tmp_path: Path) -> None:
    source = videos("a.mp4", "b.mp4", "c.mp4")
    path = table(tmp_path, "path,start,end,label\na.mp4,0,2.05,x\nb.mp4,1,7,y\nc.mp4,0,1,y\n")
    found = check_lengths(read_annotations(path, source), np.array([2.0, 5.0, np.nan]), source)
    assert (names(found, 0, 1), names(found, 1, 1), names(found, 2, 0)) == (["x"], ["-"], ["y"])
    assert "1 samples are annotated for another length" in found.notes[-1]
    assert "'b.mp4' is 5.00 s long, and annotated as if it were 7.00 s" in found.notes[-1]
    with pytest.raises(UserError, match="are the times in seconds, and of these files"):
        check_lengths(read_annotations(path, source), np.array([0.5, 0.5, 0.5]), source)
    (tmp_path / "g").mkdir()
    for name in "abc":
        (tmp_path / "g" / f"{name}.TextGrid").write_text(SHORT)
    found = check_lengths(read_annotations(tmp_path / "g", source), np.array([2.5, 2.52, 4.0]), source)
    assert [len(found.at(i, np.zeros(1))) and names(found, i, 0.1)[0] for i in range(3)] == ['a "b" 7'] * 2 + ["-"]


def test_sources_keep_what_is_inside_of_samples() -> None:
    source = Moving("moving:object", 6)
    assert source.frame_labels is not None
    taken = source.take(np.array([4, 1]))
    assert taken.frame_labels is not None
    for place, index in enumerate((4, 1)):
        scene, ids = source.scene(index), taken.frame_labels.at(place, np.arange(32) / 10)
        wanted = 2 * (scene.centre[0, :, 0] > 0.5) + (scene.centre[0, :, 1] > 0.5)
        assert np.array_equal(ids, wanted)
    assert taken.fingerprint() != source.fingerprint()
    assert Moving("moving", 2).frame_labels is None
    found = with_annotations(videos("a.mp4", "b.mp4"), source.take(np.arange(2)).frame_labels)
    kept = found.take(np.array([1]))
    assert np.array_equal(kept.frame_labels.at(0, np.zeros(1)), source.frame_labels.at(1, np.zeros(1)))  # type: ignore
    assert found.fingerprint() != videos("a.mp4", "b.mp4").fingerprint()
