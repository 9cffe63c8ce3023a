"""Broken images of every kind, in short; tests/torture/files.py makes thousands."""

from __future__ import annotations

from pathlib import Path

from torture.files import make, survive


def test_broken_images_are_named_once_with_their_reason(tmp_path: Path) -> None:
    make(tmp_path / "images", 60)
    (tmp_path / "images" / "ant" / "part0" / "wide.png").unlink()  # takes seconds to decode
    lines = survive(tmp_path, tmp_path / "images", ("read", "pretrain", "embed"))
    assert [[words for words in line["wrong"] if "grow" not in words] for line in lines] == [[], [], []]
    assert lines[0]["broken"] > 25
    found = set(lines[0]["reasons"])
    assert {"not an image", "empty file", "too many pixels", "too many scans", "missing file", "truncated"} <= found
    assert "not a regular file" in found
