"""Sounds: spans of files at one rate and as one channel, folders of them, what is odd about them, and `flite`."""

import csv
import io
import os
import shutil
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.data.audio import Sounds, flite
from selfsup.data.audio.decode import SUFFIXES, about, measure, mono, read, read_native
from selfsup.data.audio.look import odd
from selfsup.data.kinds import make_spec, open_query, spec_options
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.nn.audio.mel import log_mel
from selfsup.source import Broken
from selfsup.spec import ImageSpec, WaveSpec, read_spec

soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))


def write(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype)
    return path


def noise(seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """Return noise with more energy in low tones, (N, channels), and a slow swell so that no two spans are alike."""
    x = RNG.normal(size=(round(seconds * rate), channels)).cumsum(0)
    x -= x.mean(0)
    return (0.5 * x / np.abs(x).max()).astype(np.float32)


def conformed(folder: Path, **options: object) -> Sounds:
    source = open_data(folder)
    assert isinstance(source, Sounds)
    return source.conform(source.spec(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [44100, 16000, 8000, 11025, 22050, 48000, 96000, 16001])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_span_is_that_of_the_whole_recording_resampled(rate: int, suffix: str, tmp_path: Path) -> None:
    samples = noise(1.7, rate, 2)
    path = os.fsencode(write(tmp_path / f"a.{suffix}", samples, rate, "PCM_24"))
    whole = samples.mean(1) if rate == 16000 else soxr.resample(samples.mean(1), rate, 16000)
    assert about(path).at(16000) == len(whole)
    for start, stop in ((0, 100), (0, len(whole)), (1, 2), (12345, 13345), (8000, 24000), (len(whole) - 7, len(whole))):
        found = read(path, start, stop, 16000)
        assert (found.dtype, found.shape) == (np.float32, (stop - start,))
        assert np.abs(found - whole[start:stop]).max() < 1e-4
    assert np.array_equal(
        read(path, len(whole) - 5, len(whole) + 100, 16000), read(path, len(whole) - 5, len(whole), 16000)
    )


@pytest.mark.parametrize(("name", "subtype", "off"), [
    ("a.ogg", "VORBIS", 1e-4), ("a.mp3", "MPEG_LAYER_III", 1e-4), ("a.opus", "OPUS", 2e-2), ("a.aiff", "PCM_16", 1e-4),
])  # fmt: skip
def test_compressed_files_are_seeked_to_the_sample(name: str, subtype: str, off: float, tmp_path: Path) -> None:
    rate = 48000 if subtype == "OPUS" else 44100
    path = tmp_path / "x" / name
    path.parent.mkdir()
    with soundfile.SoundFile(
        path, "w", rate, 1, subtype, format={"opus": "OGG"}.get(name[2:], name[2:].upper())
    ) as file:
        file.write(noise(3.0, rate))
    whole = read(os.fsencode(path), 0, 48000, 16000)
    assert len(whole) >= 47000
    for start in (100, 9000, 31234):
        assert np.abs(read(os.fsencode(path), start, start + 1000, 16000) - whole[start : start + 1000]).max() < off


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_samples_of_any_width_become_one_to_minus_one(subtype: str, tmp_path: Path) -> None:
    samples = noise()
    found = read(os.fsencode(write(tmp_path / "a.wav", samples, 16000, subtype)), 0, 16000, 16000)
    assert np.abs(found - samples[:, 0]).max() < {"PCM_U8": 1 / 64, "ULAW": 1 / 32}.get(subtype, 1e-4)


def test_floats_beyond_one_are_kept(tmp_path: Path) -> None:
    path = os.fsencode(write(tmp_path / "a.wav", 10 * noise(), 16000, "FLOAT"))
    assert read(path, 0, 16000, 16000).max() > 2
    assert read(path, 0, 8000, 8000).max() > 2


def test_one_channel_is_the_mean_of_all(tmp_path: Path) -> None:
    samples = noise(channels=8, rate=192000)
    samples[:, 3] = 0
    path = os.fsencode(write(tmp_path / "a.wav", samples, 192000, "FLOAT"))
    assert about(path) == (192000, 192000, 8, False)
    assert np.abs(read(path, 0, 192000, 192000) - samples.mean(1)).max() < 1e-6
    assert read(path, 0, 16000, 16000).shape == (16000,)
    assert np.array_equal(mono(samples[:, :1]), samples[:, 0])


def test_a_folder_of_sounds_is_read_and_labelled_like_images(tmp_path: Path) -> None:
    for name, seconds in (("cat/a.wav", 0.5), ("cat/b.FLAC", 1.0), ("dog/c.mp3", 0.7)):
        write(tmp_path / "s" / name, noise(seconds))
    (tmp_path / "s" / "notes.md").write_text("mine")
    source = open_data(tmp_path / "s", "folders")
    assert isinstance(source, Sounds)
    assert source.labels is not None
    assert (source.labels.classes, source.labels.ids.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert [source.path(i) for i in range(3)] == ["cat/a.wav", "cat/b.FLAC", "dog/c.mp3"]
    assert any("1 .md" in note for note in source.notes)
    assert (source.extent(1), source.read(1, slice(100, 300)).shape) == (16000, (200,))
    spec = make_spec(source, rate=8000)
    assert isinstance(spec, WaveSpec)
    assert (spec.rate, spec.seconds, spec.form, spec.mels, spec.window, spec.hop) == (8000, 0.7, "logmel", 64, 200, 80)
    assert read_spec(spec.to_json(), tmp_path) == spec
    made = source.conform(spec)
    assert made.conform(spec) is made
    assert (made.extent(0), made.extent(1)) == (4000, 8000)
    two = made.take(np.array([2, 0]))
    assert two.labels is not None
    assert (two.path(1), two.extent(1), two.labels.ids.tolist(), two.rate) == ("cat/a.wav", 4000, [1, 0], 8000)
    assert len({source.fingerprint(), two.fingerprint(), open_data(tmp_path / "s").fingerprint()}) == 3
    assert made.fingerprint() == source.fingerprint()
    table = tmp_path / "labels.csv"
    table.write_text("path,label\ncat/b.FLAC,loud\nc.mp3,low\n")
    by_table = open_data(tmp_path / "s", table).labels
    assert by_table is not None
    assert by_table.ids.tolist() == [-1, 0, 1]


def test_spec_options_and_what_they_refuse(tmp_path: Path) -> None:
    write(tmp_path / "s" / "a.wav", noise(5))
    source = open_data(tmp_path / "s")
    assert set(spec_options("audio")) == {"rate", "seconds", "form", "mels"}
    assert make_spec(source).seconds == 2.0  # type: ignore[attr-defined]
    assert make_spec(source, seconds=0.5, form="wave").axes == "BT"
    for options, told in (
        ({"rate": 10}, "--rate is from 1,000 to 192,000"), ({"seconds": 0.0}, "--seconds is from"),
        ({"mels": 3}, "--mels is from 8 to 256"), ({"form": "mfcc"}, "--form is logmel or wave, not 'mfcc'"),
        ({"form": "wave", "mels": 64}, "--mels is for spectrograms"), ({"size": 64}, "--size is not for"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            make_spec(source, **options)
    with pytest.raises(UserError, match="holds no images"):
        source.conform(ImageSpec.of(32, 3))


def test_mean_and_deviation_are_those_of_what_an_encoder_gets(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / "s" / f"{index}.wav", noise(0.5))
    write(tmp_path / "s" / "silent.wav", np.zeros(8000))
    source = open_data(tmp_path / "s")
    wave_spec, mel_spec = make_spec(source, form="wave"), make_spec(source)
    assert isinstance(wave_spec, WaveSpec)
    assert isinstance(mel_spec, WaveSpec)
    x = torch.from_numpy(np.stack([source.conform(mel_spec).read(i, slice(0, mel_spec.length)) for i in range(4)]))
    mel = log_mel(x, mel_spec)
    assert abs(mel.mean().item() - mel_spec.mean) < 0.01
    assert abs(mel.std().item() - mel_spec.std) < 0.01
    assert abs(x.std().item() - wave_spec.std) < 0.01


def test_what_is_odd_is_counted_in_words(tmp_path: Path) -> None:
    tone = np.sin(np.arange(16000) / 5)[:, None].astype(np.float32)
    assert odd(tone * 0.5) == []
    assert odd(tone * 1e-5) == ["silent"]
    assert odd((tone * 3).clip(-1, 1)) == ["clipped"]
    assert odd(tone * 0.3 + 0.3) == ["offset"]
    assert odd(tone * 3) == ["loud"]
    assert odd(np.concatenate([tone, -tone], 1) / 2) == ["cancelled"]
    assert odd(np.concatenate([tone, 0 * tone], 1) / 2) == []
    for name, samples in (("a", tone * 0.5), ("b", 0 * tone), ("c", (tone * 3).clip(-1, 1)), ("d", tone[:100] * 0.5)):
        write(tmp_path / "s" / f"{name}.wav", samples)
    write(tmp_path / "s" / "e.wav", np.concatenate([tone, -tone], 1) / 2, 44100)
    notes = "\n".join(conformed(tmp_path / "s", seconds=0.3).notes)
    for told in (
        "1 of 5 recordings looked at, 2 s of each, are silent", "s of each, are clipped",
        "2 s of each, have channels that cancel",
        "1 of 5 recordings are resampled to 16,000 Hz, from 44,100 Hz (1)",
        "1 of 5 recordings have several channels", "1 of 5 recordings are shorter than a window of 0.3 s",
    ):  # fmt: skip
        assert told in notes
    write(tmp_path / "low" / "a.wav", noise(), 8000)
    assert "none has anything above 4,000 Hz (--rate 8000)" in conformed(tmp_path / "low").notes[-1]


def test_what_cannot_be_read_is_one_line_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "s" / "good.wav", noise())
    folder = good.parent
    shutil.copy(good, folder / "wrong suffix.mp3")  # is read: what counts is what it holds
    (folder / "text.wav").write_text("this is a text")
    (folder / "empty.wav").write_bytes(b"")
    write(folder / "zero.wav", np.zeros(0))
    write(folder / "one.wav", np.full(1, 0.5))
    bad = noise()
    bad[8000] = np.nan
    write(folder / "nan.wav", bad, 16000, "FLOAT")
    (folder / "cut.flac").write_bytes(write(tmp_path / "x.flac", noise(4.0)).read_bytes()[:40000])
    hours = bytearray(good.read_bytes())
    hours[40:44] = struct.pack("<I", 0xFFFFFFF0)
    (folder / "hours.wav").write_bytes(hours)
    (folder / "dead.wav").symlink_to("nowhere")
    source = conformed(folder, seconds=0.5)
    notes = "\n".join(source.notes)
    assert "4 of 10 recordings cannot be read: " in notes
    for reason in ("1 no samples", "1 empty file", "1 no such file", "1 not a sound: Format not recognised"):
        assert reason in notes
    assert "have less than their headers promise" in notes
    by_name = {source.path(index): index for index in range(len(source))}
    assert source.extent(by_name["hours.wav"]) == source.extent(by_name["wrong suffix.mp3"]) == 16000
    assert 0 < source.extent(by_name["cut.flac"]) < 64000
    assert len(source.read(by_name["cut.flac"])) == source.extent(by_name["cut.flac"])
    assert source.read(by_name["one.wav"]).shape == (1,)
    with pytest.raises(Broken, match="NaN or infinite"):
        source.read(by_name["nan.wav"])
    assert len(source.read(by_name["nan.wav"], slice(0, 8000))) == 8000
    with pytest.raises(Broken, match="not a sound"):
        source.read(by_name["text.wav"])
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(Broken, match="ends before"):
        read(os.fsencode(good), 17000, 18000, 16000)
    with pytest.raises(Broken, match="at once"):
        read(os.fsencode(good), 0, 1 << 40, 16000)


def write_slow(path: Path, seconds: float, rate: int = 44100, channels: int = 2) -> np.ndarray:
    """Write MP3, Vorbis or Opus, and return what it holds, as one channel at 16,000 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = noise(seconds, rate, channels)
    form, subtype = {".mp3": ("MP3", "MPEG_LAYER_III"), ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS")}[
        path.suffix
    ]
    with soundfile.SoundFile(path, "w", rate, channels, subtype, format=form) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])
    return soxr.resample(soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1), rate, 16000)


@pytest.mark.parametrize(("name", "rate"), [("a.mp3", 44100), ("a.ogg", 22050), ("a.opus", 48000), ("a.mp3", 16000)])
def test_what_is_slow_to_decode_is_decoded_once(
    name: str, rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_slow(tmp_path / "s" / name, 8.0, rate)
    source = conformed(tmp_path / "s", seconds=1.0)
    assert source.extent(0) == len(whole)
    monkeypatch.setattr("selfsup.data.audio.store.stream", None)
    again = conformed(tmp_path / "s", seconds=0.5)
    for start, stop in ((0, 1), (0, len(whole)), (4095, 4097), (100_000, 116_000), (len(whole) - 5, len(whole))):
        found = again.read(0, slice(start, stop))
        assert found.dtype == np.float32
        assert found.shape == (stop - start,)
        assert np.abs(found - whole[start:stop]).max() < 1e-4
    assert np.abs(open_query("audio", tmp_path / "s" / name).read(0, slice(rate, 2 * rate))).max() > 0
    assert "mpg123" not in capfd.readouterr().err, "MP3 is never jumped in"
    write_slow(tmp_path / "s" / name, 1.0, rate)
    with pytest.raises(TypeError):  # another file of that name is decoded anew
        conformed(tmp_path / "s")


def test_damage_in_the_store_is_noticed(tmp_path: Path) -> None:
    write_slow(tmp_path / "s" / "a.mp3", 2.0)
    source = conformed(tmp_path / "s")
    (path,) = (tmp_path / "cache" / "audio").rglob("*.samples")
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Broken, match="damaged: start again"):
        source.read(0)
    for bad in (b"", b"{", bytes(data[:9000])):
        conformed(tmp_path / "s")
        path.write_bytes(bad)
        with pytest.raises(UserError, match="damaged: start again"):
            conformed(tmp_path / "s")


def test_slow_files_that_end_early_or_hold_nothing_are_counted(tmp_path: Path) -> None:
    write_slow(tmp_path / "s" / "a.mp3", 2.0)
    whole = write_slow(tmp_path / "s" / "b.mp3", 6.0)
    (tmp_path / "s" / "c.mp3").write_bytes((tmp_path / "s" / "b.mp3").read_bytes()[:40_000])
    (tmp_path / "s" / "d.mp3").write_bytes(b"no sound " * 999)
    source = conformed(tmp_path / "s")
    notes = "\n".join(source.notes)
    assert "1 of 4 recordings have less than their headers promise" in notes
    assert "1 of 4 recordings cannot be read: 1 not a sound" in notes
    assert 0 < source.extent(2) < len(whole)
    assert len(source.read(2)) == source.extent(2)
    assert (source.take(np.array([1, 3])).extent(0), source.extent(3)) == (len(whole), 0)


def test_nothing_readable_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.wav").write_text("this is a text")
    with pytest.raises(UserError, match=r"none of the 1 recordings of .* can be read: 1 not a sound"):
        open_data(tmp_path / "s").spec()
    with pytest.raises(UserError, match="it is one sound; give its folder"):
        open_data(tmp_path / "s" / "a.wav")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no sounds below"):
        open_data(f"audio:{tmp_path / 'none'}")
    with pytest.raises(UserError, match="no such folder"):
        open_data("audio:nowhere")


def test_an_impossible_rate_is_a_broken_sample(tmp_path: Path) -> None:
    for rate in (0, 3, 2**31 - 1):
        path = tmp_path / f"{rate}.wav"
        data = bytearray(write(tmp_path / "x.wav", noise(0.1)).read_bytes())
        data[24:28] = struct.pack("<I", rate)
        path.write_bytes(data)
        with pytest.raises(Broken):
            measure(os.fsencode(path))


def test_many_channels_and_a_long_file_are_read_in_part(tmp_path: Path) -> None:
    """An hour of which half a second is read: no more than that may be decoded."""
    path = tmp_path / "hour.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        second = (10000 * np.sin(np.arange(16000) / 9)).astype("<i2").tobytes()
        file.writeframes(second * 600)
        file.writeframes(second)
    assert about(os.fsencode(path)).samples == 601 * 16000
    assert len(read(os.fsencode(path), 9_500_000, 9_508_000, 16000)) == 8000
    wide = os.fsencode(write(tmp_path / "wide.wav", noise(0.1, 8000, 200), 8000))
    assert read_native(wide, 10, 20).shape == (10, 200)


def test_a_folder_of_several_kinds(make_folder: object, tmp_path: Path) -> None:
    folder = make_folder("mixed")  # type: ignore[operator]
    write(folder / "a.wav", noise())
    assert open_data(folder).kind == "image"
    assert any("audio:" in note and "1 .wav" in note for note in open_data(folder).notes)  # type: ignore[attr-defined]
    sounds = open_data(f"audio:{folder}")
    assert (sounds.kind, len(sounds), sounds.name) == ("audio", 1, f"audio:{folder}")


def test_a_query_is_one_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise())
    assert open_query("audio", path).read(0).shape == (16000,)
    for query, told in ((str(tmp_path / "b.wav"), "no such sound"), (3, "must be the path of a sound, not int")):
        with pytest.raises(UserError, match=told):
            open_query("audio", query)


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "s" / "a.wav", noise())
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(UserError, match=r"pip install 'selfsup\[audio\]'"):
        open_data(tmp_path / "s").spec()


def test_every_suffix_is_one_that_the_library_knows() -> None:
    known = {name.lower() for name in soundfile.available_formats()}
    assert {suffix[1:4] for suffix in SUFFIXES} - {"oga", "opu", "aif", "fla"} <= known


PROGRAM = """#!/bin/sh
if [ "$1" = -lv ]; then echo "Voices available: kal16 awb rms slt"; exit; fi
while [ $# -gt 1 ]; do if [ "$1" = -o ]; then cp {wav} "$2"; fi; shift; done
echo "pau:0.100 dh:0.150 ax:0.250 pau:0.700 "
"""


def test_flite_is_made_once_and_split_by_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program in its place that says the same whatever it is told."""
    monkeypatch.setattr(flite, "SENTENCES", 9)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "flite"
    program.write_text(PROGRAM.format(wav=write(tmp_path / "x.wav", noise(0.5), 16000, "PCM_16")))
    program.chmod(0o755)
    whole, train, test = (open_data(name) for name in ("flite", "flite:train", "flite:test"))
    assert isinstance(whole, Sounds)
    assert whole.labels is not None
    assert (len(whole), whole.labels.classes) == (36, ("awb", "kal16", "rms", "slt"))
    assert len(train) + len(test) == 36
    spoken = [{source.path(i).rpartition("/")[2] for i in range(len(source))} for source in (train, test)]
    assert not spoken[0] & spoken[1]
    assert whole.read(0).shape == (8000,)
    rows = list(csv.reader(io.StringIO((tmp_path / "cache" / "flite-1" / "phones.csv").read_text())))
    assert rows[:2] == [["path", "start", "end", "label"], ["kal16/000.flac", "0.0000", "0.1000", "pau"]]
    assert rows[4] == ["kal16/000.flac", "0.2500", "0.5000", "pau"], "no phone ends behind its recording"
    assert len(rows) == 1 + 4 * 36
    program.unlink()
    assert open_data("flite").fingerprint() == whole.fingerprint(), "from the cache"


def test_without_the_program_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install flite"):
        open_data("flite")
    with pytest.raises(UserError, match="has no part 'dev'; did you mean 'flite' or 'flite:train'"):
        open_data("flite:dev")


def test_sentences_are_the_same_everywhere_and_use_every_word() -> None:
    found = flite.sentences()
    assert len(set(found)) == len(found) == 400
    assert found[0] == "The baker pulled a royal shoe before the storm."
    whole = " ".join(found).lower()
    for words in (flite.WHO, flite.DOES, flite.HOW, flite.WHAT, flite.WHERE, flite.WHEN):
        assert all(word.lower() in whole for word in words)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """The short form of `python -m torture.fuzz --format sounds`."""
    from torture.formats import sounds
    from torture.fuzz import attempt

    case = sounds(tmp_path)
    found = [attempt(case, seed) for seed in range(80)]
    assert [one["failure"] for one in found if "failure" in one] == []
    assert sum("read" in one for one in found) > 15
