"""Videos: the frame store, clips cut in time, generated ones, and the whole way of a folder of files."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.base.opening import data_opened
from selfsup.cli import main
from selfsup.commands.label import _shown
from selfsup.data.index import pack
from selfsup.data.labels import with_labels
from selfsup.data.open import open_data
from selfsup.data.video import Moving, Stored, Videos
from selfsup.data.video.store import open_frames
from selfsup.encoders import build_encoder
from selfsup.encoders.video.vit_clip import cubes, uncubes
from selfsup.errors import UserError
from selfsup.evaluation.carry import carry, one_hot, score
from selfsup.evaluation.parts import make_parts
from selfsup.evaluation.targets import TARGETS, split
from selfsup.reports.finding import _window, read_sample
from selfsup.source import Broken, Labels
from selfsup.spec import Clip, ClipSpec, read_spec
from selfsup.views.image.crop import Crop
from selfsup.views.video import ClipViews, Cut
from support.videos import greys, write_video

FEW = {"steps": 2, "batch_size": 4, "quiet": True, "device": "cpu", "precision": "float32"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    open_frames.cache_clear()


def stored(folder: Path, **options: object) -> Stored:
    videos = open_data(folder)
    assert isinstance(videos, Videos)
    return videos.conform(videos.spec(**options))  # type: ignore[arg-type]


def levels(frames: np.ndarray) -> list[int]:
    return frames.mean((1, 2, 3)).round().astype(int).tolist()


@pytest.mark.parametrize("store", ["uint8", "jpeg"])
def test_every_frame_is_there_and_any_can_be_read(store: str, tmp_path: Path) -> None:
    wanted = list(range(20, 220, 4))
    write_video(tmp_path / "v" / "a.mp4", greys(wanted))
    source = stored(tmp_path / "v", size=28, store=store)
    assert source.extent(0) == 50
    assert source.read(0, slice(3, 4)).shape == (1, 32, 48, 3)
    assert np.abs(np.array(levels(source.read(0))) - wanted).max() <= 3
    assert np.abs(np.array(levels(source.frames(0, np.array([47, 2, 33])))) - [208, 28, 152]).max() <= 3
    assert source.motion(0)[0] == 0
    assert abs(source.motion(0)[1:].mean() - 4) < 0.5


def test_a_variable_frame_rate_becomes_even(tmp_path: Path) -> None:
    """Four frames at 10 a second, then one that is shown for half a second, then two more."""
    times = [0.0, 0.1, 0.2, 0.3, 0.8, 0.9]
    write_video(tmp_path / "v" / "a.mp4", greys([30, 60, 90, 120, 150, 180]), times)
    found = levels(stored(tmp_path / "v", size=28, fps=10.0).read(0))
    assert np.abs(np.array(found) - [30, 60, 90, 120, 120, 120, 120, 120, 150, 180]).max() <= 4
    assert (
        np.abs(np.array(levels(stored(tmp_path / "v", size=28, fps=5.0).read(0))) - [30, 90, 120, 120, 150]).max() <= 4
    )


def test_a_video_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v" / "a.mp4", greys([30, 60]))
    first = stored(tmp_path / "v").read(0)
    monkeypatch.setattr("selfsup.data.video.store.decode", None)
    assert np.array_equal(stored(tmp_path / "v").read(0), first)
    write_video(tmp_path / "v" / "a.mp4", greys([90, 120, 150]))
    with pytest.raises(TypeError):  # another file of that name is decoded anew
        stored(tmp_path / "v")


def test_without_the_store_clips_are_the_same_and_nothing_is_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", greys(range(20, 220, 4)))
    cut = write_video(tmp_path / "v" / "cut.mkv", greys(range(20, 220, 4)))
    cut.write_bytes(cut.read_bytes()[:1500])
    (tmp_path / "v" / "text.mp4").write_text("this is a text")
    streamed = stored(tmp_path / "v", size=28, fps=5.0, store="none")
    assert not (tmp_path / "cache" / "video").exists()
    kept = stored(tmp_path / "v", size=28, fps=5.0)
    assert streamed.extent(0) == kept.extent(0) == 25
    assert np.array_equal(streamed.read(0), kept.read(0))
    assert np.array_equal(streamed.frames(0, np.array([7, 3])), kept.frames(0, np.array([7, 3])))
    assert streamed.fingerprint() == kept.fingerprint()
    assert kept.extent(1) < streamed.extent(1), "the header of a truncated file promises more"
    assert np.array_equal(streamed.frames(1, np.array([kept.extent(1) - 1])), kept.read(1)[-1:])
    with pytest.raises(Broken):
        streamed.extent(2)
    views = ClipViews(ClipSpec.of(28, fps=5.0), {"x": (Crop(28), Cut(4, 2, at="moving"))})
    fetched = views.fetch(streamed, np.arange(3), 0, 0)
    assert set(fetched.batch["index"].tolist()) <= {0, 1}
    few = FEW | {"batch_size": 2}
    for name in "bcde":
        shutil.copy(tmp_path / "v" / "a.mp4", tmp_path / "v" / f"{name}.mp4")
    assert selfsup.pretrain(tmp_path / "v", task="shuffle_learn", store="none", size=16, gap=2,
                            out=tmp_path / "run", **few).done  # fmt: skip
    with pytest.raises(UserError, match="has no tracks"):
        selfsup.pretrain(tmp_path / "v", task="tracking", store="none", out=tmp_path / "other", **few)


def test_bad_files_are_counted_by_reason_and_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "v" / "a.mkv", np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), np.uint8))
    raw = whole.read_bytes()
    (tmp_path / "v" / "cut.mkv").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "v" / "empty.mp4").write_bytes(b"")
    (tmp_path / "v" / "text.mp4").write_text("this is a text")
    videos = open_data(tmp_path / "v")
    source = videos.conform(videos.spec())
    lengths = {source.path(i): source.extent(i) for i in range(len(source))}
    assert lengths["a.mkv"] == 40
    assert 0 < lengths["cut.mkv"] < 40
    assert (lengths["empty.mp4"], lengths["text.mp4"]) == (0, 0)
    assert "2 of 4 videos cannot be read: " in videos.notes[0]
    assert videos.notes[0] in capsys.readouterr().err
    with pytest.raises(Broken, match="not a video"):
        source.read(2)
    views = ClipViews(videos.spec(), {"x": (Crop(64), Cut(2))})
    fetched = views.fetch(videos, np.array([2, 3]), 0, 0)
    assert set(fetched.batch["index"].tolist()) <= {0, 1}
    assert len(fetched.skipped) >= 2
    os.remove(tmp_path / "v" / "a.mkv")
    os.remove(tmp_path / "v" / "cut.mkv")
    with pytest.raises(UserError, match="none of the first 2 videos"):
        open_data(tmp_path / "v").spec()


def test_a_damaged_cache_is_noticed(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", greys([30] * 8))
    source = stored(tmp_path / "v")
    raw = bytearray(source.files[0].read_bytes())
    place = raw.find(bytes(source.read(0)[0][:1]))
    raw[place + 5] ^= 1
    source.files[0].write_bytes(raw)
    open_frames.cache_clear()
    with pytest.raises(Broken, match="damaged"):
        source.read(0)
    source.files[0].write_bytes(raw[:100])
    open_frames.cache_clear()
    with pytest.raises(Broken, match="damaged"):
        source.read(0)
    assert not source.files[0].exists()


@pytest.mark.parametrize("suffix", ["gif", "webp", "apng"])
def test_an_animation_has_the_times_of_its_file(suffix: str, tmp_path: Path) -> None:
    stills = [Image.fromarray(frame) for frame in greys([20, 80, 140, 200])]
    (tmp_path / "v").mkdir()
    stills[0].save(tmp_path / "v" / f"a.{suffix}", save_all=True, append_images=stills[1:], duration=40, lossless=True)
    videos = open_data(f"video:{tmp_path / 'v'}")
    spec = videos.spec(size=28)
    assert spec.fps == pytest.approx(25)
    assert videos.conform(spec).extent(0) == 4
    assert videos.conform(videos.spec(size=28, fps=12.5)).extent(0) == 2


def test_animations_and_folders_of_frames(tmp_path: Path) -> None:
    stills = [Image.fromarray(frame) for frame in greys([40, 80, 120, 160])]
    (tmp_path / "v" / "walk").mkdir(parents=True)
    stills[0].save(tmp_path / "v" / "b.gif", save_all=True, append_images=stills[1:], duration=100)
    stills[0].save(tmp_path / "v" / "c.webp", save_all=True, append_images=stills[1:], duration=100, lossless=True)
    for number, still in enumerate(stills):
        still.save(tmp_path / "v" / "walk" / f"{7 + number}.png")  # 10 is behind 9
    videos = open_data(f"video:{tmp_path / 'v'}")
    source = videos.conform(videos.spec(fps=10.0))
    assert [source.path(i) for i in range(3)] == ["b.gif", "c.webp", "walk"]
    for i in range(3):
        assert np.abs(np.array(levels(source.read(i))) - [40, 80, 120, 160]).max() <= 2


def test_the_first_seconds_of_a_video_are_shown(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", greys([4 * k % 240 for k in range(120)], 96, 192))  # 12 s
    (tmp_path / "v" / "text.mp4").write_text("this is a text")
    videos = open_data(tmp_path / "v")
    shown = read_sample(videos, 0, 64)
    assert isinstance(shown, Clip)
    assert shown.frames.shape == (20, 32, 64, 3)
    assert shown.rate == pytest.approx(10 / 3)
    assert np.abs(np.array(levels(shown.frames)) - np.arange(0, 240, 12)).max() <= 3
    assert read_sample(videos, 1, 64) is None
    moving = read_sample(Moving("moving", 2), 0, 64, frames=8)
    assert isinstance(moving, Clip)
    assert moving.frames.shape == (8, 64, 64, 3)
    animation, mime = _shown(videos, 0, 768)  # type: ignore[misc]
    assert mime == "image/webp"
    with Image.open(io.BytesIO(animation)) as image:
        assert (image.n_frames, image.size) == (20, (192, 96))
    assert _shown(videos, 1, 768) is None


@pytest.mark.parametrize("store", ["uint8", "none"])
def test_windows_of_a_long_video_are_samples(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels_ = [4 * k % 200 for k in range(130)]
    write_video(tmp_path / "v" / "b" / "long.mp4", greys(levels_))  # 13 s
    write_video(tmp_path / "v" / "a" / "short.mp4", greys([9] * 20))
    (tmp_path / "v" / "a" / "text.mp4").write_text("this is a text")
    with data_opened(window=3):
        videos = open_data(tmp_path / "v", "folders")
    assert isinstance(videos, Videos)
    assert "windows of about 3 s of 3 videos; 1 do not say" in capsys.readouterr().err
    paths = [videos.path(i) for i in range(len(videos))]
    assert paths == ["a/short.mp4", "a/text.mp4", *(f"b/long.mp4#t={s}" for s in (0, 3.25, 6.5, 9.75))]
    assert videos.labels.ids.tolist() == [0, 0, 1, 1, 1, 1]
    source = videos.conform(videos.spec(size=28, store=store))
    assert [source.extent(i) for i in (0, 2, 3, 4, 5)] == [20, 32, 33, 33, 32]
    whole = np.concatenate([source.read(i) for i in range(2, 6)])
    assert np.abs(np.array(levels(whole)) - levels_).max() <= 4
    taken = source.take(np.array([4, 0]))
    assert np.array_equal(taken.frames(0, np.array([1])), source.frames(4, np.array([1])))
    assert taken.fingerprint() != source.take(np.array([3, 0])).fingerprint()
    if store == "uint8":
        assert source.motion(4).shape == (33,)
        assert len(set(source.files)) == 3, "each video is decoded once"
    for whole_too in (videos, open_data(tmp_path / "v")):
        for path, first in (("b/long.mp4#t=6.5", 65), ("b/long.mp4#t=0", 0)):
            places = {whole_too.path(i): i for i in range(len(whole_too))}
            shown = _window(whole_too, places, path, 64, 8)
            assert isinstance(shown, Clip)
            assert abs(levels(shown.frames)[0] - levels_[first]) <= 3, "found by seeking"
    assert _window(videos, {"b/long.mp4": 2}, "b/long.mp4#t=nan", 64, 8) is None
    (tmp_path / "few.csv").write_text("path,label\nb/long.mp4,x\nb/long.mp4#t=6.5,y\na/short.mp4,x\n")
    few = with_labels(videos, tmp_path / "few.csv")
    assert few.labels.ids.tolist() == [0, -1, 0, 0, 1, 0]
    (tmp_path / "few.csv").write_text("b/long.mp4#t=0,x\na/short.mp4,y\n")
    few = with_labels(videos, tmp_path / "few.csv")
    assert few.labels.ids.tolist() == [1, -1, 0, -1, -1, -1], "a label of a window is its own"
    with data_opened(window=3), pytest.raises(UserError, match="--window is for folders of videos"):
        open_data("digits")
    for value in ("0", "inf", "x"):
        with pytest.raises(UserError, match="--window"), data_opened(window=value):
            pass


def test_windows_of_a_video_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.evaluation.parts.ENOUGH", 50)
    videos = Videos("v", pack([b"%02d.mp4" % (k // 5) for k in range(600)]))
    videos.parts = np.zeros((600, 2))
    videos.labels = Labels.of([["a", "b"][k // 5 % 2] for k in range(600)])
    rest, aside = split(videos, 0)
    assert len(aside) == 120
    assert len(rest) == 480
    assert not {videos.path(i) for i in rest.tolist()} & {videos.path(i) for i in aside.tolist()}
    for few in (videos.take(np.arange(100)), videos):
        parts = make_parts(few, None, TARGETS["classes"], 0)
        if parts.folds is None:
            assert not {parts.train.path(i) for i in range(480)} & {parts.test.path(i) for i in range(120)}
        else:
            assert all(len({int(parts.folds[i]) for i in range(k, k + 5)}) == 1 for k in range(0, 100, 5))
    one = videos.take(np.arange(5))
    with pytest.raises(UserError, match="no class of v has labels in two files"):
        split(one, 0)


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", greys([30, 60]))
    for options in ({"channels": 2}, {"frames": 0}, {"step": 2000}, {"fps": 0.0}, {"store": "png"}):
        with pytest.raises(UserError, match="--"):
            open_data(tmp_path / "v").spec(**options)
    for options in ({"channels": 2}, {"frames": 0}, {"step": 2000}, {"fps": 5.0}):
        with pytest.raises(UserError, match="--"):
            open_data("moving").spec(**options)
    with pytest.raises(UserError, match="no such folder"):
        open_data("video:nowhere")
    with pytest.raises(UserError, match="it is one video"):
        open_data(tmp_path / "v" / "a.mp4")


@pytest.mark.parametrize("at", ["random", "moving", "even"])
@pytest.mark.parametrize("length", [9, 10, 40])
def test_clips_lie_in_the_video(at: str, length: int) -> None:
    cut = Cut(5, 2, 3, at)  # type: ignore[arg-type]
    motion = np.ones(length, np.float32)
    seen = [cut.numbers(length, motion, np.array([u, 0.5, 1 - 1e-9 - u])) for u in np.linspace(0, 1 - 1e-9, 30)]
    found = np.stack(seen)
    assert found.shape == (30, 3, 5)
    assert (found >= 0).all()
    assert (found < length).all()
    assert (np.diff(found, axis=2) == 2).all()
    assert at == "even" or len(np.unique(found[:, 0, 0])) == min(length - 8, 30)


def test_clips_are_cut_where_something_moves() -> None:
    motion = np.zeros(100, np.float32)
    motion[60:70] = 5.0
    cut = Cut(4, 2, at="moving")
    found = np.concatenate([cut.numbers(100, motion, np.array([u])) for u in np.linspace(0, 1, 50, endpoint=False)])
    assert (found[:, -1] >= 60).mean() > 0.9
    assert (found[:, 0] < 70).mean() > 0.9


def test_short_videos_are_left_out_of_a_task_and_read_evenly_by_evaluation() -> None:
    with pytest.raises(Broken, match="fewer than 9 frames"):
        Cut(5, 2).numbers(8, None, np.array([0.5]))
    assert Cut(5, 2, at="even").numbers(3, None, np.array([0.5])).tolist() == [[0, 0, 1, 2, 2]]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_frames_have_the_same_crop(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, spec = Moving("moving", 6), ClipSpec.of(32, frames=4)
    still = source.frames(0, np.zeros(40, np.int64))
    monkeypatch.setattr(Moving, "frames", lambda self, index, numbers: still[numbers])
    crop = Crop(32, scale=(0.3, 1), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1))
    views = ClipViews(spec, {"x": (crop, Cut(4, 2, 2))}, noise=True).for_device(device)
    batch = views.finish(views.fetch(source, np.arange(6), 3, 1).batch)
    assert batch["x"].shape == (6, 2, 4, 3, 32, 32)
    torch.testing.assert_close(batch["x"], batch["x"][:, :1, :1].expand_as(batch["x"]))
    assert all((batch["x"][i] - batch["x"][0]).abs().max() > 0.1 for i in range(1, 6)), "each video has its own"


def test_views_are_functions_of_seed_epoch_and_index() -> None:
    spec = ClipSpec.of(32, frames=4)
    views = ClipViews(spec, {"x": (Crop(32, scale=(0.3, 1)), Cut(4, 2, at="moving"))}, noise=True)
    source = Moving("moving", 8)
    whole = views.fetch(source, np.arange(8), 3, 1).batch
    some = views.fetch(source, np.array([5, 2]), 3, 1).batch
    assert all(torch.equal(some[key], whole[key][[5, 2]]) for key in whole)
    assert not torch.equal(views.fetch(source, np.arange(8), 3, 2).batch["x"], whole["x"])


def test_moving_is_what_its_labels_and_masks_say() -> None:
    source = Moving("moving", 16)
    assert len(source.labels.classes) == 8
    for index in range(8):
        centre, name = source.scene(index).centre, source.labels.classes[source.labels.ids[index]]
        moved = (centre[:, -1] - centre[:, 0]).mean(0)
        if name in ("left", "right"):
            assert (moved[1] > 0) == (name == "right")
        if name in ("up", "down"):
            assert (moved[0] > 0) == (name == "down")
    numbers = np.array([4, 9])
    mask, frames = source.masks(0, numbers), source.frames(0, numbers)
    assert set(np.unique(mask)) <= {0, 1, 2, 3}
    background = (mask[0] == 0) & (mask[1] == 0)
    assert np.abs(frames[0].astype(int) - frames[1])[background].mean() < 10
    assert np.abs(frames[0].astype(int) - frames[1])[~background].mean() > 20
    object_ = Moving("moving:object", 8)
    assert object_.labels.classes[object_.labels.ids[3]].isdigit()


def test_bounces_lose_speed_with_gravity_alone() -> None:
    for name, arrow in (("moving:gravity", True), ("moving:elastic", False)):
        speeds = []
        for index in range(60):
            speed = np.abs(np.diff(Moving(name, 60).scene(index).centre[:, :, 0]))
            speeds.append(np.log(speed[:, 16:].max(1) / speed[:, :15].max(1)).mean())
        mean, half = np.mean(speeds), 3 * np.std(speeds) / 60**0.5
        assert (mean < -half) == arrow, (name, mean, half)


def test_cubes_are_the_clip() -> None:
    x = torch.randn(2, 4, 3, 16, 24)
    found = cubes(x, 2, 8)
    assert found.shape == (2, 2 * 2 * 3, 2 * 64, 3)
    assert torch.equal(found[1, 0].unflatten(0, (2, 8, 8))[1, :, :, 2], x[1, 1, 2, :8, :8])
    assert torch.equal(uncubes(found, (2, 2, 3), 2, 8), x)


@pytest.mark.parametrize("name", ["convnet", "vit-clip", "r3d_18", "test_resnet"])
def test_encoders_of_clips(name: str) -> None:
    spec = ClipSpec.of(32, 1, frames=4)
    encoder = build_encoder(name, spec).eval()
    x = torch.randn(2, 4, 1, 32, 32)
    out = encoder(x)
    assert out.shape == (2, encoder.dim)
    backwards = encoder(x.flip(1))
    if hasattr(encoder, "frames"):
        torch.testing.assert_close(out, backwards)
        torch.testing.assert_close(encoder.frames(x)[:, 0], encoder.image(x[:, 0]))
    else:
        assert (out - backwards).abs().max() > 1e-3


def test_a_spec_survives_json(tmp_path: Path) -> None:
    spec = ClipSpec.of(32, 1, frames=6, step=3, fps=12.5)
    assert read_spec(spec.to_json(), tmp_path) == spec
    for wrong in ({"frames": 0}, {"fps": -1.0}, {"channels": 2}, {"size": 1.5}, {"std": [0.0]}):
        with pytest.raises(ValueError, match=r"impossible|whole"):
            read_spec(spec.to_json() | wrong, tmp_path)


def test_a_folder_of_videos_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Moving("moving", 32)
    for index in range(32):
        name = source.labels.classes[source.labels.ids[index]]
        if name in ("left", "shake"):
            write_video(tmp_path / "v" / name / f"{index}.mp4", source.read(index))
    started = selfsup.start("v", size=32, quiet=True)
    assert "8 samples of v: video" in started.facts[0]
    assert any("--task shuffle_learn" in step for step in started.commands)
    run = selfsup.pretrain("v", task="arrow_of_time", size=32, out="run", **FEW)
    assert run.spec.frames == 8
    found = selfsup.evaluate(
        run, data="v", labels="folders", shots="1", draws=2, protocol="linear", scratch=False, quiet=True
    )
    assert found.score("raw frames", "linear", 1).values
    assert selfsup.load(run)(run.spec.example(2)).shape == (2, 128)
    assert main(["show", "arrow_of_time", "v", "--size", "32", "-o", "show.png"]) == 0
    assert main(["embed", "run", "v", "-o", "e.parquet"]) == 0
    query = f"v/{'left'}/{os.listdir('v/left')[0]}"
    for out in ("s.png", "s.webp"):
        assert main(["search", "e.parquet", query, "-k", "3", "-o", out]) == 0
    with Image.open("s.png") as still, Image.open("s.webp") as animation:
        assert (still.n_frames if hasattr(still, "n_frames") else 1, animation.n_frames) == (1, 16)
    assert main(["explore", "e.parquet", "-o", "m.html"]) == 0
    assert "background-image:url(data:image/webp" in Path("m.html").read_text()
    assert main(["report", "run", "-o", "r.html"]) == 0
    report = Path("r.html").read_text()
    assert "arrow_of_time" in report
    assert report.count('class="clip"') > 8, "what the task sees, and neighbours"


def test_masks_are_carried_by_features_that_know_the_object() -> None:
    """A square of its own feature that moves by a place a frame: carried exactly; left where it is, lost."""
    truth = np.zeros((6, 32, 32), np.uint8)
    for time in range(6):
        truth[time, 8:16, 4 * time : 4 * time + 8] = 1
    small = torch.stack([one_hot(mask, 2, (8, 8)) for mask in truth])
    features = torch.stack([small[:, 1], small[:, 0]], 1) + 0.01 * torch.randn(6, 2, 8, 8)
    region, boundary = score(carry(features, small[0]), truth)
    assert region > 0.9
    assert boundary > 0.9
    identity = score(small[:1].expand(6, -1, -1, -1), truth)
    assert identity[0] < 0.4
    assert min(score(small, truth)) > 0.9
