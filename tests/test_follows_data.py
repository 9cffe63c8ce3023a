"""Defaults that follow the number of samples and steps, and the one line that says so."""

from pathlib import Path
from typing import Any

import pytest

import selfsup
from selfsup.tasks import find_task
from selfsup.tasks.resolve import resolve_task
from support.sources import images

GIVEN: dict[str, Any] = {"encoder": "convnet", "steps": 1, "size": 8, "recalibrate": False, "quiet": True}


@pytest.mark.parametrize(
    ("task", "option", "per"),
    [
        ("moco", "queue_size", 1),
        ("nnclr", "queue_size", 1),
        ("denseclr", "queue_size", 1),
        ("swav", "queue_size", 1),
        ("swav", "num_prototypes", 2),
        ("dino", "num_prototypes", 1),
        ("ibot", "num_prototypes", 1),
        ("dinov2", "num_prototypes", 1),
        ("deepcluster", "num_clusters", 2),
    ],
)
def test_what_counts_samples_is_their_number_by_how_many_each_should_have(task: str, option: str, per: int) -> None:
    default = find_task(task).hyperparameters()[option].default
    for count, wanted in ((1, 1), (7, 7 // per), (64, 64 // per), (default * per + 1, default)):
        source = images(64).take([i % 64 for i in range(count)])
        assert resolve_task(task, source, {})[2][option] == wanted
        if count > 1:
            assert resolve_task(task, source, {option: count})[2][option] == count, "a given one is what was given"


def told(capsys: pytest.CaptureFixture[str], tmp_path: Path, **given: Any) -> list[str]:
    """Return what is said of samples and steps."""
    capsys.readouterr()
    selfsup.pretrain(images(40), out=tmp_path / "run", **GIVEN | given)
    return [line for line in capsys.readouterr().err.splitlines() if " with 40 samples and 1 steps: " in line]


def test_one_line_says_what_follows_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, tmp_path, task="swav", num_prototypes=10) == [
        "swav with 40 samples and 1 steps: queue_size 40 (by default 1024), batch 40 (by default 128)"
    ]
    assert told(capsys, tmp_path, task="swav", num_prototypes=10) == [], "a finished run is not begun again"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"task": "byol"}, "byol with 40 samples and 1 steps: momentum 0.97 at first"),
        ({"task": "byol", "momentum": 0.9}, None),
        ({"task": "rotation"}, None),
        (
            {"task": "combined", "tasks": "rotation,moco"},
            "combined with 40 samples and 1 steps: moco.queue_size 40",
        ),
    ],
)
def test_what_was_given_and_what_is_as_usual_is_not_said(
    given: dict[str, Any], line: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, tmp_path, batch_size=16, **given) == ([line] if line else [])
