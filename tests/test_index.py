"""The index of a folder with many files: the same paths as a walk, whatever changed since it was kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from selfsup.data import index
from selfsup.data.image.decode import SUFFIXES
from selfsup.data.index import find_files
from selfsup.data.open import open_data

Change = tuple[str, object]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of three levels whose index is kept however small it is."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "WORTH", 1)
    monkeypatch.setattr(index, "SETTLED", -1)
    for name in ("z.png", "a/1.png", "a/2.jpg", "a/b/c.png", "b/3.png", "c/deep/er/4.png", "c/deep.jpg/5.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"")
    return tmp_path / "data"


def walked(root: Path) -> list[str]:
    """Return what `find_files` promises, by other means."""
    found = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        some = (name for name in sorted(names) if os.path.splitext(name)[1] in SUFFIXES and not name.startswith("."))
        found += [os.path.relpath(os.path.join(folder, name), root) for name in some]
    return found


def indexed(root: Path) -> list[str]:
    return [os.fsdecode(path) for path in find_files(str(root), SUFFIXES).to_pylist()]


def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each folder that is listed."""
    names: list[str] = []
    scandir = os.scandir

    def noting(path: bytes) -> object:
        names.append(os.path.basename(os.fsdecode(path)))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noting)
    return names


def test_a_second_start_lists_no_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert indexed(root) == walked(root)
    first = open_data(root)
    names = listed(monkeypatch)
    again = open_data(root)
    assert names == []
    assert [again.path(i) for i in range(len(again))] == walked(root)
    assert again.fingerprint() == first.fingerprint()


CHANGES = {
    "added": lambda root: (root / "a" / "new.png").write_bytes(b""),
    "removed": lambda root: (root / "a" / "1.png").unlink(),
    "renamed": lambda root: (root / "a" / "b" / "c.png").rename(root / "a" / "b" / "d.png"),
    "moved": lambda root: (root / "a" / "1.png").rename(root / "b" / "1.png"),
    "folder added": lambda root: (
        (root / "b" / "x" / "y").mkdir(parents=True),
        (root / "b/x/y/6.png").write_bytes(b""),
    ),
    "folder removed": lambda root: ((root / "a/b/c.png").unlink(), (root / "a" / "b").rmdir()),
    "folder renamed": lambda root: (root / "c" / "deep").rename(root / "c" / "deeper"),
    "folder replaced": lambda root: (
        (root / "b").rename(root.parent / "old"),
        (root / "c").rename(root / "b"),
        (root.parent / "old").rename(root / "c"),
    ),
    "a file where a folder was": lambda root: (
        (root / "c/deep.jpg/5.png").unlink(),
        (root / "c/deep.jpg").rmdir(),
        (root / "c/deep.jpg").write_bytes(b""),
    ),
    "given an old time": lambda root: ((root / "b" / "8.png").write_bytes(b""), os.utime(root / "b", (1, 1))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_noticed(root: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = indexed(root)
    time.sleep(0.02)  # more than the step of a file system's clock
    CHANGES[change](root)
    names = listed(monkeypatch)
    found = indexed(root)
    assert len(names) <= 6, "more than the changed folders was listed"
    monkeypatch.undo()
    monkeypatch.setenv("SELFSUP_CACHE", str(root.parent / "cache"))
    assert found == walked(root)
    assert found != before or change == "given an old time"


def test_a_folder_that_has_just_changed_is_listed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SETTLED", 10**9)
    stats = os.stat(root / "a")
    indexed(root)
    (root / "a" / "new.png").write_bytes(b"")
    real = os.stat

    def coarse(path: object, **options: object) -> object:  # a clock of a file system that has not moved on
        return stats if str(path).rstrip("'").endswith("/a") else real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", coarse)
    assert "a/new.png" in indexed(root)


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone", "folder"])
def test_a_damaged_index_is_not_used(root: Path, damage: str) -> None:
    expected = indexed(root)
    (path,) = (root.parent / "cache" / "index").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"bit": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    assert indexed(root) == expected
    assert damage == "folder" or indexed(root) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "file").write_text("")
    monkeypatch.setenv("SELFSUP_CACHE", str(root.parent / "file" / "cache"))
    assert indexed(root) == walked(root)


def test_few_files_leave_nothing_in_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH", 100)
    assert indexed(root) == walked(root)
    assert not (root.parent / "cache").exists()


def test_loops_and_depth(root: Path) -> None:
    (root / "a" / "loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "folder.png").symlink_to(root / "a")
    deep = root
    for _ in range(600):  # deeper than a recursive walk gets
        deep /= "d"
        deep.mkdir()
    assert "self.png" in indexed(root)
    assert not {path for path in indexed(root) if "loop" in path or "folder.png" in path}
