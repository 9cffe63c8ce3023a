"""Every command on a folder of sounds, from training to the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.commands.label import _shown
from selfsup.data.audio.melody import RATE, Melody
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.views import plain_views


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 recordings in a folder for each of two voices, and one file that is no sound."""
    root, melody = tmp_path_factory.mktemp("sounds"), Melody("melody:voice", 64)
    assert melody.labels is not None
    for index, label in enumerate(melody.labels.ids.tolist()):
        if label < 2:
            (root / melody.labels.classes[label]).mkdir(exist_ok=True)
            soundfile.write(root / melody.labels.classes[label] / f"{index}.wav", melody.read(index), RATE)
    (root / "bell" / "broken.wav").write_bytes(b"no sound")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "byola"
    given = {"encoder": "audio-cnn", "steps": 2, "batch_size": 8, "seconds": 0.4, "mels": 16, "quiet": True}
    selfsup.pretrain(folder, task="byola", out=out, **given)
    return out


def test_every_command_on_recordings(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: object) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    rows = told(
        "evaluate", run, "--data", folder, "--labels", "folders", "--shots", 2, "--draws", 2, "--no-scratch",
        "--protocol", "linear,propagate", "--quiet",
    )  # fmt: skip
    for name in ("byola", "untrained", "log-mel", "PCA"):
        assert name in rows
    count = len(list(folder.rglob("*.wav"))) - 1
    vectors = tmp_path / "v.parquet"
    assert f"{count} rows of 512 numbers" in told("embed", run, folder, "--out", vectors, "--quiet")
    query = sorted((folder / "flute").iterdir())[0]
    first = next(line for line in told("search", vectors, query, "--k", 3).splitlines() if "1.0000" in line)
    assert f"flute/{query.name}" in first
    few = tmp_path / "few.csv"
    told("suggest", run, folder, "-n", 4, "--out", few, "--quiet")
    with few.open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    few.write_text("path,label\n" + "".join(f"{path},{path.split('/')[0]}\n" for path in paths))
    told("label", run, folder, "--labels", few, "--out", tmp_path / "all.csv", "--quiet")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + count + 1, "the broken one too"
    told("show", "byola", folder, "--run", run, "--out", tmp_path / "a.png")
    told("report", run, "--data", folder, "--labels", "folders", "--no-scratch")
    page = (run / "report.html").read_text()
    assert "log-mel" in page
    assert "s at 16,000 Hz" in page
    assert page.count("<audio") > 20, "neighbours can be heard"
    assert len(page) < 8_000_000
    told("export", run, "--format", "onnx", "--out", tmp_path / "e.onnx")
    encoder = selfsup.load(run)
    views = plain_views(encoder.spec)
    fetched = views.fetch(open_data(folder), np.arange(2), 0, 0).batch
    exported = onnxruntime.InferenceSession(tmp_path / "e.onnx").run(None, {"x": fetched["x.samples"][:, 0].numpy()})[0]
    with torch.no_grad():  # a program takes samples, and makes the spectrogram itself
        np.testing.assert_allclose(exported, encoder(views.finish(fetched)["x"]).numpy(), rtol=1e-3, atol=1e-3)
    told("search", vectors, query, "--k", 3, "--out", tmp_path / "found.png", "--data", folder)
    told("explore", vectors, "--data", folder, "--out", tmp_path / "map.html")


def test_the_labelling_page_shows_and_plays_them(folder: Path) -> None:
    source = open_data(folder)
    number = next(index for index in range(len(source)) if "broken" not in source.path(index))
    image, mime = _shown(source, number, 768)
    assert mime == "image/png"
    assert Image.open(io.BytesIO(image)).width > 50
    sound, mime = _shown(source, number, 0)
    assert mime == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(samples, source.read(number), atol=1e-4)
    broken = next(index for index in range(len(source)) if "broken" in source.path(index))
    assert _shown(source, broken, 768) is None


def test_start_proposes_a_task_for_recordings(folder: Path, tmp_path: Path) -> None:
    found = selfsup.start(folder, out=tmp_path / "s", quiet=True)
    assert "pretrain" in found.commands[1]
    assert "--task byola --encoder audio-cnn" in found.commands[1]
    assert any(" s, " in fact or fact.endswith(" s") for fact in found.facts)
    assert any("cannot be read: bell/broken.wav" in fact for fact in found.facts)


def test_the_predictive_task_takes_samples_and_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    given = {"task": "cpc_audio", "steps": 2, "batch_size": 8, "quiet": True}
    run = selfsup.pretrain(folder, seconds=0.4, out=tmp_path / "run", **given)
    assert run.spec.form == "wave"
    encoder = run.load()
    assert encoder.frames(torch.zeros(2, 16_000)).shape == (2, 100, encoder.dim)
    for options, message in (
        ({"seconds": 0.1}, "too few to predict 12"),
        ({"form": "logmel"}, "--form wave"),
        ({"encoder": "audio-cnn"}, "--form logmel"),
        ({"size": 32}, "option"),
    ):
        with pytest.raises(UserError, match=message):
            selfsup.pretrain(folder, out=tmp_path / "no", **given | options)
    assert not (tmp_path / "no").exists()


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    given = {"task": "byola", "encoder": "convnet", "steps": 4, "batch_size": 8, "seconds": 0.3, "quiet": True}
    whole = selfsup.pretrain(folder, out=tmp_path / "whole", **given).load().state_dict()
    selfsup.pretrain(folder, out=tmp_path / "parts", until=2, **given)
    parts = selfsup.pretrain(folder, out=tmp_path / "parts", workers=2, **given).load().state_dict()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_labels_of_noise_are_read_at_chance(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 60)):
        for index in range(count):
            place = tmp_path / part / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            soundfile.write(place / f"{index}.wav", 0.1 * random.standard_normal(4000), 16_000)
    run = selfsup.pretrain(
        tmp_path / "train", task="byola", encoder="convnet", steps=3, batch_size=8, out=tmp_path / "run", quiet=True
    )
    found = selfsup.evaluate(
        run, data=tmp_path / "train", labels="folders", test=tmp_path / "test", test_labels="folders", shots="10",
        protocol="linear", scratch=False, quiet=True,
    )  # fmt: skip
    for score in found.scores:
        assert abs(np.mean(score.values) - 0.5) < 0.15, score.representation
