"""What a package consists of: one version, all files, and lists that agree with the code."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import selfsup
from selfsup.train.loggers import LOGGERS

ROOT = Path(__file__).parents[1]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_there_is_one_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1] == ABOUT["project"]["version"] == selfsup.__version__


def test_every_file_is_in_the_wheel() -> None:
    patterns = ABOUT["tool"]["setuptools"]["package-data"]["selfsup"]
    home = ROOT / "src" / "selfsup"
    kept = [path.relative_to(home) for path in home.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts]
    others = [path for path in kept if path.suffix != ".py"]
    assert others
    for path in others:
        assert any(fnmatch(str(path), pattern) for pattern in patterns), path
    packages = {path.parent for path in home.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in packages)


def test_every_logger_has_an_extra() -> None:
    extras = ABOUT["project"]["optional-dependencies"]
    for name, logger in LOGGERS.items():
        assert any(need.startswith(logger.module) for need in extras[name]), name


def test_every_extra_is_tested_alone() -> None:
    tested = re.search(r"extra: \[(.*)\]", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert tested
    assert tested[1].split(", ") == [name for name in ABOUT["project"]["optional-dependencies"] if name != "dev"]


def test_links_of_the_texts_beside_the_code() -> None:
    for name in ("llms.txt", "SECURITY.md", "CODE_OF_CONDUCT.md", "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", (ROOT / name).read_text()):
            assert (ROOT / link).exists(), f"{name}: {link}"


def test_the_workflows_test_every_python_that_is_promised() -> None:
    tested = re.search(r"python: \[(.*)\]", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert tested
    assert f'"{ABOUT["project"]["requires-python"].removeprefix(">=")}"' in tested[1]


def test_on_pypi_the_links_of_the_readme_lead_to_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from readme_links import absolute

    text = absolute((ROOT / "README.md").read_text(), "https://here/us", "v1")
    assert (
        "![Images, rotated, and what a trained encoder guesses](https://here/us/raw/v1/docs/gallery/rotation.webp)"
        in text
    )
    assert "[docs/data.md](https://here/us/blob/v1/docs/data.md)" in text
    assert all(link.startswith(("https://", "#")) for link in re.findall(r"\]\(([^)]+)\)", text))
    assert "tools/readme_links.py" in (ROOT / ".github" / "workflows" / "release.yml").read_text()
