"""The Python API: names, laziness, results that show themselves."""

import importlib
from pathlib import Path

import pytest

import selfsup
from selfsup.errors import UserError


def test_names_are_functions_whatever_was_imported_before() -> None:
    assert {"supervised", "rotation"} <= {entry.name for entry in selfsup.list_tasks()}
    importlib.import_module("selfsup.evaluation.few_labels")
    importlib.import_module("selfsup.tasks.image.rotation")
    assert selfsup.list_tasks("rotation").options["pad"] == 4
    assert all(callable(getattr(selfsup, name)) for name in selfsup.__all__)
    assert set(selfsup.__all__) <= set(dir(selfsup))


def test_results_print_and_render_in_a_notebook() -> None:
    text = str(selfsup.list_tasks())
    assert "rotation" in text
    assert "Gidaris" in text
    assert "Gidaris" in selfsup.list_tasks()._repr_mimebundle_((), ())["text/html"]
    assert "--flip" in str(selfsup.list_tasks("rotation"))


def test_show_with_a_run_adds_what_it_predicts(tmp_path: Path) -> None:
    run = selfsup.pretrain("digits", encoder="convnet", steps=3, pad=1, batch_size=32, out=tmp_path / "run", quiet=True)
    free = selfsup.show("rotation", "digits", pad=1, out=tmp_path / "free.png").path
    solved = selfsup.show("rotation", "digits", run=run.folder, out=tmp_path / "solved.png").path
    assert free.read_bytes() != solved.read_bytes()
    with pytest.raises(UserError, match="is a run of rotation, not of supervised"):
        selfsup.show("supervised", "digits", run=run.folder, out=tmp_path / "x.png")
    with pytest.raises(UserError, match="leave yours out"):
        selfsup.show("rotation", "digits", run=run.folder, pad=2, out=tmp_path / "x.png")
