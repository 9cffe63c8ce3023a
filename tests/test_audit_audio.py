"""The shortcut audit of recordings: what tells them apart is found where negatives come from others, and not else."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from selfsup.data.audio.melody import Melody
from selfsup.errors import UserError
from selfsup.nn.audio.mel import FLOOR
from selfsup.shortcuts import result
from selfsup.shortcuts.sound_cues import SOUND_CUES, SoundProbe
from selfsup.shortcuts.trial import Trial
from selfsup.tasks import TASKS, find_task
from support.audits import as_encoder, shorten
from support.tasks import SOUNDS

SPEC = SOUNDS["logmel"]
SHORT = {"seconds": 0.32}


class Noise:
    """Recordings of noise, of which nothing can be predicted; `tilted`: each with a spectrum of its own."""

    name, kind, labels = "noise", "audio", None

    def __init__(self, tilted: bool, count: int = 128) -> None:
        self.tilted, self.numbers = tilted, np.arange(count)

    def __len__(self) -> int:
        return len(self.numbers)

    def extent(self, index: int) -> int:
        return 8000

    def read(self, index: int, span: slice | None = None) -> np.ndarray:
        random = np.random.default_rng(int(self.numbers[index]))
        tilt = random.uniform(-0.9, 0.9) if self.tilted else 0.0
        x = random.standard_normal(8001)
        return (0.1 * (x[1:] + tilt * x[:-1]))[span or slice(None)].astype(np.float32)

    spec, conform = Melody.spec, Melody.conform

    def take(self, indices: np.ndarray) -> Noise:
        taken = copy.copy(self)
        taken.numbers = self.numbers[indices]
        return taken

    def path(self, index: int) -> str:
        return str(index)


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, puzzles=64)


@pytest.mark.parametrize("name", SOUND_CUES)
@pytest.mark.parametrize(("bands", "columns"), [(32, 33), (64, 7), (8, 100)])
def test_a_cue_is_a_vector_whatever_the_size(name: str, bands: int, columns: int) -> None:
    see = SOUND_CUES[name].see
    x = torch.randn(3, 1, bands, columns)
    x[0, ..., columns // 2 :] = np.log(FLOOR)
    found = see(x)
    assert found.shape == (3, see(torch.zeros(1, 1, bands, 9)).shape[1])
    assert found.isfinite().all()
    assert see(torch.full_like(x, np.log(FLOOR))).isfinite().all()
    torch.testing.assert_close(see(x[1:2]), found[1:2])


def test_cues_measure_what_they_are_named_for() -> None:
    x = torch.randn(2, 1, 32, 100)
    x[0, ..., :20] = x[0, ..., 80:] = np.log(FLOOR)
    first, last, part = SOUND_CUES["length"].see(x)[0].tolist()
    assert first == pytest.approx(0.2, abs=0.02)
    assert last == pytest.approx(0.8, abs=0.02)
    assert part == pytest.approx(0.6)
    louder = SOUND_CUES["level"].see(x + 2) - SOUND_CUES["level"].see(x)
    torch.testing.assert_close(louder, torch.full((2, 2), 2.0))
    torch.testing.assert_close(SOUND_CUES["channel"].see(x + 2), SOUND_CUES["channel"].see(x))
    changed = x.clone()
    changed[..., 10:90] = 0
    assert torch.equal(SOUND_CUES["ends"].see(changed), SOUND_CUES["ends"].see(x))
    assert (SOUND_CUES["floor"].see(x[1:]) < x[1].mean()).all()


def probed(source: Any, cue: str, options: dict[str, Any]) -> tuple[Trial, Any]:
    audited = Trial("cpc_audio", source, options | SHORT, seed=0, device="cpu", quiet=True, steps=40)
    return audited, audited.learn(audited.probes([cue]), {}, 1)


def test_the_channel_tells_recordings_apart_and_falls_to_chance_with_negatives_of_the_same_one() -> None:
    audited, probes = probed(
        Noise(tilted=True), "channel", {"negatives": "batch", "num_negatives": 16, "prediction_steps": 4}
    )
    encoder = as_encoder(audited, probes, "channel")
    row = audited.row("channel", probes, encoder)
    assert row.verdict == "shortcut"
    assert result.options(row.counter) == "--negatives own"
    (row,) = audited.countered([row], row.counter, encoder)
    assert row.with_counter is not None
    assert row.with_counter.score <= 1.5 / 32


def test_nothing_is_found_in_recordings_that_are_alike() -> None:
    _, probes = probed(
        Noise(tilted=False), "channel", {"negatives": "batch", "num_negatives": 16, "prediction_steps": 4}
    )
    gain = probes.answers.gain("channel", probes.answers.chance)
    assert gain.mean < 1.5 * gain.half


MASKED = ("data2vec_audio", "hubert", "wav2vec2")  # a probe that sees one cue has no steps to mask


@pytest.mark.parametrize("name", [name for name in TASKS if find_task(name).takes("audio")])
def test_every_task_on_recordings_is_audited_or_says_why_not(name: str) -> None:
    if find_task(name).needs_labels:
        pytest.skip("labels are no free labels")
    audited = Trial(name, Melody("melody", 64), SHORT, seed=0, device="cpu", quiet=True, steps=1)
    if name in MASKED:
        with pytest.raises(UserError, match="masks what a transformer over samples sees"):
            audited.learn(audited.probes(["level"]), {}, 1)
        return
    answers = audited.learn(audited.probes(["level"]), {}, 1).answers
    assert np.isfinite(answers.scores["level"]).all()
    assert audited.task.counters.keys() <= SOUND_CUES.keys() or find_task(name).kind != "audio"


def test_a_probe_is_an_encoder_of_both_forms() -> None:
    for form, spec in SOUNDS.items():
        probe = SoundProbe(SOUND_CUES["level"].see, spec)
        assert probe(torch.randn(4, *spec.example(1).shape[1:])).shape == (4, probe.dim), form
