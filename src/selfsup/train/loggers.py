"""Where the numbers of a run go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from selfsup.base.nested import flat
from selfsup.base.notes import say
from selfsup.base.options import names_in
from selfsup.base.writing import Appended, write_atomically
from selfsup.errors import UserError, need, unknown

IDS = "loggers.json"  # in a run folder: the names that its run has elsewhere, by which it goes on there
Numbers = Mapping[str, int | float | str | None]


class Logger(Protocol):
    """A place that takes the numbers of one run; whatever it raises is said once, and the run goes on without it."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Take what a line of metrics.jsonl has, but for its step."""

    def close(self, failed: bool) -> None:
        """End: the run has, or was stopped or `failed`."""


class Start(NamedTuple):
    """What a logger is opened with."""

    folder: Path  # of the run
    step: int  # that comes first: later ones that are there already come again
    id: str  # unique, the same each time the run is resumed
    where: str  # project or experiment
    recipe: Mapping[str, Any]


class TensorBoard:
    """TensorBoard's file of numbers by step; those of an earlier file from the first step on are void.

    Written at once and without a thread, so that an error surfaces where it occurs.
    """

    def __init__(self, start: Start) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self.file = Appended(start.folder / name)
        self.records = RecordWriter(self.file)
        self._add(file_version="brain.Event:2")
        self._add(step=start.step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def write(self, step: int, numbers: Numbers) -> None:
        """Write the numbers of a step."""
        values = [self.summary.Value(tag=name, simple_value=number) for name, number in _floats(numbers).items()]
        self._add(step=step, summary=self.summary(value=values))

    def close(self, failed: bool) -> None:
        """Close the file."""
        self.file.close()

    def _add(self, **content: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())


class WandB:
    """A run of Weights & Biases; offline with WANDB_MODE=offline."""

    def __init__(self, start: Start) -> None:
        import wandb

        self.run: Any = wandb.init(
            project=start.where, name=start.folder.name, id=start.id, resume="allow", config=dict(start.recipe),
            reinit="create_new", settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip

    def write(self, step: int, numbers: Numbers) -> None:
        """Log the numbers of a step."""
        self.run.log(dict(numbers), step=step)

    def close(self, failed: bool) -> None:
        """Finish the run."""
        self.run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self, start: Start) -> None:
        import mlflow

        self.client = mlflow.MlflowClient()
        experiment = self.client.get_experiment_by_name(start.where)
        number = experiment.experiment_id if experiment else self.client.create_experiment(start.where)
        # its ids are its own: the run is found again by a tag
        found = self.client.search_runs([number], f"tags.`selfsup.id` = '{start.id}'", max_results=1)
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, "RUNNING")
        else:
            made = self.client.create_run(number, run_name=start.folder.name, tags={"selfsup.id": start.id})
            self.id = made.info.run_id
            for key, value in flat(start.recipe):
                self.client.log_param(self.id, key, str(value)[:500])

    def write(self, step: int, numbers: Numbers) -> None:
        """Log the numbers of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(name, value, now, step) for name, value in _floats(numbers).items()])

    def close(self, failed: bool) -> None:
        """End the run."""
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


class Trackio:
    """A run of Trackio, on this machine."""

    def __init__(self, start: Start) -> None:
        import trackio

        self.run: Any = trackio.init(
            start.where, name=f"{start.folder.name}-{start.id}", config=dict(start.recipe), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def write(self, step: int, numbers: Numbers) -> None:
        """Log the numbers of a step."""
        self.run.log(dict(numbers), step=step)

    def close(self, failed: bool) -> None:
        """Finish the run."""
        self.run.finish()


class _Known(NamedTuple):
    opened: type[Any]
    module: str
    where: str  # what stands behind the colon; "" where nothing does


LOGGERS = {
    "tensorboard": _Known(TensorBoard, "tensorboard", ""),
    "wandb": _Known(WandB, "wandb", "PROJECT"),
    "mlflow": _Known(MLflow, "mlflow", "EXPERIMENT"),
    "trackio": _Known(Trackio, "trackio", "PROJECT"),
}


def read_loggers(text: str | None) -> tuple[str, ...]:
    """Return the loggers of `--log`, in the form NAME or NAME:WHERE; TensorBoard by default, where it is installed.

    Raises:
        UserError: one that is not known, that lacks its project, or whose package is not installed.
    """
    if text is None:
        return ("tensorboard",) if find_spec("tensorboard") else ()
    names = tuple(dict.fromkeys(names_in(text)))
    if names == ("none",):
        return ()
    for given in names:
        name, colon, where = given.partition(":")
        if name not in LOGGERS:
            raise unknown("logger", name, [*LOGGERS, "none"])
        wanted = f"{name}:{LOGGERS[name].where}" if LOGGERS[name].where else name
        if bool(where) != bool(LOGGERS[name].where) or (colon and not where):
            raise UserError(f"--log {given}: give {wanted}")
        need(LOGGERS[name].module, name)
    return names


class Loggers:
    """The loggers of a run. One that fails is said once and left out: metrics.jsonl has all that it would get."""

    def __init__(self, names: Sequence[str], folder: Path, step: int) -> None:
        self.open: dict[str, Logger] = {}
        recipe = _json(folder / "recipe.json")
        for given in names:
            name, _, where = given.partition(":")
            id = _id(folder, given) if where else ""
            try:
                self.open[given] = LOGGERS[name].opened(Start(folder, step, id, where, recipe))
            except Exception as error:  # it may raise anything
                self._failed(given, error)

    def write(self, step: int, numbers: Numbers) -> None:
        """Hand the numbers of a step to each."""
        for given, logger in list(self.open.items()):
            try:
                logger.write(step, numbers)
            except Exception as error:
                del self.open[given]
                self._failed(given, error)

    def close(self, failed: bool) -> None:
        """End each."""
        for given, logger in self.open.items():
            try:
                logger.close(failed)
            except Exception as error:
                self._failed(given, error)

    def _failed(self, given: str, error: Exception) -> None:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        say(f"--log {given} failed and is left out, the run goes on; metrics.jsonl has its numbers: {reason[:200]}")


def _id(folder: Path, given: str) -> str:
    """Return the name that the run has in a logger, the one of before if it is resumed."""
    known = _json(folder / IDS)
    if not isinstance(known.get(given), str) or not known[given].isalnum():
        known[given] = uuid.uuid4().hex[:12]
        write_atomically(folder / IDS, json.dumps(known, indent=2).encode())
    return known[given]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _floats(numbers: Numbers) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if isinstance(value, float)}
