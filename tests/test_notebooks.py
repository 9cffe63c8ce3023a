"""The notebooks are valid, hold no output, install what they need, and run from top to bottom, here on small data.

The code cells are executed in order in one namespace, without a kernel; magics are left out, settings become small.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import selfsup

HOME = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(HOME.glob("*.ipynb"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the settings of all notebooks, as code, for small data."""
    folder = tmp_path_factory.mktemp("digits")
    source = selfsup.open_data("digits")
    assert source.labels is not None
    for name, rows in {"train": range(100), "test": range(100, 140)}.items():
        np.savez(folder / f"{name}.npz", x=np.stack([source.read(i) for i in rows]), y=source.labels.ids[list(rows)])
    return {
        "DATA": repr(str(folder / "train.npz")), "TEST": repr(str(folder / "test.npz")), "STAND_IN": "'digits'",
        "COUNT": "80", "EPOCHS": "1", "ASK": "12", "DRAWS": "2", "SHOTS": "'1,2'", "STEPS": "3", "BATCH": "8",
        "AGENT_STEPS": "8", "ENCODER_STEPS": "2", "EPISODES": "2", "OBSERVED": "'20'",
    }  # fmt: skip


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "a_new_task", "control", "few_labels_read_aright", "own_folder_to_labels",
    ]  # fmt: skip
    named = (HOME.parent / "docs" / "howto" / "notebooks.md").read_text()
    assert all(path.name in named for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_holds_no_output(path: Path) -> None:
    told = json.loads(path.read_text())
    assert (told["nbformat"], told["nbformat_minor"]) == (4, 5)
    assert told["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in told["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]{1,64}", one) for one in ids)
    for cell in told["cells"]:
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert cells(path, "markdown")[0].startswith("# ")
    assert cells(path, "code")[0].startswith('%pip install -q "selfsup[')


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    path: Path, small: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas", reason="the notebooks show data frames")
    if path.stem == "control":
        pytest.importorskip("stable_baselines3", reason="an agent learns: pip install 'selfsup[control]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selfsup.pretraining._steps", lambda *_: 3)
    monkeypatch.setattr("selfsup.data.trajectory.dot.COUNT", {False: 12, True: 6})
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(cells(path, "code")):
        lines = [line for line in code.splitlines() if not line.startswith(("%", "!"))]
        lines = [
            re.sub(r"^([A-Z_]+) = .*", lambda m: f"{m[1]} = {small.get(m[1], m[0].partition(' = ')[2])}", one)
            for one in lines
        ]
        tree = ast.parse("\n".join(lines))
        exec(compile(tree, f"{path.name}, cell {number}", "exec"), names)
