"""The Python API: names, laziness, results that show themselves."""

import importlib

import selfsup


def test_names_are_functions_whatever_was_imported_before() -> None:
    assert {"supervised", "rotation"} <= {entry.name for entry in selfsup.tasks()}
    importlib.import_module("selfsup.evaluation.few_labels")
    importlib.import_module("selfsup.tasks.image.rotation")
    assert selfsup.tasks("rotation").options["pad"] == 4
    assert all(callable(getattr(selfsup, name)) for name in selfsup.__all__)
    assert set(selfsup.__all__) <= set(dir(selfsup))


def test_results_print_and_render_in_a_notebook() -> None:
    text = str(selfsup.tasks())
    assert "rotation" in text
    assert "Gidaris" in text
    assert "Gidaris" in selfsup.tasks()._repr_mimebundle_((), ())["text/html"]
    assert "--flip" in str(selfsup.tasks("rotation"))
