"""Labels inside of samples: frames are read at their times, split by sample or group, beside the frames themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import selfsup
from selfsup.cli import main
from selfsup.data.video import Moving
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.evaluation import frame_parts
from selfsup.evaluation.frame_parts import FrameParts, make_frame_parts
from selfsup.evaluation.frame_probes import read_frames
from selfsup.source import Annotations, Labels
from selfsup.spec import ClipSpec
from support.videos import Clips, write_video

SPEC = ClipSpec.of(16, frames=4, step=2)  # windows of 8 frames, of which every second one is seen
CPU = torch.device("cpu")


class Grey(nn.Module):
    """What each frame shows: its mean, in grey levels; `every` frames only one."""

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self.every = every

    def frames(self, x: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(SPEC.mean)[:, None, None] * 255
        levels = (x * 255 * torch.tensor(SPEC.std)[:, None, None] + mean).mean((2, 3, 4))
        return levels[:, :: self.every, None]

    def frame_times(self) -> np.ndarray:
        return SPEC.times()[:: self.every]


class Videos(Clips):
    """Videos in an array, with labels inside: `ids` (N, T), the class of each frame, -1 for none."""

    def __init__(self, x: np.ndarray, ids: np.ndarray, lengths: np.ndarray | None = None) -> None:
        super().__init__(x)
        count, time = ids.shape
        self.lengths = np.full(count, time) if lengths is None else lengths
        owners, frames = np.repeat(np.arange(count), time), np.tile(np.arange(time), count)
        labels = Labels(ids.reshape(-1), tuple(map(str, range(ids.max() + 1))))
        self.frame_labels = Annotations.of(owners, frames / 10, (frames + 1) / 10, labels, np.full(count, np.nan))

    def extent(self, index: int) -> int:
        return int(self.lengths[index])

    def read(self, index: int, span: slice | None = None) -> np.ndarray:
        return self.x[index, : self.lengths[index]][span or slice(None)]

    def take(self, indices: np.ndarray) -> Any:
        taken = Clips(self.x[indices])
        return taken


def plain(levels: np.ndarray, size: int = 16) -> np.ndarray:
    """Return videos of plain frames, from their grey levels (N, T)."""
    return np.broadcast_to(levels[..., None, None, None], (*levels.shape, size, size, 3)).astype(np.uint8)


def squares(rng: np.random.Generator, count: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """Return videos of a white square that jumps between left and right, and on which side it is (N, T)."""
    side = rng.integers(0, 2, (count, time))
    x = rng.integers(0, 60, (count, time, 16, 16, 3), np.uint8)
    for number, frame in np.ndindex(count, time):
        x[number, frame, 4:12, 8 * side[number, frame] : 8 * side[number, frame] + 8] = 255
    return x, side


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on every sample in turn where they are few, as it is outside of the tests."""
    monkeypatch.setattr(frame_parts, "ENOUGH", 50)


@pytest.fixture
def run(tmp_path: Path) -> selfsup.Run:
    """Return a run on squares that hardly trained."""
    x, side = squares(np.random.default_rng(5), 8, 16)
    return selfsup.pretrain(
        Videos(x, side), task="shuffle_learn", encoder="convnet", size=16, frames=4, step=2, gap=2, steps=2,
        batch_size=4, out=tmp_path / "run", quiet=True, device="cpu", precision="float32",
    )  # fmt: skip


def parts_of(source: Any, encoder: Any = None, **options: Any) -> FrameParts:
    options = {"test": None, "groups": None, "seed": 0} | options
    return make_frame_parts(source, options["test"], encoder or Grey(), SPEC, options["groups"], options["seed"])


@pytest.mark.parametrize("every", [1, 2])
def test_every_frame_is_read_once_at_its_time(every: int) -> None:
    """The label of a frame is its number, and so is what the encoder sees: also in windows that reach back."""
    lengths = np.array([1, 3, 8, 9, 15, 16, 31])
    numbers = np.tile(np.arange(31), (len(lengths), 1))
    source = Videos(plain(5 * numbers), np.where(numbers < lengths[:, None], numbers, -1), lengths)
    parts = parts_of(source)
    for sample, length in enumerate(lengths.tolist()):
        whole = length - length % 8
        wanted = [*range(0, whole, 2), *(n for n in range(max(length - 8, 0), length, 2) if n >= whole)]
        assert sorted(parts.labels.ids[parts.sample == sample].tolist()) == wanted, length
    x, read = read_frames(Grey(every), parts, Grey().frame_times(), SPEC, CPU, quiet=True)
    assert read.all()
    seen = x[:, 0] / 5
    wanted = parts.labels.ids if every == 1 else parts.labels.ids - 2 * (parts.place % 2)
    assert np.abs(seen - wanted).max() < 0.5, "an encoder of half the rate is read at the nearest frame"


def test_labelled_frames_are_those_of_the_annotations() -> None:
    ids = np.full((3, 16), -1)
    ids[0, 4:8], ids[2, 0] = 1, 0
    parts = parts_of(Videos(plain(np.zeros((3, 16))), ids))
    assert parts.labels.ids.tolist() == [1, 1, 0]
    assert parts.sample.tolist() == [0, 0, 2]
    assert parts.counts == {"asked": 16, "labelled": 3}, "two samples of 8 frames each"
    assert parts.folds[1] == -2
    assert sorted(parts.folds.tolist()) == [-2, -1, 0]


def test_positions_are_read_beside_raw_frames_and_an_untrained_encoder(run: selfsup.Run) -> None:
    x, side = squares(np.random.default_rng(0), 24, 16)
    found = selfsup.evaluate(
        run, data=Videos(x, side), target="frames", shots="100,all", draws=2, quiet=True, device="cpu"
    )
    assert {score.protocol for score in found.scores} == {"linear", "knn"}
    for name in ("shuffle_learn", "untrained", "raw frame"):
        assert found.score(name, "linear", 100).mean > 0.9, name
    assert found.score("raw frame", "knn", None).mean > 0.9
    about = json.loads((run.folder / "evaluation.json").read_text())["about"]
    assert about["test"]["samples"] == 5
    assert (about["test"]["frames"], about["frames"]["labelled"]) == (5 * 8, 24 * 8)
    assert about["labels"] == {"100": 100, "all": 19 * 8}
    assert 0.5 <= about["majority"] < 0.7
    assert "40 frames of 5 test samples" in " ".join(str(found).split())
    assert found.plot()


@pytest.mark.usefixtures("in_turn")
def test_shuffled_frame_labels_give_chance(run: selfsup.Run) -> None:
    rng = np.random.default_rng(1)
    x, side = squares(rng, 24, 16)
    data = Videos(x, rng.permuted(side, axis=None))
    data.labels = Labels(np.arange(24) % 3, ("a", "b", "c"))
    found = selfsup.evaluate(
        run, data=data, target="frames", groups="labels", shots="all", draws=2, protocol="linear", quiet=True,
        device="cpu",
    )  # fmt: skip
    assert (found.about["folds"], found.about["groups"], found.about["test"]["frames"]) == (3, 3, 24 * 8)
    for score in found.scores:
        assert abs(score.mean - 0.5) < 0.15, score


@pytest.mark.usefixtures("in_turn")
def test_a_sample_and_a_group_are_on_one_side_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each video has a grey of its own and one label drawn for all of its frames: only a leak could tell it."""
    rng = np.random.default_rng(2)
    levels = rng.permutation(np.linspace(0, 255, 40)).repeat(16).reshape(40, 16)
    ids = (np.arange(40) % 2)[rng.permutation(40)].repeat(16).reshape(40, 16)
    source = Videos(plain(levels), ids)
    parts = parts_of(source)
    assert np.bincount(parts.folds).tolist() == [8] * 5
    x, y = read_frames(Grey(), parts, SPEC.times(), SPEC, CPU, quiet=True)[0], parts.labels.ids

    def right(train: np.ndarray) -> float:
        nearest = np.abs(x[~train] - x[train, 0]).argmin(1)
        return float((y[train][nearest] == y[~train]).mean())

    assert right(np.arange(len(y)) % 2 == 0) == 1, "frames of the same video are on both sides"
    assert np.mean([right(parts.fold != fold) for fold in range(5)]) < 0.75
    monkeypatch.setattr(frame_parts, "ENOUGH", 4)
    assert np.bincount(parts_of(source).folds + 1).tolist() == [32, 8]
    voices = Labels(np.arange(40) % 3, ("a", "b", "c"))
    grouped = parts_of(source, groups=voices)
    assert grouped.num_folds == 3
    assert all(len({*grouped.folds[voices.ids == voice]}) == 1 for voice in range(3))
    many = parts_of(source, groups=Labels(np.arange(40) // 4, tuple("abcdefghij")))
    assert np.bincount(many.folds).tolist() == [8] * 5
    with pytest.raises(UserError, match="of one group, 'a'"):
        parts_of(source, groups=Labels(np.zeros(40, np.int64), ("a",)))
    with pytest.raises(UserError, match="40 annotated samples have no group, for example '0'"):
        parts_of(source, groups=Labels(np.full(40, -1), ("a",)))


def test_classes_of_test_data_are_matched_by_name_and_copies_are_counted(run: selfsup.Run) -> None:
    x, side = squares(np.random.default_rng(3), 12, 16)
    train, test = Videos(x, side), Videos(x[:3], 1 - side[:3])
    test.frame_labels = Annotations(**{**vars(test.frame_labels), "classes": ("1", "0")})
    found = selfsup.evaluate(
        run, data=train, test=test, target="frames", shots="50", draws=2, protocol="linear", quiet=True, device="cpu"
    )
    assert found.score("raw frame", "linear", 50).mean > 0.9
    assert found.about["folds"] == 1
    assert found.about["test"]["samples"] == 3
    assert found.about["duplicates"] == {"same": 3}
    assert any("3 of 3 test samples are copies of training samples" in line for line in found.about["warnings"])


@pytest.mark.usefixtures("in_turn")
def test_few_frames_of_many_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.tile(np.arange(16) % 2, (10, 1))
    monkeypatch.setattr(frame_parts, "MOST", 20)
    parts = parts_of(Videos(plain(ids * 100), ids))
    assert np.bincount(parts.fold).tolist() == [4] * 5
    assert parts.counts["labelled"] == 80


def test_moving_says_where_its_sprite_is() -> None:
    source = Moving("moving:object", 4)
    spec = ClipSpec.of(32, frames=8, step=2)
    encoder = build_encoder("convnet", spec)
    parts = make_frame_parts(source, None, encoder, spec, None, 0)
    assert len(parts.sample) == 4 * 16
    rows = zip(
        parts.sample.tolist(), parts.window.tolist(), parts.place.tolist(), parts.labels.ids.tolist(), strict=True
    )
    for sample, window, place, label in rows:
        y, x = source.scene(sample).centre[0, 16 * (window % 2) + 2 * place]
        assert label == 2 * (y > 0.5) + (x > 0.5)


@pytest.mark.usefixtures("in_turn")
def test_what_cannot_be_measured_is_one_line(run: selfsup.Run, finished_run: Path) -> None:
    x, side = squares(np.random.default_rng(4), 6, 16)
    data = Videos(x, side)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": Moving("moving", 8)}, "moving has no labels inside of its samples: give --labels a CSV file"),
        ({"data": data, "shots": "1000"}, "1,000 labelled frames asked for, but there are 32 to draw from"),
        ({"data": data, "shots": "1"}, "at least 2, not 1"),
        ({"data": data, "protocol": "propagate"}, "unknown protocol of --target frames"),
        ({"data": data, "metrics": "retrieval"}, "unknown metrics of --target frames"),
        ({"data": data, "semi": True}, "--semi is for --target classes"),
        ({"data": data, "reference": "resnet18"}, "--reference is not for --target frames"),
        ({"data": data, "groups": "labels"}, "clips brings no labels"),
        ({"data": data, "groups": "labels", "test": data}, "--groups and --test are two ways"),
        ({"data": data, "labels": ["a"]}, "labels inside of samples are a CSV file"),
        ({"data": Videos(x, np.where(np.arange(6)[:, None] == 2, side, -1))}, "only one sample of clips"),
        ({"data": Videos(x, 0 * side)}, "all labelled frames are of one class"),
        ({"data": Videos(x, side, np.zeros(6, np.int64))}, "no frame of clips has a label"),
        ({"data": Videos(x, side, np.full(6, 5))}, "another length than their annotations say"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as error:
            selfsup.evaluate(run, **{"target": "frames", "quiet": True, "device": "cpu"} | options)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="--groups is for --target frames"):
        selfsup.evaluate(run, data=data, groups="labels", quiet=True)
    with pytest.raises(UserError, match="--target frames is for videos and sounds, not for images"):
        selfsup.evaluate(finished_run, data=data, target="frames", quiet=True)
    with pytest.raises(UserError, match="needs an encoder with a representation of each frame"):
        parts_of(data, build_encoder("vit-clip", SPEC))


def test_a_folder_with_a_table_goes_the_whole_way(
    run: selfsup.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = ["path,onset,offset,label"]
    for number in range(6):
        x, side = squares(rng, 1, 16)
        write_video(tmp_path / "v" / ("ab"[number % 2]) / f"{number}.mp4", x[0].repeat(2, 1).repeat(2, 2))
        rows += [f"{number}.mp4,{k / 10},{k / 10 + 0.1},{['left', 'right'][s]}" for k, s in enumerate(side[0])]
    Path("frames.csv").write_text("\n".join(rows))
    command = ["evaluate", "run", "--data", "v", "--labels", "frames.csv", "--target", "frames", "--shots", "20",
               "--draws", "2", "--protocol", "linear", "--device", "cpu", "--json",
               "--groups", "folders"]  # fmt: skip
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["about"]["groups"], found["about"]["folds"]) == (2, 2)
    assert found["about"]["test"]["frames"] == 48
    assert any("'onset' as start" in note for note in found["notes"])
    scores = {score["representation"]: score["mean"] for score in found["scores"]}
    assert scores["raw frame"] > 0.8
    assert main(["report", "run", "-o", "r.html"]) == 0
    assert "48 frames of" in Path("r.html").read_text()
    assert main([*command, "--columns", "label=none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
