"""What a machine does to a run: no memory, a device or a worker that is gone, a clock that is set back."""

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.errors import RunFailed
from selfsup.tasks.image.rotation import Rotation
from selfsup.train import fit
from selfsup.train.log import Log, Skipped
from selfsup.views.image import ImageViews
from support.sources import noise

WORDS = "digits --encoder convnet --steps 6 --batch-size 32 --quiet --out"


@pytest.fixture(autouse=True)
def save_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit, "SAVE_SHARE", 1000.0)


def fail_when(monkeypatch: pytest.MonkeyPatch, error: Exception, samples: int, progress: float = 0.5) -> None:
    """Raise the error in steps from `progress` on whose batch has that many samples or more."""
    loss = Rotation.loss

    def failing(task, batch):
        if len(batch["x"]) >= samples and task.progress >= progress:
            raise error
        return loss(task, batch)

    monkeypatch.setattr(Rotation, "loss", failing)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("Unable to allocate 3 GiB"),
    ],
)
def test_out_of_memory_names_the_number_of_samples_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    fail_when(monkeypatch, error, samples=9)
    assert main(["pretrain", *WORDS.split(), str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said == (
        "selfsup: out of memory with 32 samples at once after step 3 of 6; the checkpoint of step 3 is intact; "
        "8 fit: give --micro-batch 8, or --batch-size 8, and another --out\n"
    )


def test_out_of_memory_where_nothing_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_when(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), samples=1, progress=0)
    with pytest.raises(RunFailed, match=r"step 0 of 6; nothing was saved; not even 2 .*: give a smaller --encoder"):
        selfsup.pretrain("digits", encoder="convnet", steps=6, batch_size=32, out=tmp_path / "run", quiet=True)


def test_a_device_that_disappears_leaves_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", *WORDS.split()]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        fail_when(patch, RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`"), 1)
        assert main([*words, str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == (
        "selfsup: the device failed after step 3 of 6; the checkpoint of step 3 is intact; run the same command "
        "to resume: CUDA error: unspecified launch failure\n"
    )
    assert main([*words, str(tmp_path / "run")]) == 0
    files = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("whole", "run")]
    assert files[0] == files[1]


def test_an_error_of_the_program_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_when(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), samples=1)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        main(["pretrain", *WORDS.split(), str(tmp_path / "run")])


def test_memory_that_runs_out_elsewhere_is_one_line(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr("selfsup.evaluation.features.feature_batches", fail)
    assert main(["embed", str(finished_run), "digits", "-o", str(tmp_path / "e.parquet"), "--quiet"]) == 1
    assert capsys.readouterr().err == "selfsup: no memory left: CUDA out of memory. Tried to allocate 2 GiB\n"


def test_a_worker_that_fails_ends_the_run_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = ImageViews.fetch

    def failing(views, source, rows, seed, epoch):
        if 50 in rows:
            raise MemoryError("no room for sample 50")
        return fetch(views, source, rows, seed, epoch)

    monkeypatch.setattr(ImageViews, "fetch", failing)
    with pytest.raises(RunFailed, match=r"making the batch of step \d+ failed: MemoryError: no room for sample 50"):
        selfsup.pretrain(noise(), encoder="convnet", steps=8, batch_size=8, workers=2, out=tmp_path / "r", quiet=True)


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"encoder": "convnet", "steps": 4, "batch_size": 16, "quiet": True}
    whole = selfsup.pretrain("digits", **options, out=tmp_path / "whole")
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600 * next(hours))
    run = selfsup.pretrain("digits", **options, out=tmp_path / "run")
    assert run.weights_digest() == whole.weights_digest()
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert (run.folder / "checkpoint" / "latest.safetensors").exists()


def test_lines_that_a_kill_cut_off(tmp_path: Path) -> None:
    metrics, skipped = tmp_path / "metrics.jsonl", tmp_path / "skipped.jsonl"
    metrics.write_text('{"step": 1, "loss": 2.0}\n5\n{"step": 2, "lo')
    skipped.write_text('{"path": "a.png", "reason": "empty"}\n{"path": "b.p')
    source = Arrays(np.zeros((8, 12, 12, 1), np.uint8))
    with Log(tmp_path, 1) as log:
        log.write({"step": 2, "loss": 1.5})
    noted, beside = Skipped(source, tmp_path), Skipped(source, tmp_path)
    for process in (noted, beside):
        process.add([(3, "not an image")])
    beside.add([(4, "empty")])
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 2]
    named = ["a.png", source.path(3), source.path(4)]
    assert [json.loads(line)["path"] for line in skipped.read_text().splitlines()] == named
    assert list(Skipped(source, tmp_path).reasons) == named


def test_tensorboard_reads_the_events_and_forgets_the_steps_that_come_again(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps, now in ((0, (1, 2, 3), 1.0), (1, (2, 3, 4), 2.0)):
        with Log(tmp_path, start) as log:
            for step in steps:
                log.write({"step": step, "loss": now, "health": "healthy"})
        first = next(iter(tmp_path.glob("events*0")), None)
        for path in tmp_path.glob("events*"):
            if path != first:
                path.rename(tmp_path / f"events.out.tfevents.{int(now):010d}.host.0")
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "LINES", 3)
    run = selfsup.pretrain("digits", encoder="convnet", steps=8, batch_size=8, out=tmp_path / "run", quiet=True)
    steps = [json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 8], "though a checkpoint is written after each step"
