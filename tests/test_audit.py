"""The shortcut audit: what it finds, what it says, and that its counter-measures work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.errors import UserError
from selfsup.shortcuts import together, trial
from selfsup.shortcuts.clip_cues import CLIP_CUES
from selfsup.shortcuts.cues import BLIND, CUES, ShortcutProbe, nothing
from selfsup.shortcuts.result import Audit, Row, options
from selfsup.shortcuts.sound_cues import SOUND_CUES
from selfsup.shortcuts.together import Answers, Together, split
from selfsup.shortcuts.trial import Trial
from selfsup.source import Labels
from selfsup.spec import ImageSpec
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.image.rotation import Rotation
from selfsup.views.image import Crop, draw
from selfsup.views.image import views as image_views
from support import injections
from support.audits import learned_or_refused, shorten
from support.tasks import REQUIRED

SPEC = ImageSpec.of(24, 3)


@pytest.fixture(scope="module")
def barred() -> Arrays:
    """Textures with a black bar at the bottom, which tells how they were rotated."""
    x = injections.textures(192, 24)
    x[:, -3:] = 0
    return Arrays(x, name="barred")


@pytest.fixture
def twenty_steps_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.mark.parametrize("name", [*CUES, "nothing"])
@pytest.mark.parametrize("size", [8, 13, 40])
def test_a_cue_is_a_vector_whatever_the_size(name: str, size: int) -> None:
    see = CUES[name].see if name in CUES else nothing
    x = torch.randn(5, 3, size, size)
    found = see(x)
    assert found.shape == (5, see(torch.zeros(1, 3, 32, 32)).shape[1])
    assert found.isfinite().all()
    assert see(torch.zeros(2, 3, size, size)).isfinite().all()
    torch.testing.assert_close(see(x[2:3]), found[2:3])  # of each patch alone
    probe = ShortcutProbe(see, SPEC)
    assert probe(x[..., :5, :5]).shape == (5, probe.dim)
    assert probe.maps(x).shape == (5, probe.dim, size // 4, size // 4)


def test_cues_measure_what_they_are_named_for() -> None:
    edges = torch.randn(64, 1, 24, 24).cumsum(3)
    shifted = torch.cat([edges[..., 1:-1], edges[..., :-2], edges[..., 2:]], 1)[:, :, 1:-1]
    found = CUES["aberration"].see(shifted).view(64, 5, 5, 2).mean(0)
    assert found[..., 0].argmax() == 2 * 5 + 1  # red lies one pixel to the left of green
    assert found[..., 1].argmax() == 2 * 5 + 0  # and blue another one
    blocks = torch.kron(torch.randn(64, 3, 3, 3), torch.ones(8, 8)) + 0.01 * torch.randn(64, 3, 24, 24)
    assert (CUES["residual"].see(blocks)[:, :16].reshape(-1, 8).argmax(1) == 7).float().mean() > 0.9
    framed = torch.randn(64, 3, 24, 24)
    framed[:, :, :2] = -1
    flat = CUES["border"].see(framed).view(64, 4, 4).mean(0)  # lines from the border inwards, sides
    assert flat[:2, 0].max() < flat[2:].min() - 1
    assert flat[:, 1:].min() > flat[:2, 0].max() + 1


def test_copies_that_learn_together_learn_as_if_alone(barred: Arrays) -> None:
    batch = {"x": torch.randn(16, 3, 24, 24)}
    tasks = {}
    for name in ("rim", "colours"):
        torch.manual_seed(0)
        tasks[name] = Rotation(ShortcutProbe(CUES[name].see, SPEC), hidden_dim=16)
    Together(tasks).loss(batch).value.backward()
    for task in tasks.values():
        gradients = [p.grad.clone() for p in task.parameters()]
        task.zero_grad()
        task.loss(batch).value.backward()
        for gradient, parameter in zip(gradients, task.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad)


def test_what_is_held_out_was_not_learnt() -> None:
    learn, held = split(100, 3)
    assert sorted([*learn, *held]) == list(range(100))
    assert len(held) == 25


@pytest.mark.usefixtures("twenty_steps_are_enough")
def test_the_finding_in_words_json_and_a_image(
    barred: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "barred.npz", x=barred.x)
    args = ["audit", "rotation", str(tmp_path / "barred.npz"), "--steps", "30", "--pad", "0", "--flip", "0"]
    assert main([*args, "--cues", "colours,border", "--out", str(tmp_path / "a.png"), "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["cue"]: row for row in found["rows"]}
    assert rows["border"]["verdict"] == "shortcut"
    assert rows["border"]["score"] - rows["border"]["half"] > 0.5
    assert found["finding"] == "shortcut"
    assert found["settled_by"] == ""
    assert rows["colours"]["verdict"] == "no"
    assert abs(rows["colours"]["score"] - 0.25) <= rows["colours"]["half"] + 1e-9
    assert found["chance"] == pytest.approx(0.25)
    assert found["metric"] == "accuracy"
    assert found["held_out"] == 48
    assert found["verdict"].startswith("border (flat lines along the border, as of frames): ")
    assert "No option of rotation counters it" in found["verdict"]
    assert Path(found["image"]).read_bytes()[:4] == b"\x89PNG"


def test_parts_that_agree_by_chance_prove_nothing() -> None:
    scores = {"same": np.full(5, 0.011), "right": np.full(5, 0.6), "none": np.zeros(5)}
    answers = Answers(scores, "accuracy", 0.01, puzzles=460)
    same, right, none = (answers.gain(name, answers.blind) for name in scores)
    assert same.mean < same.half < 0.02
    assert right.mean > right.half > 0
    assert none.half > 0
    loss = Answers({"rim": np.array([1.0, 1.2]), BLIND: np.array([2.0, 2.2])}, "loss", None, puzzles=460)
    assert loss.gain("rim", loss.blind) == pytest.approx((1.0, 0.0, 2))


def test_the_image_has_each_interval_beside_the_name_of_its_cue() -> None:
    after = Row("border", CUES["border"].about, 0.26, 0.04, 0.01, 0.04, 0.1, "no", {})
    rows = tuple(Row(cue, CUES[cue].about, 0.5, 0.04, 0.25, 0.04, 0.9, "shortcut", {}) for cue in ("rim", "border"))
    for countered, shifts in (((), {0.0}), ((replace(rows[1], with_counter=after),), {-0.12, 0.12})):
        shown = (*rows[: 2 - len(countered)], *countered)
        found = Audit("rotation", "x", "accuracy", 0.25, "convnet", 0.6, 0.04, shown, (), 60, 60, 48, "images")
        (axes,) = found.draw().axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["rim", "border"]
        at = [float(y) for drawn in axes.containers for y in np.atleast_1d(drawn[0].get_ydata())]
        assert {round(y - round(y), 2) for y in at} == shifts
        assert axes.get_ylim() == (1.5, -0.5), "none is on the edge"


@pytest.mark.usefixtures("twenty_steps_are_enough")
def test_tasks_without_classes_are_judged_by_their_loss(barred: Arrays) -> None:
    found = selfsup.audit("denoising", barred, size=12, steps=20, cues="colours", quiet=True)
    (row,) = found.rows
    assert found.metric == "loss"
    assert row.score < found.chance  # a mean colour helps, and is far from all that there is
    assert "fraction of the encoder's gain" in str(found)
    assert row.verdict == found.finding
    assert row.verdict in str(found)


def test_grey_images_have_no_channels_to_compare(barred: Arrays, capsys: pytest.CaptureFixture[str]) -> None:
    grey = Arrays(barred.x[..., :1], name="grey")
    found = selfsup.audit("rotation", grey, steps=2, cues="aberration,colours")
    said = [line.partition(" · ")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [  # each bar is named
        "rotation with convnet, which sees everything", "step 2/2",
        "rotation with a shortcut probe each for colours, and one that sees nothing", "step 2/2",
    ]  # fmt: skip
    assert [row.cue for row in found.rows] == ["colours"]
    assert "aberration is left out: the images have 1 of 3 channels" in str(found)
    with pytest.raises(UserError, match="none of these cues is in images of 1 channels: aberration"):
        selfsup.audit("rotation", grey, steps=2, cues="aberration", quiet=True)


def test_few_steps_say_nothing_and_how_many_minutes_are_enough(barred: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    found = selfsup.audit("rotation", barred, steps=3, cues="border", quiet=True)
    assert found.finding == found.rows[0].verdict == "undecided"
    assert found.verdict.startswith("Undecided: 3 steps of training are too few")
    assert found.settled_by == "--steps 50"
    monkeypatch.setattr(trial, "step_seconds", lambda *_: 0.5)
    found = selfsup.audit("rotation", barred, minutes=0.01, cues="border", quiet=True)
    assert (found.steps, found.encoder_steps) == (1, 1)
    assert "1 step of training is too few" in found.verdict
    minutes = 50 * 0.5 / 60 / trial.ENCODER
    assert found.settled_by.startswith("--minutes ")
    assert minutes < float(found.settled_by.split()[1]) < 1.5 * minutes


def test_what_is_within_its_interval_is_undecided(barred: Arrays) -> None:
    judge = Trial("rotation", barred, {}, seed=0, device="cpu", quiet=True, steps=60)
    noise = np.tile([-0.02, 0.02], 10)

    def learned(score: float, name: str) -> trial.Learned:
        return trial.Learned(Answers({name: score + noise}, "accuracy", 0.25, puzzles=500), 60, 60)

    def judged(cue: float, encoder: float) -> tuple[str, str]:
        probes, whole = learned(cue, "rim"), learned(encoder, "convnet")
        row = judge.row("rim", probes, whole)
        return row.verdict, judge.settled_by([row], probes, whole, counters=False)

    assert judged(0.5, 0.7) == ("shortcut", "")
    assert judged(0.4, 0.7) == ("trace", "")
    assert judged(0.26, 0.7) == ("no", "")
    assert judged(0.26, 0.32) == ("undecided", "--steps 120, or more images"), "0.35 would be a shortcut of 0.32"
    assert judged(0.26, 0.25)[0] == "undecided", "the encoder learned nothing"
    verdict, settled_by = judged(0.5, 0.26)
    assert verdict == "undecided"
    assert 180 < int(settled_by.removeprefix("--steps ").removesuffix(", or more images")) < 300


def test_an_encoder_that_learns_nothing_decides_nothing() -> None:
    rows = tuple(
        Row(cue, CUES[cue].about, score, 0.04, score - 0.25, 0.04, None, "undecided", {})
        for cue, score in (("rim", 0.5), ("colours", 0.26))
    )
    settled_by = "--minutes 2, or more images"
    found = Audit("rotation", "x", "accuracy", 0.25, "convnet", 0.26, 0.04, rows, (), 60, 60, 48, "images", settled_by)
    assert found.finding == "undecided"
    assert "Undecided: rim, colours. With 60 steps convnet, which sees everything, is no better" in found.verdict
    assert "and rim alone is" in found.verdict
    assert found.verdict.endswith("What would settle it: --minutes 2, or more images.")
    assert "undecided" in str(found)


def test_bad_input(barred: Arrays, tmp_path: Path) -> None:
    for given, message in (
        ({"cues": "rims"}, "did you mean 'rim'"),
        ({"steps": 3, "minutes": 1.0}, "only one of --minutes and --steps"),
        ({"steps": 0}, "--steps must be"),
        ({"out": "x.txt"}, "must end in .png"),
        ({"out": tmp_path / "no" / "x.png"}, "no such folder"),
        ({"pda": 3}, "'pad'"),
    ):
        with pytest.raises(UserError, match=message):
            selfsup.audit("rotation", barred, **given)
    with pytest.raises(UserError, match="at least 64 images, and arrays has 63"):
        selfsup.audit("rotation", barred.x[:63])
    with pytest.raises(UserError, match="is for data of the kind text"):
        selfsup.audit("bert", barred)


OFF = {
    "patch_size": 16,
    "gap": 0.19,
    "jitter": 0.0,
    "normalize": False,
    "drop": False,
    "resample": 0.0,
    "min_scale": 1.0,
}


@pytest.mark.parametrize(
    ("cue", "inject", "counter"),
    [
        ("aberration", injections.aberration, "--drop"),
        ("border", injections.frame, "--border 0.1"),
        ("colours", injections.vignette, "--normalize"),
        ("residual", injections.jpeg, "--resample 0.33 --min-scale 0.5 --jitter 0.25"),
    ],
)
def test_injected_cues_are_found_and_fall_to_chance_once_countered(
    cue: str, inject: Callable[[injections.Images], injections.Images], counter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MIN_PUZZLES", 250)
    images = Arrays(inject(injections.textures(480)), name=cue)
    audited = Trial("relative_position", images, OFF, seed=0, device="cpu", quiet=True, steps=60)
    probes = audited.learn(audited.probes([cue]), {}, 1)
    answers = probes.answers  # an encoder takes as long as all the rest: let it be as good as the probe
    encoder = probes._replace(answers=answers._replace(scores={"convnet": answers.scores[cue]}))
    row = audited.row(cue, probes, encoder)
    assert row.verdict == "shortcut"
    assert row.score - row.half > 1 / 8
    assert options(row.counter) == counter
    (row,) = audited.countered([row], row.counter, encoder)
    assert row.with_counter is not None
    assert row.with_counter.verdict in ("no", "undecided")
    assert row.with_counter.score - row.with_counter.half <= 1 / 8


@pytest.mark.parametrize("whole", [True, False])
def test_black_at_the_short_sides_of_landscapes_alone_would_be_found(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`whole`: the shift shows what lies beside the centre square, as it did until black began there."""

    def uncut(crop: Crop, shapes: NDArray[np.int64], *rest: Any) -> draw.Places:
        found = draw.places(crop, shapes, *rest)
        return found._replace(bounds=np.broadcast_to(np.insert(shapes, [0, 1], 0, 1)[:, None], found.bounds.shape))

    if whole:
        monkeypatch.setattr(image_views, "places", uncut)
    landscapes = Arrays(injections.textures(320, 48)[:, 8:40], name="landscapes")
    audited = Trial("rotation", landscapes, {"size": 24}, seed=0, device="cpu", quiet=True, steps=40)
    answers = audited.learn(audited.probes(["border"]), {}, 1).answers
    gain = answers.gain("border", answers.blind)
    assert (gain.mean > gain.half) == whole
    assert (gain.mean > 0.05) == whole


@pytest.mark.parametrize("name", [name for name in TASKS if find_task(name).kind == "image"])
def test_every_task_on_images_is_audited_or_says_why_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MIN_PUZZLES", 16)
    labels = Labels.of([f"class {i % 2}" for i in range(64)])
    source, options = Arrays(injections.textures(64, 32), labels), REQUIRED.get(name, {})
    answers = learned_or_refused(name, source, options)
    if answers is None:
        return
    assert all(np.isfinite(scores).all() and len(scores) == 4 for scores in answers.scores.values())
    if answers.metric != "loss":
        assert answers.chance is not None
        assert answers.chance <= 0.5


@pytest.mark.parametrize("name", TASKS)
def test_counters_are_cues_and_options(name: str) -> None:
    task = find_task(name)
    assert task.counters.keys() <= {"video": CLIP_CUES, "audio": SOUND_CUES}.get(task.kind, CUES).keys()
    for counter in task.counters.values():
        assert counter.keys() <= task.hyperparameters().keys()
