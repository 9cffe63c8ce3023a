"""Tasks that compare what cameras see and what was taken: their losses by hand, their views, and how both are read."""

import json
import math

import numpy as np
import pytest
import torch

import selfsup
from selfsup.control.mocap import Mocap
from selfsup.control.named import find_recording
from selfsup.control.tray import Tray
from selfsup.data.trajectory import About, Episode, InMemory, observations
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.evaluation.alignment import align, measure_alignment
from selfsup.evaluation.frozen import FrozenEncoder
from selfsup.evaluation.taken import BOX, measure_objects
from selfsup.losses import npairs, semi_hard
from selfsup.nn.image.places import spatial_softmax
from selfsup.spec import TrajectorySpec
from selfsup.tasks import find_task
from selfsup.tasks.control.multi_view import same_moment
from selfsup.tasks.control.trunks import heat_maps
from selfsup.train.recalibrate import recalibrate
from selfsup.views.loader import batches
from selfsup.views.trajectory import GraspViews, NearViews
from support.sources import episodes


def test_npairs_by_hand() -> None:
    anchor, positive = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, 1.0]])
    logits = [[3.0, 0.0], [2.0, 2.0]]
    wanted = sum(math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(logits)) / 2
    wanted += 0.002 / 4 * ((1 + 4) / 2 + (10 + 1) / 2)
    assert npairs(anchor, positive).item() == pytest.approx(wanted)
    own = torch.eye(2, dtype=torch.bool)
    assert npairs(anchor, positive, 0.0, among=own).item() == pytest.approx(0)


def test_semi_hard_negatives_are_the_nearest_beyond_the_positive_else_the_furthest() -> None:
    anchor, line = torch.zeros(1, 1), torch.tensor([[1.0], [0.5], [1.05], [3.0]])  # the first is the positive
    positive = torch.tensor([[True, False, False, False]])
    assert semi_hard(anchor, line, positive, ~positive, 0.2).item() == pytest.approx(1 - 1.05**2 + 0.2, abs=1e-5)
    inside = torch.tensor([[False, True, False, False]])
    assert semi_hard(anchor, line, positive, inside, 0.2).item() == pytest.approx(1 - 0.25 + 0.2)
    two = torch.tensor([[1.0], [0.1], [0.7]])
    found = semi_hard(anchor, two, positive[:, :3], ~positive[:, :3], 0.2)
    assert found.item() == pytest.approx(1 - 0.49 + 0.2), "the furthest of those that are nearer than the positive"
    assert semi_hard(anchor, line, positive, torch.zeros_like(positive), 0.2).item() == 0


def test_candidates_are_of_the_same_episode() -> None:
    torch.manual_seed(0)
    z, episode = torch.randn(8, 2, 4), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    parts = [same_moment(z[k : k + 4], episode[k : k + 4], "npairs", 0.2, 0.0, True).value for k in (0, 4)]
    whole = same_moment(z, episode, "npairs", 0.2, 0.0, True)
    torch.testing.assert_close(whole.value, sum(parts) / 2)
    assert whole.chance == pytest.approx(math.log(4))
    assert same_moment(z, episode, "npairs", 0.2, 0.0, False).chance == pytest.approx(math.log(8))
    parts = [same_moment(z[k : k + 4], episode[k : k + 4], "triplet", 0.2, 0.0, True).value for k in (0, 4)]
    torch.testing.assert_close(same_moment(z, episode, "triplet", 0.2, 0.0, True).value, sum(parts) / 2)


def test_perfect_embeddings_find_every_moment() -> None:
    z = 9 * torch.eye(6)[:, None].expand(-1, 2, -1)
    for objective in ("npairs", "triplet"):
        loss = same_moment(z, torch.zeros(6), objective, 0.2, 0.0, True)
        assert loss.metrics["retrieval"] == 1
        assert loss.value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["tcn", "tcn_single", "mftcn"])
def test_batches_hold_groups_of_one_episode(name: str) -> None:
    source, kind = episodes(8), find_task(name)
    spec = source.spec(**kind.data_defaults)
    task = kind(build_encoder(kind.small_encoder, spec), **kind.resolve(source, {}))
    assert task.group_size == 8, "the largest power of 2 in 12 observations"
    batch = next(
        iter(batches(task.samples(source), task.views(spec), batch_size=16, seed=0, start=0, steps=1, workers=0))
    ).batch
    ids = batch["episode"].view(2, 8)
    assert (ids == ids[:, :1]).all()
    assert ids[0, 0] != ids[1, 0]
    assert len(batch["time"].view(16, -1)[:8, 0].unique()) == 8


def test_near_observations_are_near_and_others() -> None:
    source = episodes(4)
    for within, reach in ((0.25, 0.25), (1e-6, 1 / source.fps)):
        views = NearViews(source.spec(), within=within)
        batch = views.fetch(observations(source), np.arange(48), 0, 0).batch
        apart = (batch["time"][:, 0] - batch["time"][:, 1]).abs()
        assert apart.min() > 0
        assert apart.max() <= reach + 1e-5
    assert len(apart.mul(source.fps).round().unique()) == 1
    about = About(("a",))
    short = InMemory(about, [Episode({"a": np.zeros((n, 8, 8, 3), np.uint8)}) for n in (1, 3)])
    fetched = NearViews(short.spec(), within=1.0).fetch(short, np.array([0, 0]), 0, 0)
    assert fetched.skipped[0] == (0, "a single observation")
    assert (fetched.batch["episode"] == 1).all()


def test_tcn_single_says_that_episodes_are_too_short_for_negatives() -> None:
    source, kind = episodes(4), find_task("tcn_single")
    task = kind(build_encoder("convnet", source.spec()), negative=99.0)
    with pytest.raises(UserError, match="--negative"):
        task.samples(source)


def test_one_camera_is_refused_with_a_task_that_needs_no_more() -> None:
    source = InMemory(About(("a",)), [Episode({"a": np.zeros((20, 16, 16, 3), np.uint8)})] * 4)
    with pytest.raises(UserError, match="tcn_single"):
        selfsup.show("tcn", source)


def test_encoders_that_a_task_cannot_take_are_refused_with_one_that_it_can() -> None:
    spec = TrajectorySpec.of(32, stack=5)
    with pytest.raises(UserError, match="frames:convnet"):
        find_task("mftcn")(build_encoder("convnet", spec))
    for name in ("tcn", "grasp2vec"):
        with pytest.raises(UserError, match="convnet or resnet18"):
            find_task(name)(build_encoder("vit", TrajectorySpec.of(32)))


def test_frames_are_encoded_one_by_one() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("frames:convnet", TrajectorySpec.of(16, stack=3)).eval()
    x = torch.randn(2, 9, 16, 16)
    alone = torch.cat([encoder.image(x[:, 3 * k : 3 * k + 3]) for k in range(3)], 1)
    torch.testing.assert_close(encoder(x), alone)
    assert encoder.dim == alone.shape[1]


def test_mftcn_sees_the_order_of_frames() -> None:
    torch.manual_seed(0)
    task = find_task("mftcn")(build_encoder("frames:convnet", TrajectorySpec.of(16, stack=5))).eval()
    x = torch.randn(2, 5, 3, 16, 16)
    forth, back = (task.representation()(part.flatten(1, 2)) for part in (x, x.flip(1)))
    assert (forth - back).abs().max() > 1e-3


def test_spatial_softmax_is_where_a_map_is_largest() -> None:
    maps = torch.zeros(1, 2, 5, 7)
    maps[0, 0, 0, 6] = maps[0, 1, 4, 3] = 100
    torch.testing.assert_close(spatial_softmax(maps), torch.tensor([[[-1.0, 1.0], [1.0, 0.0]]]))


def test_alignment_of_what_is_the_same_reversed_and_random() -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(40, 8)).astype(np.float32)
    assert align(z, z) == (0, 1)
    assert align(z, z[::-1]).tau == -1
    assert align(z, np.zeros_like(z)).tau == 0
    chance = [align(z, generator.normal(size=z.shape).astype(np.float32)) for _ in range(200)]
    error, tau = np.mean(chance, 0)
    assert error == pytest.approx(1 / 3, abs=0.02)
    assert tau == pytest.approx(0, abs=0.03)


def test_cameras_that_see_the_same_are_aligned() -> None:
    about = About(("left", "right"), fps=10.0)
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (3, 12, 16, 16, 3), dtype=np.uint8)
    same = InMemory(about, [Episode({"left": one, "right": one}) for one in frames])
    other = InMemory(about, [Episode({"left": one, "right": one[::-1].copy()}) for one in frames])
    encoder = FrozenEncoder("own", build_encoder("convnet", same.spec()), same.spec(), untrained=True)
    for source, error, tau in ((same, 0.0, 1.0), (other, None, -1.0)):
        found = measure_alignment("tcn", [encoder], source, source.spec(), seed=0, device="cpu")
        assert found.rows.keys() == {"own", "pixels", "colour histogram", "PCA"}
        for name in found.rows:
            assert found.tau(name) == pytest.approx(tau, abs=0.01), name
            assert error is None or found.error(name) == error
    assert found.rows["own"].keys() == {"left to right", "right to left"}
    one = InMemory(About(("a",)), [Episode({"a": frames[0]})])
    with pytest.raises(UserError, match="two"):
        measure_alignment("tcn", [encoder], one, one.spec(), seed=0, device="cpu")


BOTH = ("scene", "object")


def grasps(count: int = 40) -> InMemory:
    """Scenes of two of four objects, bright squares in a column of their own; one is taken, and shown in the middle."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])
    generator, made = np.random.default_rng(0), []
    for _ in range(count):
        taken, other = generator.choice(4, 2, replace=False)
        frames = np.full((2, 2, 32, 32, 3), 90, np.uint8)  # scene, object; before, after
        row, place = generator.integers(0, 24, 2)
        left, right = int(place // 2), int(16 + place // 4)
        frames[0, 0, row : row + 8, left : left + 8] = colours[taken]
        frames[0, :, 12:20, right : right + 8] = colours[other]
        frames[1, 1, 12:20, 12:20] = colours[taken]
        box = np.array([left, row, left + 8, row + 8]) / 32
        made.append(
            Episode({"scene": frames[0], "object": frames[1]}, state=np.tile(box, (2, 1)), label=f"kind {taken}")
        )
    return InMemory(About(BOTH, states=BOX), made, "grasps")


def test_what_was_taken_is_the_difference() -> None:
    source = grasps()
    fetched = GraspViews(source.spec()).fetch(source, np.arange(8), 0, 0)
    for k in range(8):
        left, top, right, bottom = (source.steps(k).state[0] * 32).round().astype(int)
        changed = (fetched.batch["pre"][k] != fetched.batch["post"][k]).any(0)
        assert changed[top:bottom, left:right].all()
        assert changed.sum() == (bottom - top) * (right - left)
    single = InMemory(About(BOTH), [Episode({camera: np.zeros((1, 8, 8, 3), np.uint8) for camera in BOTH})])
    with pytest.raises(Exception, match="nothing before or nothing after"):
        GraspViews(single.spec()).fetch(single, np.array([0]), 0, 0)


def test_gradients_reach_both_trunks_of_grasp2vec_and_both_are_kept() -> None:
    source = grasps()
    torch.manual_seed(0)
    task = find_task("grasp2vec")(build_encoder("convnet", source.spec()))
    views = task.views(source.spec())
    batch = views.finish(views.for_device("cpu").fetch(source, np.arange(16), 0, 0).batch)
    own = torch.autograd.grad(task.loss(batch).value, [*task.encoder.parameters(), *task.object.parameters()])
    assert all(bool(gradient.abs().sum() > 0) for gradient in own)
    assert {id(p) for p in task.representation().parameters()} == {id(p) for p in task.parameters()}
    with pytest.raises(UserError, match="did you mean"):
        find_task("grasp2vec")(task.encoder, object_camera="objekt").samples(source)


def test_the_statistics_of_the_object_trunk_are_kept_where_those_of_scenes_are_taken_again() -> None:
    source = grasps(16)
    torch.manual_seed(0)
    trunks = find_task("grasp2vec")(build_encoder("convnet", source.spec())).representation()
    for number, norm in enumerate(module for module in trunks.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.fill_(5.0 + number)
    before = {key: value.clone() for key, value in trunks.state_dict().items()}
    recalibrate(trunks, source, source.spec(), seed=0, device="cpu")
    for key, value in trunks.state_dict().items():
        assert torch.equal(value, before[key]) == (not ("running" in key or "tracked" in key) or "object" in key), key


def test_the_heat_map_is_highest_where_the_maps_are_the_object() -> None:
    maps = torch.rand(2, 4, 5, 5) * 0.1
    maps[:, :, 1, 3] = torch.tensor([[3.0, 0, 0, 0], [0, 0, 3.0, 0]])
    heat = heat_maps(maps, torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]]))
    assert heat.flatten(1).argmax(1).tolist() == [8, 8]
    assert heat.amax((1, 2)).tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore")
def test_grasp2vec_finds_what_was_taken_and_where(tmp_path) -> None:
    source = grasps(96)
    run = selfsup.pretrain(
        source, task="grasp2vec", encoder="convnet", steps=30, batch_size=24, pad=1, size=32, out=tmp_path / "run",
        quiet=True,
    )  # fmt: skip
    found = selfsup.evaluate(run, data=grasps(), target="objects", quiet=True)
    assert {"grasp2vec", "untrained", "untrained grasp2vec", "mean colour", "pixels", "PCA"} <= found.rows.keys()
    assert found.rows["grasp2vec"] > 0.9
    assert found.rows["mean colour"] > 0.9, "these objects are told by their colours"
    assert found.located["grasp2vec"] > 2 * found.about["filled"]
    assert json.loads((run.folder / "objects.json").read_text())["rows"] == found.rows
    assert "R@1" in str(found)
    for name, value in (("shots", "5"), ("protocol", "linear"), ("test", "digits")):
        with pytest.raises(UserError, match=f"--{name} is not for"):
            selfsup.evaluate(run, data=source, target="objects", **{name: value})
    with pytest.raises(UserError, match="compares cameras"):
        selfsup.evaluate(
            run, data=InMemory(About(("scene",)), [Episode({"scene": source.read(0)})]), target="alignment"
        )


def test_objects_need_labels_and_a_camera() -> None:
    source = grasps(8)
    arguments = {"seed": 0, "device": "cpu"}
    with pytest.raises(UserError, match="camera of the object"):
        measure_objects("x", [], source, source.spec(), camera="hand", **arguments)
    source.labels = None
    with pytest.raises(UserError, match="labels"):
        measure_objects("x", [], source, source.spec(), camera="object", **arguments)


def test_mocap_is_a_function_of_seed_and_number_from_still_cameras() -> None:
    pytest.importorskip("pybullet")
    world = Mocap(24)
    first, again, other = world.episode(0, 11), Mocap(24).episode(0, 11), world.episode(1, 11)
    assert first.label == other.label == "run"
    for camera in world.cameras:
        assert np.array_equal(first.frames[camera], again.frames[camera])
        assert not np.array_equal(first.frames[camera], other.frames[camera])
        corner = first.frames[camera][:, :2, :2]
        assert (corner == corner[0]).all(), "the background stands still"
    assert not np.array_equal(first.frames["left"], first.frames["right"])
    assert first.state.shape == (16, len(world.states))
    speed = np.gradient(first.state[:, 0], 1 / world.fps)
    assert np.allclose(first.state[:, world.states.index("height_speed")], speed, atol=1e-3)
    labels = {world.files[(k + k // 15) % 15].stem for k in range(4, 75, 5)}
    assert len(labels) == 15, "every fifth episode shows all motions"


def test_recordings_that_have_a_name() -> None:
    pytest.importorskip("pybullet")
    worlds = {name: find_recording(name) for name in ("mocap2", "tray", "tray:unseen")}
    made = {name: one.make(**one.options) for name, one in worlds.items() if one is not None}
    assert isinstance(made["mocap2"], Mocap)
    assert [made[name].unseen for name in ("tray", "tray:unseen")] == [False, True]


def test_the_object_is_in_the_tray_before_and_not_after() -> None:
    pytest.importorskip("pybullet")
    world, hidden = Tray(32), Tray(32, unseen=True)
    for number in range(3):
        episode = world.episode(0, number)
        left, top, right, bottom = (episode.state[0] * 32).round().astype(int)
        scene, alone = episode.frames["scene"].astype(int), episode.frames["object"].astype(int)
        changed = np.abs(scene[0] - scene[1]).sum(2) > 30
        assert changed[top:bottom, left:right].mean() > 0.25
        assert (np.abs(alone[0] - alone[1]).sum(2) > 30).sum() > 5, "nothing before, the object after"
        assert changed.sum() > changed[top:bottom, left:right].sum(), "the others shifted"
    again = Tray(32).episode(0, 2)
    assert all(np.array_equal(again.frames[camera], episode.frames[camera]) for camera in world.cameras)
    seen = {world.episode(0, k).label for k in range(6)}
    assert not seen & {hidden.episode(0, k).label for k in range(6)}


@pytest.mark.timeout(60)
def test_a_kind_that_is_too_small_to_be_seen_is_not_taken() -> None:
    pytest.importorskip("pybullet")
    world = Tray(48)
    labels = {world.episode(1, number).label for number in (6, 28, 39)}  # their draws begin with such kinds
    assert not labels & {"297", "824"}
