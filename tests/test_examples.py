"""The examples and the worked example of CONTRIBUTING.md run as they stand."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import selfsup
from selfsup.cli import main

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selfsup.pretraining._steps", lambda *_: 3)  # what it learns is not the question
    few = selfsup.open_data("digits").take(np.arange(400))
    monkeypatch.setattr("selfsup.data.open._digits", lambda: few)
    runpy.run_path(str(path), run_name="__main__")


def test_the_worked_example_is_a_task_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert code
    assert code[1].count("\n") <= 36, "30 lines and the imports"
    monkeypatch.chdir(tmp_path)
    Path("mirror.py").write_text(code[1])
    assert main(["show", "mirror:Mirror", "digits", "-o", "mirror.png"]) == 0
    assert Path("mirror.png").stat().st_size > 1000
    words = "pretrain digits --task mirror:Mirror --encoder convnet --steps 3 --hidden-dim 16 --batch-size 32 --quiet"
    assert main(words.split()) == 0
    assert main(["embed", "runs/Mirror-convnet", "digits", "-o", "e.parquet"]) == 0
    capsys.readouterr()
    assert main([*words.split(), "--hiden-dim", "3"]) == 2
    assert "did you mean '--hidden-dim'?" in capsys.readouterr().err
