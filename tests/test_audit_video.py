"""The shortcut audit of videos: cues of time are found, and gone with their counter-measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.shortcuts import together
from selfsup.shortcuts.clip_cues import CLIP_CUES, ClipProbe
from selfsup.shortcuts.result import options
from selfsup.shortcuts.trial import Trial
from selfsup.spec import ClipSpec
from selfsup.tasks import TASKS, find_task
from support import injections
from support.audits import as_encoder, learned_or_refused, shorten
from support.videos import Clips

SIZE = {"size": 24}


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, puzzles=250)


@pytest.mark.parametrize("name", CLIP_CUES)
@pytest.mark.parametrize(("frames", "size"), [(1, 16), (2, 24), (7, 33)])
def test_a_cue_is_a_vector_for_each_frame_whatever_the_size(name: str, frames: int, size: int) -> None:
    see = CLIP_CUES[name].see
    x = torch.randn(3, frames, 3, size, size)
    found = see(x)
    assert found.shape == (3, frames, see(torch.zeros(1, 2, 3, 32, 32)).shape[-1])
    assert found.isfinite().all()
    assert see(torch.zeros_like(x)).isfinite().all()
    torch.testing.assert_close(see(x[1:2]), found[1:2])  # of each clip alone
    probe = ClipProbe(see, ClipSpec.of(size))
    assert probe.frames(x).shape == (3, frames, probe.dim)
    assert probe(x).shape == (3, probe.dim)


def test_cues_of_time_measure_what_they_are_named_for() -> None:
    torch.manual_seed(0)
    still = torch.randn(4, 1, 3, 16, 16).expand(-1, 8, -1, -1, -1).clone()
    cut = still.clone()
    cut[:, 5:] = torch.randn(4, 1, 3, 16, 16)
    steps = CLIP_CUES["motion"].see(cut + 0.01 * torch.randn_like(cut))
    assert (steps[..., 0].argmax(1) == 5).all(), "frame 5 differs from the one before"
    assert (steps[..., 1].argmax(1) == 4).all(), "frame 4 from the next one"
    relative = CLIP_CUES["seam"].see(100 * (cut + 0.01 * torch.randn_like(cut)))
    assert (relative[:, 5, 0] > 3).all(), "many times the median step, whatever the contrast"
    torch.testing.assert_close(CLIP_CUES["energy"].see(2 * still) - CLIP_CUES["energy"].see(still),
                               torch.full((4, 8, 1), 2.0).log(), atol=0.01, rtol=0)  # fmt: skip
    moved = still.clone()
    moved[:, 3] = 9.0
    assert torch.equal(CLIP_CUES["background"].see(moved), CLIP_CUES["background"].see(still))
    moved[:, 4] = 5.0
    assert (CLIP_CUES["middle"].see(moved) == 5).all()


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize(
    ("task", "off", "cue", "inject", "counter"),
    [
        ("arrow_of_time", {}, "colours", injections.fade_in, "--normalize"),
        ("arrow_of_time", {}, "border", injections.closing_bars, "--border 0.15"),
        ("arrow_of_time", {}, "residual", injections.worse_codec, ""),
        ("odd_one_out", {"match_energy": False}, "energy", lambda x: x, "--match-energy"),
        ("arrow_of_time", {}, "motion", injections.braking, ""),
        ("arrow_of_time", {}, "seam", injections.last_cut, ""),
        ("shuffle_learn", {}, "background", injections.shadow, "--gap 1"),
        ("shuffle_learn", {}, "middle", injections.shadow, "--gap 1"),
    ],
    ids=["fade", "bars", "codec", "energy", "camera", "cut", "still", "middle"],
)
def test_injected_cues_are_found_and_fall_to_chance_once_countered(
    task: str, off: dict[str, Any], cue: str, inject: Callable[[Any], Any], counter: str
) -> None:
    clips = Clips(inject(injections.panning()), cue)
    audited = Trial(task, clips, off | SIZE, seed=0, device="cpu", quiet=True, steps=40)
    probes = audited.learn(audited.probes([cue]), {}, 1)
    encoder = as_encoder(audited, probes, cue)
    row = audited.row(cue, probes, encoder)
    assert row.verdict == "shortcut"
    assert options(row.counter) == counter
    if counter:
        (row,) = audited.countered([row], row.counter, encoder)
        assert row.with_counter is not None
        assert row.with_counter.verdict in ("no", "undecided")
        assert row.with_counter.gain <= row.with_counter.gain_half


@pytest.mark.usefixtures("few_are_enough")
def test_nothing_is_found_where_time_has_no_arrow() -> None:
    audited = Trial("arrow_of_time", Clips(injections.panning()), SIZE, seed=0, device="cpu", quiet=True, steps=20)
    answers = audited.learn(audited.probes(list(CLIP_CUES)), {}, 1).answers
    for cue in CLIP_CUES:
        gain = answers.gain(cue, answers.blind)
        assert gain.mean < 1.5 * gain.half, cue


@pytest.mark.parametrize("name", [name for name in TASKS if find_task(name).kind in ("video", "any")])
def test_every_task_on_videos_is_audited_or_says_why_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MIN_PUZZLES", 16)
    learned_or_refused(name, open_data("moving").take(np.arange(64)), {"size": 32})


@pytest.mark.usefixtures("few_are_enough")
def test_the_verdict_speaks_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MIN_PUZZLES", 60)
    clips = Clips(injections.worse_codec(injections.panning(80)), "worse")
    found = selfsup.audit("arrow_of_time", clips, steps=20, cues="residual,middle", quiet=True, **SIZE)
    assert "No option of arrow_of_time counters it: it is in the videos" in found.verdict
    assert "20 held-out videos" in str(found)
    with pytest.raises(UserError, match="unknown cue 'aberration'"):
        selfsup.audit("arrow_of_time", clips, steps=1, cues="aberration", quiet=True, **SIZE)
    with pytest.raises(UserError, match="at least 64 videos, and worse has 10"):
        selfsup.audit("arrow_of_time", clips.take(np.arange(10)), quiet=True)
