"""`doctor`: what a bug report should say."""

import importlib.metadata as metadata
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import selfsup
from selfsup.cli import main
from selfsup.commands import doctor


def test_doctor_says_what_is_installed_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [
        "numpy>=1",
        "nothing-of-the-kind>=3; extra == 'odd'",
        "numpy>=999; extra == 'odd'",
        "torch; extra == 'own'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"]["own"] == []
    assert told["missing"]["odd"] == ["nothing-of-the-kind", f"numpy >=999 (here {metadata.version('numpy')})"]
    assert f"torch {metadata.version('torch')}" in told["about"]["packages"]
    assert "pip install 'selfsup[odd]'" in str(selfsup.doctor())


def test_doctor_finds_a_full_disk_and_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    problems = "\n".join(selfsup.doctor().problems)
    assert "set SELFSUP_CACHE" in problems
    assert "has only 0.0 GiB left" in problems


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"selfsup {selfsup.__version__}\n"
