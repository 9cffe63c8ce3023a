"""Agents learn to reach goals: what a room is, what a batch is, and that nothing but the seed decides."""

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3 import PPO, SAC

import selfsup
from selfsup.cli import main
from selfsup.control import asked as requests
from selfsup.control import environments, film, reaching, rooms, rounds
from selfsup.control.agents import Agent
from selfsup.control.asked import Asked, asked_of
from selfsup.control.environments import Environment
from selfsup.control.pixels import Pixels
from selfsup.control.playing import Scene, goals, play, random_actions
from selfsup.control.replay import Played, Replay
from selfsup.control.rounds import Rounds, learn
from selfsup.control.sight import Sight
from selfsup.data.trajectory import Episode, sources
from selfsup.errors import RunFailed, UserError
from selfsup.source import Broken
from selfsup.train.checkpoint import load_tensors
from selfsup.views.reading import normalized
from selfsup.views.trajectory import TransitionViews
from support.sources import episodes, toy
from support.tasks import built, first_batch
from test_record import Walk

ME = "test_control"
RNG = np.random.default_rng(0)
SMALL = {"policy_kwargs": {"net_arch": [8]}}


class Slide(Walk):
    """Its action is a number; after three steps the reward of every second episode is nan."""

    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
    failing = False

    def step(self, action):
        assert self.action_space.contains(action)
        self.x, self.time = self.x + float(action[0]), self.time + 1
        broken = self.failing and self.time == 3 and int(self.np_random.integers(2))
        seen = np.array([self.x, self.time])
        return seen, float("nan") if broken else 1.0, abs(self.x) > 30, self.time == 6, {}

    def render(self):
        frame = np.full((24, 24, 3), 40, np.uint8)
        place = int(np.clip(self.x, 0, 20))
        frame[8:12, place : place + 4] = 255
        return frame


class Failing(Slide):
    failing = True


class Dying(Slide):
    def step(self, action):
        raise RuntimeError("the motor is hot")


class Unbounded(Slide):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Stuck(Slide):
    def reset(self, *, seed=None, options=None):
        while True:
            time.sleep(0.01)


class Hanging(Slide):
    def step(self, action):
        return super().step(action) if self.time < 2 else Stuck.reset(self)


class Backwards(Slide):
    def step(self, action):
        seen, reward, *rest = super().step(action)
        return seen, -reward, *rest


class Blind(Slide):
    def render(self):
        return None


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure few episodes."""
    monkeypatch.setattr(rounds, "TRIED", 3)
    monkeypatch.setattr(rounds, "LOOKED", 2)
    monkeypatch.setattr(rounds, "FILMED", 2)
    monkeypatch.setattr(requests, "ROUND", 24)


def small(env: str = "PointRoom", task: str = "rig", per_round: int = 2, **options) -> Asked:
    goals = "rig" in task and options.pop("goals", True)
    given = {
        "steps": 130, "episodes": 3, "seed": 0, "sees": "latents", "agent": "td3" if goals else "sac", "joint": False,
        "size": 16, "stack": 1 if goals else 2, "encoder": "nature-cnn", "encoder_steps": 2, "batch_size": 16,
        "agent_options": SMALL, "goals": goals, "test": env,
    }  # fmt: skip
    asked = asked_of(env, task, {"decoder_dim": 4} if "rig" in task else {"latent_dim": 6}, **given | options)
    return replace(asked, per_round=per_round)


def test_balls_go_round_the_wall_and_not_through_it() -> None:
    places = rooms.free_places(RNG, 500)
    for _ in range(40):
        before = places
        places = rooms.move(places, RNG.uniform(-1.5, 1.5, places.shape))
        assert not rooms.in_wall(places).any()
        assert (np.abs(places - before) <= rooms.REACH + 1e-9).all()
        assert ((places >= rooms.RADIUS) & (places <= 1 - rooms.RADIUS)).all()
    left = np.array([[0.2, 0.2]])
    for _ in range(30):  # against the wall
        left = rooms.move(left, np.array([[1.0, 0.0]]))
    assert left[0, 0] < rooms.WALL[0]
    for action in [(0, 1)] * 15 + [(1, 0)] * 12:
        left = rooms.move(left, np.array([action]))
    assert left[0, 0] > rooms.WALL[2]


def test_a_room_shows_its_ball_where_it_is() -> None:
    places = rooms.free_places(RNG, 20)
    images = rooms.draw(places).astype(np.int64)
    blue = images[..., 2] > 150
    for place, mask in zip(places, blue, strict=True):
        down, across = np.nonzero(mask)
        np.testing.assert_allclose([across.mean(), down.mean()], place * rooms.SIDE - 0.5, atol=0.6)
    one = rooms.draw(places[3:4])
    np.testing.assert_array_equal(one[0], images[3])
    coloured = rooms.draw(places[:2], np.array([[255, 0, 0], [0, 255, 0]]), np.array([[9, 9, 9], [0, 0, 255]]))
    assert (coloured[0] == [255, 0, 0]).all(-1).sum() > 10
    assert (coloured[1] == [0, 255, 0]).all(-1).sum() > 10


def test_rooms_are_environments_of_gymnasium() -> None:
    env = rooms.PointRoom("PointRoom:colours")
    observation, info = env.reset(seed=3)
    again, same = env.reset(seed=3)
    np.testing.assert_array_equal(observation, again)
    np.testing.assert_array_equal(info["ball"], same["ball"])
    assert env.observation_space.contains(observation)
    assert np.linalg.norm(observation - info["goal"]) >= rooms.FAR
    after, reward, terminated, truncated, _ = env.step(np.array([1, 0], np.float32))
    assert reward == pytest.approx(-np.linalg.norm(after - info["goal"]))
    assert not terminated
    assert not truncated
    assert (env.goal_image() != env.render()).any()
    hues = {name: [rooms.PointRoom(name).reset(seed=k)[1]["wall"] for k in range(30)] for name in rooms.NAMES[1:]}
    red, green, blue = np.array(hues["PointRoom:colours:test"]).T
    assert ((green < red) | (green < blue)).all()  # hues of violet and pink alone
    with pytest.raises(UserError, match="did you mean 'PointRoom:colours'"):
        Environment("PointRoom:colour")


def test_rooms_are_recorded(tmp_path: Path) -> None:
    done = selfsup.record("PointRoom:colours", out=tmp_path / "a", episodes=2, size=48, quiet=True)
    assert (done.observations, done.action) == (102, ("box", 2))
    source = selfsup.open_data(tmp_path / "a")
    frames, state = source.read(0), source.steps(0).state
    assert frames.shape == (51, 48, 48, 3)
    assert len(np.unique(state[:, 0])) > 20


def test_the_loss_of_rig_is_that_of_a_vae_summed_over_pixels() -> None:
    source = toy("trajectory")
    task = built("rig", source)
    batch = first_batch(task, source)
    task.beta = 1.0
    value, metrics, _ = task.loss(batch)
    task.beta = 3.0
    more, _, _ = task.loss(batch)
    torch.testing.assert_close(value.detach(), metrics["reconstruction"] + metrics["kl"])
    torch.testing.assert_close(more.detach(), metrics["reconstruction"] + 3 * metrics["kl"])
    x = batch["x"]
    assert metrics["reconstruction"] > 0.1 * x[0].numel()  # a mean over pixels is about 0.5
    torch.testing.assert_close(task.representation()(x), task.posterior(x)[0])


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_an_agent_goes_on_from_its_tensors_to_the_same_bits(name: str) -> None:
    def learned(first: int, last: int, start: dict[str, torch.Tensor] | None = None) -> Agent:
        agent = Agent(name, 4, 2, replay(), 0, 16, SMALL)
        if start:
            agent.load(start, "here")
        for step in range(first, last):
            losses = agent.update(step)
        assert np.isfinite(losses["critic_loss"])
        return agent

    whole, half = learned(0, 7), learned(0, 3)
    torch.manual_seed(99)  # nothing of the state of others
    resumed = learned(3, 7, {key: tensor.clone() for key, tensor in half.tensors().items()})
    assert whole.tensors().keys() == resumed.tensors().keys()
    for key, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[key]), key
    assert any(not torch.equal(tensor, whole.tensors()[key]) for key, tensor in half.tensors().items())
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    assert np.array_equal(whole.act(x), resumed.act(x))
    assert not np.array_equal(whole.act(x), whole.act(x, np.random.default_rng(0)))
    assert np.array_equal(whole.act(x, np.random.default_rng(0)), resumed.act(x, np.random.default_rng(0)))
    with pytest.raises(UserError, match="does not fit"):
        Agent(name, 6, 2, replay(), 0, 16, SMALL).load(whole.tensors(), "there")


class Imagined:
    def draw(self, generator: np.random.Generator, now: np.ndarray) -> np.ndarray:
        return np.full(now.shape, 50, np.float32)


def replay(episodes: int = 4, steps: int = 6) -> Replay:
    """Features are the number of the episode, and the time."""
    found = Replay(Imagined(), 0)
    for first in (0, episodes // 2):
        found.add(
            [
                Played(
                    np.stack([np.full(steps + 1, k), np.arange(steps + 1)], 1).astype(np.float32),
                    np.full((steps, 2), k / 10, np.float32), k == 1, np.array([-k, -1], np.float32),
                )
                for k in range(first, first + episodes // 2)
            ]
        )  # fmt: skip
    return found


def test_goals_are_relabelled_and_rewards_follow() -> None:
    memory = replay()
    memory.step = 5
    batch = memory.sample(400)
    now, goal = batch.observations.numpy()[:, :2], batch.observations.numpy()[:, 2:]
    after = batch.next_observations.numpy()
    np.testing.assert_array_equal(after[:, 2:], goal)
    np.testing.assert_array_equal(after[:, :2], now + np.array([0, 1]))
    kept, imagined = goal[:, 1] == -1, goal[:, 0] == 50
    later = ~kept & ~imagined
    assert (kept.sum(), imagined.sum(), later.sum()) == (80, 200, 120)
    np.testing.assert_array_equal(goal[kept, 0], -now[kept, 0])
    np.testing.assert_array_equal(goal[later, 0], now[later, 0])  # of the same episode
    assert (goal[later, 1] > now[later, 1]).all()
    assert (goal[later, 1] <= 6).all()
    far = np.linalg.norm(after[:, :2] - goal, axis=1) / np.sqrt(2)
    np.testing.assert_allclose(batch.rewards.numpy()[:, 0], -far, rtol=1e-6)
    np.testing.assert_array_equal(batch.dones.numpy()[:, 0], (now[:, 0] == 1) & (now[:, 1] == 5))
    np.testing.assert_allclose(batch.actions.numpy()[:, 0], now[:, 0] / 10, rtol=1e-6)
    assert torch.equal(memory.sample(400).observations, batch.observations)
    memory.step = 6
    assert not torch.equal(memory.sample(400).observations, batch.observations)


def test_what_is_seen_has_one_scale_and_goals_of_its_own_spread() -> None:
    env = Environment("PointRoom", policy="", size=48)
    (episode,) = play(lambda: env, [(0, 1)], random_actions(2, [(3,)]))
    assert isinstance(episode, Episode)
    frames = episode.frames["render"]
    scene = Scene(frames, episode.state, frames)
    for sees, dim in (("state", 2), ("pixels", 16 * 16 * 3)):
        sight = Sight(sees, None, scene)
        features = sight(scene)
        assert features.shape == (51, dim)
        assert features.var(0).mean() == pytest.approx(1, rel=1e-3)
        np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
        assert sight.draw(RNG, features[:5]).shape == (5, dim)
        one = sight(scene.part(slice(7, 8)))
        np.testing.assert_allclose(one[0], features[7], atol=1e-5)


def test_episodes_are_the_same_alone_and_beside_others() -> None:
    make = lambda: Environment(f"{ME}:Slide", policy="", size=16)  # noqa: E731
    still = lambda scene: np.full((len(scene.frames), 1), 0.5, np.float32)  # noqa: E731
    together = play(make, [(0, k) for k in range(3)], still)
    (alone,) = play(make, [(0, 2)], still)
    np.testing.assert_array_equal(together[2].state, alone.state)
    assert alone.action.tolist() == [[1.0]] * 6  # from -2 to 2
    assert alone.truncated
    broken = play(lambda: Environment(f"{ME}:Failing", policy="", size=16), [(0, k) for k in range(6)], still)
    told = {str(one) for one in broken if isinstance(one, Broken)}
    assert told == {"the reward is nan"}
    assert any(isinstance(one, Episode) for one in broken)
    ends = goals(make, [(0, 1), (0, 2)])
    assert ends.states.shape == (2, 2)
    assert (ends.states[:, 1] == 6).all()


def test_goals_of_a_scene_stay_in_it(tmp_path: Path) -> None:
    learner = Rounds(small("PointRoom:colours", task="cc_rig", test="PointRoom:colours:test"), tmp_path / "a", True)
    (tmp_path / "a").mkdir()
    learner.begin()
    source = selfsup.open_data(tmp_path / "a" / "trajectories")
    scene, sight = reaching._scene(source, 0), learner.pupil.sight
    features = sight(scene)
    assert features.shape == (51, 12)
    np.testing.assert_allclose(features[:, 4:], features[:1, 4:].repeat(51, 0), atol=1e-5)  # c
    assert (features[:, :4].std(0) > 1e-3).all()
    drawn = sight.draw(RNG, features[:6])
    np.testing.assert_array_equal(drawn[:, 4:], features[:6, 4:])
    assert (np.abs(drawn[:, :4] - features[:6, :4]) > 1e-3).all()
    assert len(learner.measure("PointRoom:colours:test", 2, 0)) == 2
    with pytest.raises(UserError, match="has other actions or states than PointRoom"):
        small(test=f"{ME}:Slide")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A forked process has none of its parent's threads, and waits for them for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "agent.safetensors")[0]


KINDS = {
    "goals": {"env": "PointRoom", "per_round": 1, "episodes": 2, "steps": 60},
    "few steps": {"env": f"{ME}:Slide", "per_round": 5, "steps": 70},
    "rewards": {"env": f"{ME}:Slide", "task": "curl", "joint": True, "per_round": 4, "steps": 30},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_either_phase_it_ends_with_the_same_weights(kind: str, tmp_path: Path) -> None:
    asked = small(**KINDS[kind])
    whole = learn(asked, tmp_path / "whole", quiet=True)
    killed = tmp_path / "killed"

    def child(collecting: bool) -> None:
        calls = 0

        def dying(original, at):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            return call

        if collecting:  # in an episode of the first round; the random ones are whole by then
            Agent.act = dying(Agent.act, 4)
        else:
            Agent.update = dying(Agent.update, 25)  # of the second round, but of goals
        learn(asked, killed, quiet=True)
        os._exit(0)

    for collecting in (True, False):
        if not (pid := os.fork()):
            child(collecting)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not (killed / "result.json").exists()
    again = learn(asked, killed, quiet=True)
    for key, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(killed)[key]), key
    assert (again.rows, again.history) == (whole.rows, whole.history)
    for shard in sorted((tmp_path / "whole" / "trajectories").glob("shard-*")):
        other = killed / "trajectories" / shard.name
        assert (shard / "shard.json").read_bytes() == (other / "shard.json").read_bytes()


def test_a_folder_of_another_request_or_with_other_shards_is_refused(tmp_path: Path) -> None:
    asked = small(f"{ME}:Slide", sees="state", steps=60)
    learn(asked, tmp_path / "a", quiet=True)
    with pytest.raises(UserError, match=r"learns something else .seed: 0 here, 1 requested"):
        learn(replace(asked, seed=1), tmp_path / "a", quiet=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty"):
        learn(asked, tmp_path / "b", quiet=True)
    shard = tmp_path / "a" / "trajectories" / "shard-00001" / "shard.json"
    shard.write_text(shard.read_text().replace('"camera-0.arrow": "', '"camera-0.arrow": "0'))
    with pytest.raises(UserError, match="is not what this agent learned from"):
        Rounds(asked, tmp_path / "a", quiet=True).begin()


@pytest.mark.parametrize("name", ["steps.parquet", "camera-0.arrow"])
def test_damaged_episodes_are_one_line(name: str, tmp_path: Path) -> None:
    asked = small(f"{ME}:Slide", "deepmdp", per_round=2, steps=12)
    learner = Rounds(asked, tmp_path / "a", True)
    (tmp_path / "a").mkdir()
    learner.begin()
    file = tmp_path / "a" / "trajectories" / "shard-00000" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(range(64))
    file.write_bytes(content)
    sources._frames.cache_clear()
    sources._steps.cache_clear()
    with pytest.raises(RunFailed, match=r"the episodes of the agent are damaged .*: start again with another --out"):
        learn(asked, tmp_path / "a", quiet=True)


def test_episodes_that_fail_are_dropped_and_where_all_fail_it_ends(tmp_path: Path) -> None:
    learner = Rounds(small(f"{ME}:Failing", sees="state", episodes=8), tmp_path / "a", True)
    (tmp_path / "a").mkdir()
    learner.begin()
    assert 0 < learner.dropped < 8
    with pytest.raises(RunFailed, match="none of 3 episodes could be played: step fails: RuntimeError: the motor"):
        learn(small(f"{ME}:Dying"), tmp_path / "b", quiet=True)


@pytest.mark.usefixtures("one_thread")
def test_how_many_environments_are_played_at_once_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for at_once in (1, 4):
        monkeypatch.setattr(rounds, "PER_PLAY", at_once)
        asked = small(f"{ME}:Slide", "deepmdp", per_round=5, steps=12)
        found[at_once] = learn(asked, tmp_path / str(at_once), quiet=True), weights(tmp_path / str(at_once))
    (one, alone), (four, together) = found.values()
    assert (one.rows, one.history) == (four.rows, four.history)
    for key, tensor in alone.items():
        assert torch.equal(tensor, together[key]), key


def pixels(task: str = "curl", **options) -> tuple[Pixels, tuple]:
    source = episodes(6, 8)
    sight = Pixels(small(task=task, size=32, **options), source, gymnasium.spaces.Box(-1, 1, (2,), np.float32))
    sight.add(source)
    return sight, sight.fetch(3)


def moved(sight: Pixels, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in sight.task.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("joint", [False, True])
def test_an_encoder_learns_by_its_task_and_jointly_by_the_critic_too(joint: bool) -> None:
    sight, fetched = pixels(joint=joint)
    other, _ = pixels(joint=joint)  # the same by hand
    before = {key: value.clone() for key, value in sight.task.state_dict().items()}
    step = sight.features(fetched, 3)
    assert bool(moved(sight, before)) != joint  # it waits for the critic
    assert step.seen.requires_grad == joint
    weights = torch.linspace(-1, 1, 6)
    if joint:
        (step.seen * weights).sum().backward()
    sight.follow()
    batch = other.views.finish(fetched[0])
    loss = other.task.loss(batch).value + joint * (other.encoder(batch["obs"]) * weights).sum()
    loss.backward()
    other.optimizer.step()
    other.task.after_step()
    for key, value in other.task.state_dict().items():
        torch.testing.assert_close(sight.task.state_dict()[key], value)
    assert any(key.startswith("momentum_latent") for key in moved(sight, before))
    torch.testing.assert_close(step.reward[:, 0], batch["reward"][:, 0])
    assert step.after.shape == (16, 6)
    assert sight.task.progress == 3 / 130


@pytest.mark.parametrize("sees", ["pixels", "crops", "random"])
def test_without_its_task_an_encoder_learns_by_the_critic_alone_or_not_at_all(sees: str) -> None:
    sight, fetched = pixels(sees=sees)
    before = {key: value.clone() for key, value in sight.task.state_dict().items()}
    step = sight.features(fetched, 3)
    if sees != "random":
        step.seen.square().sum().backward()
    sight.follow()
    changed = {key.partition(".")[0] for key in moved(sight, before)}
    assert changed == (set() if sees == "random" else {"latent", "encoder"})
    whole = TransitionViews(sight.spec).fetch(sight.steps, fetched[0]["index"].numpy(), 0, 0).batch["obs"]
    seen = normalized(whole, sight.spec.image)
    assert torch.allclose(sight.views.finish(fetched[0])["obs"], seen, atol=1e-4) == (sees != "crops")


def test_a_task_without_crops_is_told_from_one_with_them() -> None:
    with pytest.raises(UserError, match="deepmdp sees whole frames, of which --sees pixels learns"):
        pixels("deepmdp", sees="crops")


def test_a_task_of_single_observations_has_batches_of_its_own() -> None:
    sight, fetched = pixels("rig", goals=False)
    assert fetched[0].keys() >= {"obs", "next_obs", "reward"}
    assert fetched[1].keys() >= {"x", "noise"}
    assert sight.features(fetched, 0).seen.shape == (16, 4)
    assert sight.loss > 0


def test_an_agent_remembers_the_frames_that_it_sees_at_once() -> None:
    sight, _ = pixels()
    source, see = sight.steps.source, sight.watching()
    frames = source.read(2)[:3]
    scenes = [Scene(frame[None], np.zeros((1, 1), np.float32), frame[None]) for frame in frames]
    found = [see(0, scene) for scene in scenes]
    see(1, scenes[0])
    x = TransitionViews(sight.spec).fetch(sight.steps, np.arange(14, 17), 0, 0).batch["obs"]
    wanted = sight.encoder(normalized(x, sight.spec.image)).detach().numpy()
    np.testing.assert_allclose(np.concatenate(found), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "env", "words"),
    [
        ("rotation", "PointRoom", "rotation is for data of the kind image.*selfsup control takes cc_rig, curl"),
        ("rigg", "PointRoom", "unknown task 'rigg'; did you mean 'rig'"),
        ("rig", ".", r"\. is a folder or a file.*selfsup pretrain \. --task rig"),
        ("curl", ".", r"\. is a folder or a file.*selfsup pretrain \. --task curl"),
        ("rig", "test_record:Walk", "has 3 actions to choose from; these agents act with real numbers"),
        ("curl", f"{ME}:Unbounded", "have no bounds"),
        ("rig", f"{ME}:Blind", "renders None.*nothing to see"),
        ("curl", f"{ME}:Stuck", "Stuck cannot be rendered: TimeoutError: no answer in 1 s"),
        ("rig", "PointRoom --beta -1", "beta"),
        ("rig", "PointRoom --sees sounds", "unknown sight 'sounds'"),
        ("rig", "PointRoom --sees crops", "unknown sight 'crops'; known: latents, pixels, state"),
        ("rig", "PointRoom --agent ppo", "unknown agent 'ppo'"),
        ("rig", "PointRoom --joint", "imagined goals need an encoder that stays as it is: leave --joint out"),
        ("curl", "SwingUp --joint --sees state", "--sees state trains no encoder: leave --joint out"),
        ("curl", "SwingUp --own-reward", "learns from the environment's reward anyway"),
        ("curl", "SwingUp --camera top", "--camera is not for control"),
        ("curl", "SwingUp --test PointRoom", "PointRoom has other actions or states than SwingUp"),
    ],
)
def test_what_cannot_be_controlled_is_one_line(
    task: str, env: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "TIMEOUT", 1)
    assert main(["control", task, *env.split(), "--out", str(tmp_path / "a")]) == 2
    told = capsys.readouterr().err
    assert re.search(words, told), told
    assert told.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_an_episode_in_which_the_environment_hangs_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "TIMEOUT", 1)
    make = lambda: Environment(f"{ME}:Hanging", policy="", size=16)  # noqa: E731
    before, (left, _) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    (one,) = play(make, [(0, 1)], random_actions(1, [(0,)]))
    assert str(one) == "step fails: TimeoutError: no answer in 1 s"
    assert signal.getsignal(signal.SIGALRM) is before
    assert left - 60 < signal.getitimer(signal.ITIMER_REAL)[0] <= left  # that of pytest goes on


def test_a_film_has_all_scenes_side_by_side(tmp_path: Path) -> None:
    clips = [RNG.integers(0, 255, (count, 20, 20, 3), np.uint8) for count in (3, 5)]
    film.save_clip(tmp_path / "a.webp", film.tiled(clips), 10.0, 20)
    with Image.open(tmp_path / "a.webp") as image:
        assert (image.size, image.n_frames) == ((2 * 160, 160), 5)
    film.save_clip(tmp_path / "b.webp", np.repeat(clips[1], 200, 0)[:, :4, :4], 10.0, 200)
    with Image.open(tmp_path / "b.webp") as image:
        assert image.n_frames <= film.FRAMES


def test_a_replay_that_is_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the episodes take up to [\d,.]+ GiB"):
        learn(small(steps=10**9), tmp_path / "a", quiet=True)


def test_the_command_measures_and_shows_what_was_learned(tmp_path: Path) -> None:
    options = {"steps": 14, "episodes": 3, "size": 16, "batch_size": 16, "quiet": True}
    goals = {"encoder_steps": 2, "decoder_dim": 4, "out": tmp_path / "goals"}
    done = selfsup.learn_control("rig", f"{ME}:Slide", **options, **goals)
    assert [(row.policy, row.episodes) for row in done.rows] == [("agent", 3), ("random", 3)]
    assert "of the start's distance" in str(done)
    sheet = Image.open(tmp_path / "goals" / "goals.webp")
    assert sheet.size == (3 * 144, 2 * 144)  # two rows of beginning, goal and end
    assert selfsup.learn_control("rig", f"{ME}:Slide", **options, **goals).as_json() == done.as_json()  # it is there
    rewards = {"seeds": 2, "test": f"{ME}:Backwards", "joint": True, "latent_dim": 6, "out": tmp_path / "rewards"}
    done = selfsup.learn_control("deepmdp", f"{ME}:Slide", **options, **rewards)
    measured = [(row.env.partition(":")[2], row.policy, row.episodes, row.runs) for row in done.rows]
    assert measured == [
        ("Slide", "agent", 6, 2), ("Slide", "random", 6, 2), ("Backwards", "agent", 6, 2), ("Backwards", "random", 6, 2)
    ]  # fmt: skip
    assert [row.mean for row in done.rows] == [6, 6, -6, -6]
    assert "IQM of 2 runs" in str(done)
    one = tmp_path / "rewards" / "seed-1"
    assert Image.open(one / "policy.webp").size == Image.open(one / "policy-test.webp").size == (2 * 144, 144)
    assert selfsup.load(one / "encoder").dim == 6
    with pytest.raises(UserError, match=r"takes observations of the shape .9, 16, 16."):
        SAC("CnnPolicy", Seen(), policy_kwargs=selfsup.control.features(one / "encoder"), buffer_size=1, device="cpu")


class Seen(gymnasium.Env):
    """What it shows is drawn at random."""

    observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action[0]), False, bool(self.np_random.integers(2)), {}


def test_an_encoder_of_ours_in_stable_baselines3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"size": 16, "decoder_dim": 4, "steps": 1, "batch_size": 8}
    run = selfsup.pretrain("dot", task="rig", encoder="nature-cnn", out=tmp_path / "run", quiet=True, **options)
    kwargs = selfsup.control.features(run.folder)

    before = {key: value.clone() for key, value in run.load().state_dict().items()}
    PPO("CnnPolicy", Seen(), policy_kwargs=kwargs, n_steps=8, batch_size=8, n_epochs=1, device="cpu").learn(8)
    agent = SAC(
        "CnnPolicy", Seen(), policy_kwargs=kwargs, buffer_size=20, learning_starts=4, batch_size=4, device="cpu"
    )
    agent.learn(8)
    frame = RNG.integers(0, 255, (16, 16, 3), np.uint8)
    agent.predict(frame)
    extractor = agent.actor.features_extractor
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert all(torch.equal(value, before[key]) for key, value in extractor.encoder.state_dict().items())
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    wanted = run.load()(normalized((pixels * 255).to(torch.uint8), run.spec.image))
    torch.testing.assert_close(extractor(pixels), wanted, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(Seen, "observation_space", gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8))
    with pytest.raises(UserError, match="takes observations of the shape"):
        SAC("CnnPolicy", Seen(), policy_kwargs=kwargs, buffer_size=1, device="cpu")
