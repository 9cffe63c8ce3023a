"""Frames of recordings: when each is, and that notes are read from them beside one and eleven spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import selfsup
from selfsup.data.audio.melody import RATE, Melody
from selfsup.encoders import build_encoder
from selfsup.evaluation.baselines import frame_baselines
from support.tasks import SOUNDS


@pytest.mark.parametrize("name", ["conv-gru", "audio-cnn", "convnet", "wav2vec2-small"])
def test_a_frame_is_where_it_sounds(name: str) -> None:
    """Half of a window is silence: the frames that differ from those of silence are those of the other half."""
    if name == "wav2vec2-small":
        pytest.importorskip("transformers")
    spec = SOUNDS["wave" if name in ("conv-gru", "wav2vec2-small") else "logmel"]
    encoder = build_encoder(name, spec).eval()
    times = encoder.frame_times()
    silent = torch.zeros(1, *spec.example(1).shape[1:])
    heard = silent.clone()
    heard[..., heard.shape[-1] // 2 :] = torch.randn(heard[..., heard.shape[-1] // 2 :].shape)
    with torch.no_grad():
        frames = [encoder.latents(x) if name == "wav2vec2-small" else encoder.frames(x) for x in (silent, heard)]
    assert frames[0].shape[1] == len(times)
    assert np.all(np.diff(times) > 0)
    assert 0 <= times[0] < times[-1] <= spec.seconds + 0.04
    if name == "wav2vec2-small":  # its first convolution is normalized over the window
        return
    differs = (frames[1] - frames[0]).abs().amax(2)[0] > 1e-6
    first = times[int(differs.float().argmax())]
    assert abs(first - spec.seconds / 2) < 0.08, "as far as its convolutions see"
    assert differs[times > spec.seconds / 2 + 0.01].all()


def test_baselines_are_one_and_eleven_spectra() -> None:
    spec = SOUNDS["logmel"]
    one, eleven = frame_baselines(spec).values()
    x = torch.randn(2, 1, spec.mels, spec.columns)
    assert one.frames(x).shape == (2, spec.columns, spec.mels)
    assert torch.equal(one.frames(x), x[:, 0].transpose(1, 2))
    wide = eleven.frames(x)
    assert wide.shape == (2, spec.columns, 11 * spec.mels)
    torch.testing.assert_close(wide[:, 10, 5 * spec.mels : 6 * spec.mels], x[:, 0, :, 10])
    assert len(one.frame_times()) == spec.columns


def test_notes_are_read_from_frames(tmp_path: Path) -> None:
    melody = Melody("melody", 40)
    run = selfsup.pretrain(
        melody, task="cpc_audio", steps=2, batch_size=8, seconds=0.5, out=tmp_path / "run", quiet=True
    )
    found = selfsup.evaluate(run, data=melody, target="frames", shots="300", draws=2, protocol="linear", quiet=True)
    scores = {score.representation: np.mean(score.values) for score in found.scores}
    assert scores["log-mel"] > 0.7, "a note is heard in one spectrum"
    assert scores["log-mel, 11 spectra"] > 0.6
    assert {"cpc_audio", "untrained"} <= scores.keys()
    assert found.about["majority"] < 0.3


def test_labels_inside_of_sound_files_come_from_a_table(tmp_path: Path) -> None:
    melody, rows = Melody("melody", 12), ["path,start,end,label"]
    (tmp_path / "sounds").mkdir()
    notes = melody.frame_labels
    assert notes is not None
    for index in range(12):
        soundfile.write(tmp_path / "sounds" / f"{index}.wav", melody.read(index), RATE)
        mine = slice(notes.first[index], notes.first[index + 1])
        for start, end, note in zip(notes.starts[mine], notes.ends[mine], notes.ids[mine], strict=True):
            rows.append(f"{index}.wav,{start:.4f},{end:.4f},{notes.classes[note]}")
    table = tmp_path / "notes.csv"
    table.write_text("\n".join(rows))
    run = selfsup.pretrain(
        tmp_path / "sounds", task="byola", encoder="convnet", steps=2, batch_size=4, seconds=0.4, out=tmp_path / "run",
        quiet=True,
    )  # fmt: skip
    found = selfsup.evaluate(
        run, data=tmp_path / "sounds", labels=table, target="frames", shots="100", draws=2, protocol="linear",
        quiet=True,
    )  # fmt: skip
    scores = {score.representation: np.mean(score.values) for score in found.scores}
    assert scores["log-mel"] > 0.4
    assert scores["log-mel"] > found.about["majority"] + 0.2
