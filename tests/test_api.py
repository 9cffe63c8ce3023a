"""The Python API: names, laziness, results that show themselves."""

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import selfsup
from selfsup.base.printing import Printable
from selfsup.errors import UserError

QUICK: dict[str, Any] = {"batch_size": 16, "steps": 4, "quiet": True}
X = (np.random.default_rng(0).random((40, 16, 16, 3)) * 255).astype(np.uint8)
Y = np.arange(40) % 2


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    """Return a run whose encoder was a module."""
    return selfsup.pretrain(X, encoder=net(), out=tmp_path_factory.mktemp("own") / "run", **QUICK)


def test_names_are_functions_whatever_was_imported_before() -> None:
    assert {"supervised", "rotation"} <= {entry.name for entry in selfsup.list_tasks()}
    importlib.import_module("selfsup.evaluation.few_labels")
    importlib.import_module("selfsup.tasks.image.rotation")
    assert selfsup.list_tasks("rotation").options["pad"].default == 4
    assert all(callable(getattr(selfsup, name)) for name in selfsup.__all__)
    assert set(selfsup.__all__) <= set(dir(selfsup))


def test_results_print_and_render_in_a_notebook() -> None:
    text = str(selfsup.list_tasks())
    assert "rotation" in text
    assert "rotation" in selfsup.list_tasks()._repr_mimebundle_((), ())["text/html"]
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


def test_a_module_of_ones_own_is_an_encoder(own: selfsup.Run, tmp_path: Path) -> None:
    module = net()
    folder = tmp_path / "run"
    selfsup.pretrain(X, encoder=module, until=2, out=folder, **QUICK)
    again = selfsup.pretrain(X, encoder=net(), out=folder, **QUICK)
    assert again.weights_digest() == own.weights_digest(), "resumed as it was never stopped"
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), net().parameters(), strict=True)), (
        "a copy learns"
    )
    loaded = selfsup.load(folder, encoder=net(1))
    assert type(loaded) is nn.Sequential
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(x), selfsup.load(own)(x))
    with pytest.raises(UserError, match=r"a module of your own .*Sequential.*, which only you can give: in Python"):
        selfsup.embed(folder, X, out=tmp_path / "e.parquet")
    with pytest.raises(UserError, match="make the module with the same weights"):
        selfsup.pretrain(X, encoder=net(1), out=folder, **QUICK)
    whole = selfsup.Run(folder, encoder=net(1))
    result = selfsup.evaluate(whole, data=X, labels=Y, shots="5", protocol="linear", draws=2, scratch=False, quiet=True)
    assert {"rotation", "frozen start"} <= {score.representation for score in result.scores}
    assert selfsup.pretrain(X, init=whole, out=tmp_path / "further", **QUICK).done


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(3, 2), r"encoder Linear cannot take 16 × 16 pixels.*: mat1 and mat2"),
        (nn.Conv2d(3, 4, 3), r"of \(2, 3, 16, 16\) it makes torch.float32 \(2, 4, 14, 14\): pool and flatten"),
    ],
)
def test_a_module_that_is_no_encoder_is_one_line(module: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        selfsup.pretrain(X, encoder=module, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_named_encoder_takes_no_module(finished_run: Path) -> None:
    with pytest.raises(UserError, match="open it without encoder="):
        selfsup.Run(finished_run, encoder=net())


def test_on_log_gets_what_metrics_has(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    run = selfsup.pretrain(X, encoder=net(), out=tmp_path / "run", on_log=heard.append, **QUICK)
    lines = run.metrics()
    lines = lines.to_dict("records") if hasattr(lines, "to_dict") else lines
    assert [line["step"] for line in heard] == [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [round(line["loss"], 6) for line in heard] == [line["loss"] for line in lines]

    def stop(line: dict[str, Any]) -> None:
        raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough"):
        selfsup.pretrain(X, encoder=net(), out=tmp_path / "stopped", on_log=stop, **QUICK)


def test_labels_of_python_are_part_of_the_recipe(tmp_path: Path) -> None:
    def train(labels: Any) -> selfsup.Run:
        return selfsup.pretrain(X, task="supervised", labels=labels, encoder=net(), out=tmp_path / "run", **QUICK)

    assert train(Y).recipe["data"]["labels"].startswith("given in Python, ")
    assert train(Y.tolist()).done
    with pytest.raises(UserError, match=r"data\.labels"):
        train(1 - Y)


def test_notes_are_warnings_of_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "selfsup"):
        selfsup.open_data(torch.zeros(4, 3, 8, 8))
    assert [(record.name, record.levelname) for record in caplog.records] == [("selfsup", "WARNING")]
    assert "(N, C, H, W)" in caplog.text


def test_a_figure_shows_itself_in_a_notebook(own: selfsup.Run) -> None:
    result = selfsup.evaluate(
        own, data=X, labels=Y, shots="2,all", protocol="linear", draws=2, scratch=False, quiet=True
    )
    assert result.plot()._repr_png_().startswith(b"\x89PNG")


def test_what_python_shows_of_a_result_and_of_data_is_short(own: selfsup.Run) -> None:
    result = selfsup.evaluate(own, data=X, labels=Y, shots="2", protocol="linear", draws=2, scratch=False, quiet=True)
    assert repr(result) == str(result)
    assert "labels per class" in repr(result)
    assert repr(own).startswith("Run(")
    assert repr(selfsup.open_data("digits")) == "Arrays('digits': 1,797 samples, 10 classes)"
    for kind in ("moving", "dot", "melody:voice"):
        assert repr(selfsup.open_data(kind)).startswith(f"{kind.partition(':')[0].capitalize()}('{kind}': ")
    kinds = [Printable]
    for one in kinds:
        kinds += one.__subclasses__()
        assert not hasattr(one.__repr__, "__wrapped__"), f"a dataclass makes the repr of {one.__name__}"
