"""Log-mel spectrograms, windows of recordings, and what happens to them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from selfsup.data.audio.melody import RATE, Melody
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.nn.audio.mel import FLOOR, log_mel, mel_bands
from selfsup.source import Broken
from selfsup.spec import WaveSpec, read_spec
from selfsup.views import plain_views, standard_views
from selfsup.views.audio import AudioViews, Window

SPEC = WaveSpec(RATE, 0.5, mean=-7.0, std=2.5)
WAVE = replace(SPEC, form="wave", mean=0.0, std=0.1)


def source(count: int = 16) -> Melody:
    return Melody("melody", count)


def made(window: Window, spec: WaveSpec = SPEC, indices=range(8), epoch: int = 0, **options: bool):
    views = AudioViews(spec, {"x": window}, **options)
    return views.finish(views.fetch(source(), np.array(indices), 3, epoch).batch)


def test_the_power_of_a_tone_is_in_the_band_of_its_frequency() -> None:
    time = torch.arange(SPEC.length) / RATE
    for hertz in (200, 440, 1000, 3000, 6000):
        found = log_mel(0.1 * torch.sin(2 * math.pi * hertz * time)[None], SPEC)[0, 0]
        bands = mel_bands(RATE, 512, SPEC.mels, SPEC.low, SPEC.high)
        at = hertz * 512 / RATE
        expected = np.argmax([np.interp(at, np.arange(257), band) for band in bands])
        assert abs(int(found.mean(1).argmax()) - int(expected)) <= 1


def test_spectra_are_those_of_torchs_fourier_transform() -> None:
    x = 0.1 * torch.randn(3, SPEC.length, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (200, 200), mode="reflect")
    frames = padded.unfold(1, 400, 160) * torch.hann_window(400)
    power = torch.fft.rfft(frames, 512).abs().square()
    bands = torch.from_numpy(mel_bands(RATE, 512, SPEC.mels, SPEC.low, SPEC.high)).float()
    expected = (power @ bands.T + FLOOR).log().transpose(1, 2)
    torch.testing.assert_close(log_mel(x, SPEC)[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert log_mel(x, SPEC).shape == (3, *SPEC.example(1).shape[1:])


def test_bands_have_equal_area_and_no_gap() -> None:
    bands = mel_bands(RATE, 4096, 40, 60.0, 7800.0)
    np.testing.assert_allclose(bands.sum(1) * RATE / 4096, 1.0, atol=0.06)
    inside = bands[:, 60:1900].sum(0)
    assert (inside > 0).all()


def test_silence_and_the_shortest_window() -> None:
    assert log_mel(torch.zeros(1, 16), SPEC).shape == (1, 1, 64, 1)
    assert torch.equal(log_mel(torch.zeros(1, 800), SPEC), torch.full((1, 1, 64, 6), math.log(FLOOR)))


@pytest.mark.parametrize("spec", [SPEC, WAVE])
def test_a_spec_is_read_back_and_draws(spec: WaveSpec, tmp_path) -> None:
    assert read_spec(spec.to_json(), tmp_path) == spec
    assert len(spec.axes) == spec.example(2).ndim
    drawn = spec.draw(made(Window(), spec, [1])["x"][0])
    if spec is WAVE:
        whole = source().read(1)
        places = np.flatnonzero(np.abs(whole - drawn.samples[0]) < 1e-6)
        assert drawn.rate == RATE
        assert any(
            np.allclose(drawn.samples, whole[at : at + spec.length], atol=1e-6)
            for at in places
            if at + spec.length <= len(whole)
        )
    else:
        assert drawn.size == (spec.columns, spec.mels)
    with pytest.raises(ValueError, match="impossible"):
        read_spec({**spec.to_json(), "low": 9000.0}, tmp_path)


def test_the_window_of_evaluation_is_in_the_middle() -> None:
    views = plain_views(WAVE)
    x = views.finish(views.fetch(source(), np.array([2]), 0, 0).batch)["x"][0]
    whole = source().read(2)
    start = (len(whole) - WAVE.length) // 2
    assert min(np.abs(0.1 * x.numpy() - whole[s : s + WAVE.length]).max() for s in (start, start + 1)) < 1e-6


def test_a_short_recording_lies_in_silence() -> None:
    long = replace(WAVE, seconds=4.0)
    whole = source().read(0)
    middle = plain_views(long)
    x = 0.1 * middle.finish(middle.fetch(source(), np.array([0]), 0, 0).batch)["x"][0].numpy()
    lead = int(np.flatnonzero(x)[0])
    assert abs(lead - (long.length - len(whole)) / 2) < 4
    np.testing.assert_allclose(x[lead : lead + 1000], whole[:1000][np.flatnonzero(whole)[0] :][:1000], atol=1e-6)
    starts = {int((made(Window(), long, [0], epoch)["x"][0] != 0).float().argmax()) for epoch in range(4)}
    assert len(starts) == 4, "while it is trained, anywhere"


def test_views_of_one_window_differ_only_by_what_is_changed() -> None:
    same = made(Window(2, "same"))["x"]
    assert torch.equal(same[:, 0], same[:, 1])
    apart = made(Window(2))["x"]
    assert not torch.equal(apart[:, 0], apart[:, 1])
    mixed = made(Window(2, "same", mix=0.4))["x"]
    assert not torch.equal(mixed[:, 0], mixed[:, 1])
    assert (mixed - same).abs().mean() > 0.01


def test_a_mixture_is_of_energies() -> None:
    plain, mixed = made(Window())["x"], made(Window(mix=0.4))["x"]
    least = plain + math.log(0.6) / SPEC.std
    assert (mixed >= least - 1e-4).all(), "at least 60% of the energy stays"
    assert (mixed > plain + 0.5).any(), "and where it was quiet, the other is heard"


def test_gain_changes_energy_alone() -> None:
    change = made(Window(gain=6.0))["x"] - made(Window())["x"]
    assert change.abs().amax() <= 2 * 6 * math.log(10) / 20 / SPEC.std + 1e-4
    assert change.flatten(1).std(1).max() < 1e-4
    assert change.std() > 0.05


def test_masks_are_bands_and_columns() -> None:
    x = made(Window(masks=(8, 10)))["x"][:, 0]
    bands, columns = (x == 0).all(2), (x == 0).all(1)
    assert 0 < bands.sum(1).max() <= 8
    assert 0 < columns.sum(1).max() <= 10
    assert len({tuple(row.tolist()) for row in bands}) > 3


def test_a_crop_stretches_a_part() -> None:
    cropped, plain = made(Window(crop=(0.6, 0.61)))["x"], made(Window())["x"]
    assert cropped.shape == plain.shape
    assert (cropped - plain).abs().mean() > 0.1


def test_faster_is_higher() -> None:
    voice = replace(WAVE, seconds=0.1)
    plain, faster = (made(Window(speed=s), voice, range(16))["x"] for s in (0.0, 0.3))
    pitch = [torch.fft.rfft(x).abs().argmax(1).float() for x in (plain, faster)]
    assert (pitch[0] != pitch[1]).float().mean() > 0.5


def test_samples_are_not_cropped_as_spectrograms_are() -> None:
    with pytest.raises(UserError, match="--form logmel"):
        AudioViews(WAVE, {"x": Window(mix=0.1)})


def test_labels_and_keys_come_along_and_everything_follows_from_the_index() -> None:
    batch = made(Window(2, mix=0.3, crop=(0.6, 1.5)), labels=True, noise=True)
    assert batch["y"].tolist() == source().labels.ids[:8].tolist()
    alone = made(Window(2, mix=0.3, crop=(0.6, 1.5)), indices=[5], labels=True, noise=True)
    torch.testing.assert_close(batch["x"][5], alone["x"][0], rtol=1e-4, atol=1e-4)
    assert batch["noise"][5] == alone["noise"][0]


def test_a_broken_recording_is_replaced_and_named() -> None:
    class Damaged(Melody):
        def read(self, index, span=None):
            if index == 3:
                raise Broken("damaged")
            return super().read(index, span)

    found = AudioViews(SPEC, {"x": Window(mix=0.4)}).fetch(Damaged("melody", 16), np.arange(8), 0, 0)
    assert found.skipped == ((3, "damaged"),)
    assert found.batch["index"][3] != 3


@pytest.mark.parametrize(("name", "spec"), [("audio-cnn", SPEC), ("convnet", SPEC), ("conv-gru", WAVE)])
def test_encoders(name: str, spec: WaveSpec) -> None:
    encoder = build_encoder(name, spec).eval()
    x = torch.randn(3, *spec.example(1).shape[1:])
    assert encoder(x).shape == (3, encoder.dim)
    frames = encoder.frames(x)
    assert frames.ndim == 3
    assert frames.shape[1] in (-(-spec.columns // 8), spec.columns // 4, spec.length // 160)


def test_the_context_knows_nothing_of_what_comes() -> None:
    encoder = build_encoder("conv-gru", WAVE).eval()
    x = torch.randn(1, WAVE.length)
    changed = x.clone()
    changed[:, 4000:] = 0
    before, after = encoder.frames(x)[0], encoder.frames(changed)[0]
    same = (before == after).all(1)
    first = int((~same).float().argmax())
    assert 4000 // 160 - 2 <= first <= 4000 // 160 + 1


def test_encoders_that_cannot_read_them_say_so() -> None:
    for name, spec, told in (
        ("conv-gru", SPEC, "--form wave"), ("audio-cnn", WAVE, "--form logmel"), ("test_vit", SPEC, "cannot take"),
        ("nothing", SPEC, "no such encoder|unknown|nothing"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            build_encoder(name, spec)


def test_melody_is_what_its_labels_say() -> None:
    melody = Melody("melody", 64)
    assert melody.spec(seconds=0.5, form="logmel").mean == pytest.approx(-7, abs=1.5)
    views, _ = standard_views(SPEC).several(SPEC)
    assert views.fetch(melody, np.arange(4), 0, 0).batch["x.samples"].abs().max() < 0.6
    taken = melody.take(np.array([5, 9]))
    assert np.array_equal(taken.read(1), melody.read(9))
    assert taken.fingerprint() != melody.fingerprint()
    assert Melody("melody:voice", 8).labels.classes == ("bell", "flute", "reed", "string")
