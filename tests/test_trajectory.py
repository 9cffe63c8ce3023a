"""Episodes: what sources, shards, readers and views promise, and what is said of odd ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from selfsup.data.kinds import open_query
from selfsup.data.open import open_data
from selfsup.data.trajectory import Dot, Episode, InMemory, Trajectories, observations, transitions, write_shards
from selfsup.data.trajectory.writing import About, read_shards
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.reports.finding import read_sample
from selfsup.source import Broken, Source
from selfsup.spec import Clip, TrajectorySpec, read_spec
from selfsup.views import plain_views, standard_views
from selfsup.views.image.crop import Crop
from selfsup.views.loader import batches
from selfsup.views.trajectory import ObservationViews, SyncViews, TransitionViews
from support.sources import episodes, two_cameras

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 10 episodes of 12 observations in 3 shards; never to be written in."""
    folder = tmp_path_factory.mktemp("recorded") / "r"
    write_shards(folder, *two_cameras(), 10, 4)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_shards_hold_what_was_written(recorded: Path) -> None:
    source, wanted = open_data(str(recorded)), episodes(10)
    assert isinstance(source, Trajectories)
    assert isinstance(source, Source)
    assert (len(source), source.cameras, source.action) == (10, ("front", "back"), ("box", 2))
    for index in (0, 3, 4, 9):
        for camera in source.cameras:
            numbers = np.array([5, 0, 11])
            assert (source.frames(index, numbers, camera) == wanted.frames(index, numbers, camera)).all()
        for found, column in zip(source.steps(index), wanted.steps(index), strict=True):
            np.testing.assert_array_equal(found, column)
    np.testing.assert_array_equal(source.all_steps().state, wanted.all_steps().state)
    some = source.take(np.array([7, 2]))
    assert [some.path(0), some.path(1)] == ["7", "2"]
    assert (some.read(1, slice(2, 6, 2)) == wanted.read(2)[2:6:2]).all()
    assert some.labels is not None
    assert some.labels.ids[1] == source.labels.ids[2]
    assert len({source.fingerprint(), some.fingerprint(), source.take(np.array([2, 7])).fingerprint()}) == 3


def test_a_killed_recording_goes_on_to_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    about, make = two_cameras()

    def killed(k: int) -> Episode:
        if k == 6:
            raise KeyboardInterrupt
        return make(k)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "r", about, killed, 10, 4)
    assert len(open_data(str(tmp_path / "r"))) == 4  # what is whole can be read
    done = []
    write_shards(tmp_path / "r", about, make, 10, 4, advance=done.append)
    assert done[0] == 4
    assert files(tmp_path / "r") == files(recorded)
    with pytest.raises(UserError, match="another recording"):
        write_shards(tmp_path / "r", About(about.cameras, about.action, about.states, 3.0), make, 10, 4)


def test_a_recording_that_goes_on_is_opened_shard_by_shard(recorded: Path) -> None:
    whole, shards = Trajectories(recorded), read_shards(recorded)
    source = Trajectories(recorded, shards=shards[:1])
    whole.labels = source.labels = None  # which are not read later
    first, digest = source.take(np.arange(4)), source.fingerprint()
    assert len(source) == 4
    source.grow(shards[1:2])
    source.grow(shards[2:])
    source.grow([])
    assert source.extents.tolist() == whole.extents.tolist()
    assert source.fingerprint() == whole.fingerprint()
    assert first.fingerprint() == digest
    for index in (3, 9):
        np.testing.assert_array_equal(source.read(index), whole.read(index))
        np.testing.assert_array_equal(source.steps(index).reward, whole.steps(index).reward)


def test_episodes_that_cannot_be_made_are_dropped_and_counted(tmp_path: Path) -> None:
    about, make = two_cameras()

    def crashing(k: int) -> Episode:
        if k == 1:
            raise Broken("the environment crashed")
        episode = make(k)
        return episode._replace(frames={"front": episode.frames["front"]}) if k == 2 else episode

    assert write_shards(tmp_path / "r", about, crashing, 5, 2).total() == 2
    source = open_data(str(tmp_path / "r"))
    assert [source.path(index) for index in range(len(source))] == ["0", "3", "4"]
    assert "2 episodes were dropped" in source.notes[0]


def test_damaged_shards_are_one_line(recorded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    for name, content in files(recorded).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    frames, steps = folder / "shard-00001" / "camera-0.arrow", folder / "shard-00002" / "steps.parquet"
    content = bytearray(frames.read_bytes())
    content[len(content) // 2] ^= 1
    frames.write_bytes(content)
    steps.write_bytes(steps.read_bytes()[:-9])
    source = open_data(str(folder))
    with pytest.raises(Broken, match="damaged"):
        [source.read(index) for index in range(4, 8)]
    with pytest.raises(Broken, match="damaged"):
        source.steps(9)
    spec = source.spec()
    assert ObservationViews(spec).fetch(source, np.arange(8), 0, 0).batch["x"].shape == (8, 3, 32, 32)
    (folder / "shard-00001" / "shard.json").unlink()
    with pytest.raises(UserError, match="shard-00001 is damaged"):
        open_data(str(folder))


def test_dot_is_a_function_of_its_numbers() -> None:
    one, test = Dot("dot"), Dot("dot:test")
    assert (one.read(3) == one.take(np.array([5, 3])).read(1)).all()
    assert not np.array_equal(one.read(0), test.read(0))
    steps = one.steps(0)
    place = steps.state[:, :2]
    np.testing.assert_allclose(steps.reward[:-1], 1 - np.linalg.norm(place[:-1] - 0.5, axis=1), rtol=1e-5)
    assert np.isnan(steps.reward[-1])
    assert np.isnan(steps.action[-1]).all()
    moved = place[1:] - place[:-1]
    free = ((place[1:] > 0.1) & (place[1:] < 0.9)).all(1)
    np.testing.assert_allclose(moved[free], 0.08 * steps.action[:-1][free], atol=1e-5)
    frame = one.read(0)[4].astype(int)  # the dot lies above all others, in its colour
    x, y = (place[4] * 32).astype(int)
    assert np.abs(frame[y, x] - [255, 220, 90]).max() < 3
    assert len(set(one.labels.ids)) == 4


def test_the_spec_survives_json_and_draws_frames(tmp_path: Path) -> None:
    spec = episodes(4).spec(size=16, channels=1, stack=3, camera="back")
    assert spec.cameras == ("back", "front")
    again = read_spec(json.loads(json.dumps(spec.to_json())), tmp_path)
    assert again == spec
    x = plain_views(spec).for_device("cpu").fetch(episodes(4), np.arange(2), 0, 0).batch["x"]
    assert x.shape == spec.example(2).shape == (2, 3, 16, 16)
    drawn = spec.draw(x[0])
    assert isinstance(drawn, Clip)
    assert drawn.frames.shape == (3, 16, 16, 3)
    for wrong in ({"stack": 0}, {"cameras": []}, {"action": ["box"]}, {"fps": 0}, {"mean": [0.5, 0.5]}):
        with pytest.raises((ValueError, KeyError)):
            TrajectorySpec.from_json(spec.to_json() | wrong, tmp_path)
    assert build_encoder("convnet", spec)(x).shape == (2, 512 // 4)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"size": 4}, "--size"), ({"stack": 17}, "--stack"), ({"channels": 2}, "channels"), ({"camera": "side"}, "side")],
)
def test_options_out_of_range_are_refused(options: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        episodes(2).spec(**options)


def test_transitions_hold_what_happened() -> None:
    source = episodes(6)
    found = transitions(source, actions=True, rewards=True)
    assert len(found) == 6 * 11
    spec = source.spec(stack=2)
    views = pickle.loads(pickle.dumps(TransitionViews(spec, states=True)))
    rows = np.array([0, 1, 13, 65])
    batch = views.finish(views.fetch(found, rows, 0, 0).batch)
    for row, place in enumerate(rows.tolist()):
        episode, time = divmod(place, 11)
        steps = source.steps(episode)
        np.testing.assert_array_equal(batch["action"][row], steps.action[time])
        np.testing.assert_array_equal(batch["state"][row], steps.state[time])
        np.testing.assert_array_equal(batch["next_state"][row], steps.state[time + 1])
        assert (batch["episode"][row], batch["reward"][row, 0]) == (episode, steps.reward[time])
        assert batch["time"][row] == pytest.approx(time / 10)
        seen = source.frames(episode, np.maximum([time - 1, time, time + 1], 0), "front")
        for key, two in (("obs", seen[:2]), ("next_obs", seen[1:])):
            shown = spec.draw(batch[key][row])
            assert isinstance(shown, Clip)
            assert np.abs(shown.frames.astype(int) - two).max() <= 1
    assert (batch["discount"] == 1).all()


def test_a_crop_is_the_same_for_both_observations_and_drawn_anew_in_each_epoch() -> None:
    still = InMemory(About(("camera",)), [Episode({"camera": np.repeat(RNG.integers(
        0, 255, (1, 20, 30, 3), np.uint8), 5, 0)}) for _ in range(4)])  # fmt: skip
    views = TransitionViews(still.spec(), crop=Crop(20, pad=4)).for_device("cpu")
    one, other = (views.fetch(still, np.arange(4), 0, epoch).batch for epoch in (0, 1))
    assert torch.equal(one["obs"], one["next_obs"])
    assert not torch.equal(one["obs"], other["obs"])
    again = views.fetch(still, np.array([3]), 0, 0).batch["obs"]
    assert torch.equal(again[0], one["obs"][3])  # whatever else is in its batch
    with pytest.raises(UserError, match="one crop each"):
        TransitionViews(still.spec(), crop=Crop(20, count=2))


def test_a_step_that_terminates_has_no_discount_and_one_that_is_cut_off_has() -> None:
    frames = {"camera": np.zeros((3, 8, 8, 3), np.uint8)}
    ended = Episode(frames, terminated=np.array([False, True]), reward=np.ones(2))
    source = InMemory(About(("camera",)), [ended, Episode(frames, reward=np.ones(2), truncated=True)])
    batch = TransitionViews(source.spec()).fetch(transitions(source, rewards=True), np.arange(4), 0, 0).batch
    assert batch["discount"].flatten().tolist() == [1, 0, 1, 1]
    assert batch["action"].shape == (4, 0)


def test_cameras_see_the_same_moment_and_batches_are_of_one_episode() -> None:
    source = episodes(8)
    found, spec = observations(source, group_size=4), source.spec()
    views = SyncViews(spec).for_device("cpu")
    for fetched in batches(found, views, batch_size=8, seed=0, start=0, steps=12, workers=0):
        batch = fetched.batch
        episode = batch["episode"].view(-1, 4)
        assert (episode == episode[:, :1]).all()
        for row in range(2):
            index, time = int(batch["episode"][row]), round(float(batch["time"][row]) * 10)
            shown = np.asarray(spec.draw(batch["views"][row, 1]))
            assert np.abs(shown.astype(int) - source.frames(index, np.array([time]), "back")[0]).max() <= 1
    seen = [i for step in batches(found, views, batch_size=8, seed=0, start=0, steps=12, workers=0)
            for i in step.batch["index"].tolist()]  # fmt: skip
    assert sorted(seen) == list(range(96))
    with pytest.raises(UserError, match="multiple of 4"):
        next(iter(batches(found, views, batch_size=6, seed=0, start=0, steps=1)))
    with pytest.raises(UserError, match="compares"):
        SyncViews(spec, cameras=3).fetch(source, np.arange(2), 0, 0)
    with pytest.raises(UserError, match="has 1 camera"):
        SyncViews(Dot().spec()).fetch(Dot(), np.arange(2), 0, 0)


def test_standard_views_see_the_middle_and_their_labels() -> None:
    source = episodes(6)
    spec, ways = source.spec(), standard_views(source.spec())
    plain = ways.plain(spec).fetch(source, np.arange(6), 0, 0).batch
    for index in range(6):
        shown = np.asarray(spec.draw(ways.plain(spec).finish(plain)["x"][index])).astype(int)
        assert np.abs(shown - source.frames(index, np.array([5]), "front")[0]).max() <= 1
    one = observations(source)
    assert (ways.plain(spec).fetch(one, np.array([17]), 0, 0).batch["x"][0].permute(1, 2, 0).numpy()
            == source.frames(1, np.array([5]), "front")[0]).all()  # fmt: skip
    learned = ways.labelled(spec, 2, 0.5).fetch(source, np.arange(6), 0, 0).batch
    assert learned["y"].tolist() == source.labels.ids.tolist()
    assert ways.several(spec)[0].fetch(source, np.arange(6), 1, 0).batch["x"].shape == (6, 3, 32, 32)


def test_another_camera_is_taken_or_refused() -> None:
    two, one = episodes(3), Dot().take(np.arange(3))
    spec = two.spec(camera="back")
    assert two.conform(spec).cameras[0] == "back"
    assert one.conform(spec).cameras == ("camera",)
    assert any("taken for back" in note for note in one.notes)
    with pytest.raises(UserError, match="no camera 'camera'"):
        two.conform(Dot().spec())
    with pytest.raises(UserError, match="no images"):
        two.conform(open_data("digits").spec())


def test_odd_episodes_are_counted_or_refused() -> None:
    frames = RNG.integers(0, 255, (4, 8, 8, 3), np.uint8)
    short, lost = Episode({"camera": frames[:1]}), Episode({"camera": frames}, reward=np.array([0, np.nan, 0]))
    source = InMemory(About(("camera",)), [short, lost], "odd")
    found = transitions(source, rewards=True)
    assert len(found) == 2
    assert any("1 of 2 episodes have a single observation" in note for note in source.notes)
    assert any("1 of 3 steps have no known reward" in note for note in source.notes)
    assert any("every reward is 0" in note for note in source.notes)
    with pytest.raises(UserError, match="no actions"):
        transitions(source, actions=True)
    with pytest.raises(UserError, match="two observations"):
        transitions(source.take(np.array([0])))
    with pytest.raises(UserError, match="has 9 observations"):
        observations(source, 9)
    with pytest.raises(UserError, match="episode 0 of x has cameras of different length"):
        InMemory(About(("a", "b")), [Episode({"a": frames, "b": frames[:2]})], "x")
    with pytest.raises(UserError, match="holds no episodes"):
        InMemory(About(("a",)), [])


def write_npz(path: Path, count: int, save=np.savez, **more) -> None:
    given = {"obs": RNG.integers(0, 255, (count, 10, 12, 3), np.uint8), "action": RNG.integers(0, 3, count - 1),
             "reward": np.ones(count - 1), "terminated": np.zeros(count - 1, bool),
             "state": RNG.normal(size=(count, 2)), "label": path.stem[:1]}  # fmt: skip
    save(path, **{key: value for key, value in (given | more).items() if value is not None})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_folders(tmp_path: Path, save) -> None:
    for name, count in (("a1", 5), ("b1", 7)):
        write_npz(tmp_path / f"{name}.npz", count, save)
    source = open_data(str(tmp_path))
    assert (source.kind, len(source), source.action, source.shape) == ("trajectory", 2, ("discrete", 3), (10, 12))
    with np.load(tmp_path / "b1.npz") as wanted:
        assert (source.read(1) == wanted["obs"]).all()
        assert (source.steps(1).action[:-1] == wanted["action"]).all()
        np.testing.assert_allclose(source.steps(1).state, wanted["state"], rtol=1e-6)
    assert source.steps(0).action[-1] == -1
    assert source.labels.classes == ("a", "b")
    assert any("compressed" in note for note in source.notes) == (save is np.savez_compressed)
    assert len(transitions(source, actions=True, rewards=True)) == 10


def test_odd_npz_files_are_left_out_and_counted(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", 5)
    write_npz(tmp_path / "b.npz", 5, action=RNG.normal(size=(4, 2)))
    write_npz(tmp_path / "c.npz", 5, action=None)
    write_npz(tmp_path / "d.npz", 5, reward=np.ones(2))
    write_npz(tmp_path / "e.npz", 5, obs=np.zeros((5, 4, 4, 3)))
    write_npz(tmp_path / "f.npz", 5, state=np.array([{}], object))
    (tmp_path / "g.npz").write_bytes(b"PK no")
    source = open_data(str(tmp_path))
    assert [source.path(index) for index in range(len(source))] == ["a.npz", "c.npz"]
    told = " ".join(source.notes)
    assert "5 of 7 episodes are left out" in told
    assert "another action space" in told
    assert "1 without actions" in told
    assert len(transitions(source, actions=True)) == 4
    two = tmp_path / "two"
    two.mkdir()
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    np.savez(two / "a.npz", obs_left=frames, obs_right=frames[:3], action=np.zeros((4, 1)))
    source = open_data(str(two))
    assert source.cameras == ("left", "right")
    assert source.extent(0) == 3
    assert "up to the end of the shortest" in source.notes[0]


def test_minari_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    frames, position = RNG.integers(0, 255, (2, 6, 9, 8, 3), np.uint8), RNG.normal(size=(2, 6, 2))
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as file:
        for number in range(2):
            group = file.create_group(f"episode_{number}")
            group["observations/pixels"], group["observations/position"] = frames[number], position[number]
            group["actions"], group["rewards"] = RNG.normal(size=(5, 3)), np.arange(5.0)
            group["terminations"] = group["truncations"] = np.zeros(5, bool)
        file.create_group("episode_2")
    source = open_data(str(tmp_path))
    assert (len(source), source.cameras, source.action) == (2, ("pixels",), ("box", 3))
    numbers = np.array([4, 0, 0])
    assert (source.frames(1, numbers, "pixels") == frames[1][numbers]).all()
    np.testing.assert_allclose(source.steps(1).state, position[1], rtol=1e-6)
    assert "1 of 3 episodes are left out: 1 without observations" in source.notes[0]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "main_data.hdf5").write_bytes(b"no")
    with pytest.raises(UserError, match="HDF5"):
        open_data(str(tmp_path / "other"))


def test_minari_arrow(tmp_path: Path) -> None:
    frames = RNG.integers(0, 255, (4, 6, 5, 3), np.uint8)
    folder = tmp_path / "data"
    (folder / "0").mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"observation_space": json.dumps(
        {"type": "Box", "dtype": "uint8", "shape": [6, 5, 3]})}))  # fmt: skip
    lists = pa.FixedSizeListArray.from_arrays(pa.array(frames.reshape(-1)), 90)
    batch = pa.record_batch({"observations": lists, "actions": pa.array([1, 0, 2, 0], pa.int32()),
                             "rewards": pa.array([1.0, 2, 3, 0]), "terminations": pa.array([False, False, True, False]),
                             "truncations": pa.array([False] * 4)})  # fmt: skip
    with pa.ipc.new_file(str(folder / "0" / "part-0.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    source = open_data(str(tmp_path))
    assert (source.cameras, source.action, source.extent(0)) == (("observation",), ("discrete", 3), 4)
    assert (source.read(0) == frames).all()
    steps = source.steps(0)
    assert steps.action.tolist() == [1, 0, 2, -1]
    assert steps.terminated.tolist() == [False, False, True, False]


def test_lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    root, key = tmp_path / "set", "observation.images.top"
    video = root / "videos" / key / "chunk-000" / "file-000.mp4"
    for folder in (video.parent, root / "meta" / "episodes", root / "data" / "chunk-000"):
        folder.mkdir(parents=True)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "0", "g": "2"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for level in range(8):  # the last two of ten are missing
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 20 * level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    features = {key: {"dtype": "video", "shape": [3, 16, 32], "names": ["channels", "height", "width"]},
                "action": {"dtype": "float32", "shape": [2]},
                "observation.state": {"dtype": "float32", "shape": [1], "names": ["joint"]}}  # fmt: skip
    name = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    info = {"codebase_version": "v3.0", "fps": 10, "features": features, "video_path": name}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    rows = {"index": list(range(10)), "action": [[float(i), 0.0] for i in range(10)],
            "observation.state": [[i / 10] for i in range(10)]}  # fmt: skip
    pq.write_table(pa.table(rows), root / "data" / "chunk-000" / "file-000.parquet")
    table = {"episode_index": [0, 1], "length": [5, 5], "dataset_from_index": [0, 5], "dataset_to_index": [5, 10],
             "tasks": [["push"], ["lift"]], f"videos/{key}/chunk_index": [0, 0], f"videos/{key}/file_index": [0, 0],
             f"videos/{key}/from_timestamp": [0.0, 0.5]}  # fmt: skip
    pq.write_table(pa.table(table), root / "meta" / "episodes" / "file-000.parquet")
    source = open_data(str(root))
    assert (len(source), source.states, source.fps, source.shape) == (2, ("joint",), 10.0, (16, 32))
    assert source.labels.classes == ("lift", "push")
    spec = source.spec()
    seen = source.conform(spec)
    np.testing.assert_allclose(seen.frames(1, np.array([2, 0]), key).mean((1, 2, 3)), [140, 100], atol=4)
    with pytest.raises(Broken, match="lacks frames"):
        seen.frames(1, np.array([4]), key)
    assert any("1 of 2 episodes have videos that lack frames" in note for note in seen.notes)
    assert source.conform(spec) is seen
    assert source.steps(1).action[0].tolist() == [5, 0]
    x = plain_views(spec).fetch(source, np.arange(2), 0, 0).batch["x"]
    assert x.shape == (2, 3, 16, 16)
    (root / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(UserError, match="version 3 is read"):
        open_data(str(root))


def test_a_query_is_an_image_of_an_observation(images: Path) -> None:
    path = next(images.rglob("*.png"))
    source = open_query("trajectory", str(path))
    assert (source.kind, len(source), source.extent(0)) == ("trajectory", 1, 1)
    spec = episodes(2).spec()
    assert plain_views(spec).fetch(source, np.array([0]), 0, 0).batch["x"].shape == (1, 3, 32, 32)
    with pytest.raises(UserError, match="image"):
        open_query("trajectory", str(path) + ".no")


def test_an_episode_is_shown_as_a_clip() -> None:
    shown = read_sample(episodes(2), 1, 16)
    assert isinstance(shown, Clip)
    assert shown.frames.shape[1:] == (16, 16, 3)
    assert shown.rate > 1
