"""What a run hands to Weights & Biases, MLflow, Trackio and TensorBoard: the lines of metrics.jsonl, resumed too."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

import selfsup
from selfsup.errors import UserError
from selfsup.train import loggers
from selfsup.train.loggers import LOGGERS, read_loggers

QUICK: dict[str, Any] = {"encoder": "convnet", "batch_size": 8, "steps": 4, "quiet": True}


class Kept:
    """A logger that keeps what it gets, and fails where it is told to."""

    made: ClassVar[list["Kept"]] = []

    def __init__(self, start: loggers.Start) -> None:
        if start.where == "closed":
            raise RuntimeError("no network\nand a page of reasons")
        self.start, self.lines, self.failed = start, [], None
        Kept.made.append(self)

    def write(self, step: int, numbers: loggers.Numbers) -> None:
        if self.start.where == "full" and step == 2:
            raise OSError("disk full")
        self.lines.append((step, dict(numbers)))

    def close(self, failed: bool) -> None:
        self.failed = failed


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    monkeypatch.setattr(Kept, "made", [])
    monkeypatch.setitem(LOGGERS, "kept", loggers._Known(Kept, "json", "PROJECT"))
    return Kept


def test_loggers_get_the_lines_of_metrics_and_a_resumed_run_goes_on(kept: type[Kept], tmp_path: Path) -> None:
    run = selfsup.pretrain("digits", **QUICK, until=2, log="kept:a, kept:b", out=tmp_path / "run")
    selfsup.pretrain("digits", **QUICK, log="kept:a,kept:b", out=run.folder)
    first, other, second, _ = kept.made
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    got = [{"step": step} | numbers for one in (first, second) for step, numbers in one.lines]
    assert [[line[key] for key in ("step", "chance", "health")] for line in lines] == [
        [line["step"], round(line["chance"], 6), line["health"]] for line in got
    ]
    assert first.start.id == second.start.id != other.start.id
    assert [first.start.step, second.start.step] == [1, 3]
    assert first.start.recipe["task"]["name"] == "rotation"
    assert not list(run.folder.glob("events*")), "only what was asked for"


def test_a_logger_that_fails_is_said_once_and_the_run_goes_on(
    kept: type[Kept], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = selfsup.pretrain("digits", **QUICK, log="kept:closed,kept:full,kept:fine", out=tmp_path / "run")
    assert run.done
    full, fine = kept.made
    assert [step for step, _ in full.lines] == [1]
    assert [step for step, _ in fine.lines] == [1, 2, 3, 4]
    assert fine.failed is False
    said = capsys.readouterr().err
    assert said.count("--log kept:closed failed and is left out") == 1
    assert said.count("--log kept:full failed and is left out") == 1
    assert "no network" in said
    assert "page of reasons" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wandbb:p", "unknown logger 'wandbb'; did you mean 'wandb'"),
        ("wandb", "give wandb:PROJECT"),
        ("mlflow:", "give mlflow:EXPERIMENT"),
        ("tensorboard:x", "give tensorboard"),
        ("gone:x", "this needs no_such_package: pip install 'selfsup\\[gone\\]'"),
    ],
)
def test_what_cannot_be_logged_to_is_refused(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOGGERS, "gone", loggers._Known(Kept, "no_such_package", "PROJECT"))
    with pytest.raises(UserError, match=message):
        read_loggers(text)


def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_loggers("none") == ()
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert read_loggers(None) == ()
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    assert read_loggers(None) == ("tensorboard",)


WRITE = """
import json, sys
from pathlib import Path
from selfsup.train.loggers import Loggers
for start, steps in ((1, (1, 2)), (3, (3, 4))):
    log = Loggers([sys.argv[1]], Path("run"), start)
    for step in steps:
        log.write(step, {"loss": 1.0 / step, "chance": None, "health": "healthy"})
    assert log.open, "it failed"
    log.close(False)
"""
READ = {
    "wandb:shop": (
        "import json; from pathlib import Path;"
        "own = json.loads(Path('run/loggers.json').read_text())['wandb:shop'];"
        "ids = {path.name.rpartition('-')[2] for path in Path('wandb').glob('offline-run-*')}; assert ids == {own}, ids"
    ),
    "mlflow:shop": (
        "import mlflow; client = mlflow.MlflowClient();"
        "(run,) = client.search_runs([client.get_experiment_by_name('shop').experiment_id]);"
        "got = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, 'loss')];"
        "assert got == [(step, 1 / step) for step in (1, 2, 3, 4)], got; assert run.info.status == 'FINISHED';"
        "assert run.data.params['task.name'] == 'rotation'"
    ),
    "trackio:shop": (
        "import trackio; from trackio.sqlite_storage import SQLiteStorage; (run,) = trackio.Api().runs('shop');"
        "got = [(row['step'], row['loss']) for row in SQLiteStorage.get_logs('shop', run.name)];"
        "assert got == [(step, 1 / step) for step in (1, 2, 3, 4)], got"
    ),
}


@pytest.mark.parametrize("given", READ)
def test_the_real_library_offline(given: str, tmp_path: Path) -> None:
    """In a process of its own: these libraries keep threads and folders."""
    name = given.partition(":")[0]
    pytest.importorskip(name, reason=f"pip install 'selfsup[{name}]'")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({"task": {"name": "rotation"}}))
    home = {
        "WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(selfsup.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    for code in (WRITE, READ[given]):
        done = subprocess.run(
            [sys.executable, "-c", code, given], cwd=tmp_path, env=home, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
