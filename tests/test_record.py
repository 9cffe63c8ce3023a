"""Episodes are recorded: a function of (seed, number), resumable to the same bytes, and what goes wrong is said."""

import hashlib
import os
import signal
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import selfsup
from selfsup.base.opening import recorded_by
from selfsup.commands import _record
from selfsup.control import named
from selfsup.control.environments import Environment
from selfsup.control.named import Recording, record_named
from selfsup.control.record import record
from selfsup.data.open import open_data
from selfsup.data.trajectory import Trajectories
from selfsup.data.trajectory.named import recorded_folder
from selfsup.errors import RunFailed, UserError

ME = "test_record"


class Walk(gymnasium.Env):
    """A white square that actions move over a grey image; what it did in earlier episodes makes it darker."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 (as Gymnasium has it)
    action_space = gymnasium.spaces.Discrete(3, start=-1)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, render_mode=None):
        self.render_mode, self.played, self.spec = render_mode, 0, None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.played += 1
        self.x, self.time = int(self.np_random.integers(4, 16)), 0
        return np.array([self.x, self.time]), {}

    def step(self, action):
        assert action in (-1, 0, 1)
        self.x, self.time = int(np.clip(self.x + action, 0, 20)), self.time + 1
        return np.array([self.x, self.time]), float(action), self.x in (0, 20), False, {}

    def render(self):
        frame = np.full((24, 24, 3), 100 - 5 * self.played, np.uint8)
        frame[8:12, self.x : self.x + 4] = 255
        return frame


class Crashing(Walk):
    """Fails in a step of every third episode."""

    def step(self, action):
        if int(self.np_random.integers(3)) == 0 and self.time == 2:
            raise RuntimeError("the motor is hot\nand more")
        return super().step(action)


class Hopeless(Walk):
    def step(self, action):
        raise RuntimeError("the motor is hot")


class NoReward(Walk):
    def step(self, action):
        return (*super().step(action)[:1], float("nan"), False, False, {})


class Unbounded(Walk):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def step(self, action):
        assert action.dtype == np.float32
        return super().step(0)


class Dictionary(Walk):
    action_space = gymnasium.spaces.Dict({"arm": gymnasium.spaces.Discrete(2)})


class Blind(Walk):
    def render(self):
        return None


class Pixels(Walk):
    """Observations are images, with numbers beside them nowhere."""

    observation_space = gymnasium.spaces.Box(0, 255, (40, 30, 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((40, 30, 1), 7, np.uint8), {}

    def step(self, action):
        _, *rest = super().step(action)
        return np.full((40, 30, 1), 7 + self.time, np.uint8), *rest


class Right:
    """A policy that goes to the right, and counts its episodes."""

    def __init__(self, env):
        self.env, self.episodes = env, 0

    def reset(self):
        self.episodes += 1

    def __call__(self, observation, generator):
        assert self.episodes
        return 1


def wrong(observation, generator):
    return 7


def failing(observation, generator):
    return observation[99]


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def played(folder: Path, env: str = "Walk", episodes: int = 5, per_shard: int = 2, **options):
    make = lambda: Environment(f"{ME}:{env}", **{"size": 16, "steps": 12} | options)  # noqa: E731
    dropped = record(folder, make, episodes, 0, {"env": env}, per_shard=per_shard, quiet=True)
    return Trajectories(folder), dropped


def test_an_episode_is_what_the_environment_did(tmp_path: Path) -> None:
    source, dropped = played(tmp_path / "a", size=24)
    assert not dropped
    assert (source.cameras, source.action, source.fps) == (("render",), ("discrete", 3), 5.0)
    assert source.states == ("observation_0", "observation_1")
    for index in range(len(source)):
        steps = source.steps(index)
        count = source.extent(index)
        assert steps.state[:, 1].tolist() == list(range(count))
        moved = np.diff(steps.state[:, 0])
        inside = (steps.state[:-1, 0] + steps.action[:-1] - 1 > 0) & (steps.state[:-1, 0] + steps.action[:-1] - 1 < 20)
        np.testing.assert_array_equal(moved[inside], steps.action[:-1][inside] - 1)  # from 0 on
        np.testing.assert_array_equal(steps.reward[:-1], steps.action[:-1] - 1)
        assert steps.action[-1] == -1
        assert np.isnan(steps.reward[-1])
        assert steps.terminated[:-2].sum() == 0
        assert steps.terminated[-2] == (steps.state[-1, 0] in (0, 20))
        frames = source.frames(index, np.arange(count), "render")
        assert frames.shape == (count, 24, 24, 3)
        np.testing.assert_array_equal((frames[:, 9, :, 0] == 255).argmax(1), steps.state[:, 0])


def test_a_killed_recording_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Even where the environment keeps something from one episode to the next: each shard begins with a new one."""
    whole, _ = played(tmp_path / "whole", per_shard=3, episodes=8)
    killed, calls = tmp_path / "killed", 0

    def dying(self, action, step=Walk.step):
        nonlocal calls
        calls += 1
        if calls == 60:  # in the second shard
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, action)

    if not (child := os.fork()):
        Walk.step = dying
        played(killed, per_shard=3, episodes=8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (killed / "shard-00000").is_dir()
    assert not (killed / "shard-00002").exists()
    played(killed, per_shard=3, episodes=8)
    assert digest(killed) == digest(tmp_path / "whole")
    again, _ = played(killed, per_shard=3, episodes=8)  # nothing left to do
    assert again.fingerprint() == whole.fingerprint()


def test_more_episodes_continue_a_recording(tmp_path: Path) -> None:
    first, _ = played(tmp_path / "a", episodes=4)
    more, _ = played(tmp_path / "a", episodes=6)
    assert len(more) == 6
    np.testing.assert_array_equal(first.read(3), more.read(3))
    with pytest.raises(UserError, match="another recording"):
        played(tmp_path / "a", "Pixels")


def test_another_seed_gives_other_episodes(tmp_path: Path) -> None:
    worlds = [Environment(f"{ME}:Walk", size=16, steps=12) for _ in range(2)]
    one, other = worlds[0].episode(0, 3), worlds[1].episode(0, 3)
    np.testing.assert_array_equal(one.action, other.action)
    different = worlds[0].episode(1, 3)
    assert one.state.tolist() != different.state.tolist() or list(one.action) != list(different.action)


def test_an_episode_that_fails_is_dropped_and_counted(tmp_path: Path) -> None:
    source, dropped = played(tmp_path / "a", "Crashing", episodes=12)
    (reason,) = dropped
    assert reason == "step fails: RuntimeError: the motor is hot"
    assert 0 < dropped[reason] < 12
    assert len(source) == 12 - dropped[reason]
    again, counted = played(tmp_path / "a", "Crashing", episodes=12)
    assert counted == dropped
    assert len(again) == len(source)


def test_where_all_fail_nothing_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="none of the first 3 episodes could be played: step fails: RuntimeError"):
        played(tmp_path / "a", "Hopeless", episodes=3, per_shard=8)
    with pytest.raises(RunFailed, match="the reward is nan"):
        played(tmp_path / "b", "NoReward", episodes=3, per_shard=8)


def test_images_are_taken_from_the_observations(tmp_path: Path) -> None:
    source, _ = played(tmp_path / "a", "Pixels", episodes=1)
    assert source.cameras == ("observation",)
    assert source.states == ()
    frames = source.read(0)
    assert frames.shape[1:] == (16, 16, 3)
    assert frames[:, 3, 3, 0].tolist() == list(range(7, 7 + len(frames)))


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    source, _ = played(tmp_path / "a", policy=f"{ME}:Right", episodes=3)
    for index in range(3):
        assert set(source.steps(index).action[:-1].tolist()) == {2}
    box, _ = played(tmp_path / "b", "Unbounded", policy=f"{ME}:still", episodes=1)
    assert box.action == ("box", 2)
    assert box.steps(0).action[0].tolist() == [0.5, -0.5]
    with pytest.raises(RunFailed, match="the policy gives 7, which is not in Discrete"):
        played(tmp_path / "c", policy=f"{ME}:wrong")
    with pytest.raises(RunFailed, match="the policy fails: IndexError"):
        played(tmp_path / "d", policy=f"{ME}:failing")
    with pytest.raises(UserError, match="cannot load the policy 'nowhere:f'"):
        played(tmp_path / "e", policy="nowhere:f")
    with pytest.raises(UserError, match="cannot load the policy"):
        played(tmp_path / "f", policy="greedy")


def still(observation, generator):
    return [0.5, -0.5]


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        ("Unbounded", {}, "have no bounds.*--policy"),
        ("Dictionary", {}, "Discrete and Box can be recorded"),
        ("Blind", {}, "renders None.*nothing to see"),
        ("Walk", {"cameras": ("top",)}, "has one camera, render"),
        ("Walk", {"steps": 10**7}, "fewer --steps"),
        ("Nothing", {}, "cannot make the environment|unknown environment"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(tmp_path: Path, env: str, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        played(tmp_path / "a", env, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a").exists()


def test_an_unknown_environment_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown environment 'CartPoel-v1'; did you mean 'CartPole-v1'"):
        selfsup.record("CartPoel-v1", out=tmp_path / "a")


def test_the_command_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = selfsup.record(f"{ME}:Crashing", out=tmp_path / "a", episodes=6, size=16, steps=9, quiet=True)
    assert done.episodes + sum(done.dropped.values()) == 6
    assert "3 actions; 2 state variables" in done.__rich__()
    assert "were dropped: step fails: RuntimeError" in done.__rich__()
    source = open_data(tmp_path / "a")
    assert (source.kind, len(source), int(source.extents.sum())) == ("trajectory", done.episodes, done.observations)


def test_named_data_are_recorded_when_they_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    options = {"name": f"{ME}:Walk", "size": 16, "steps": 6}
    monkeypatch.setitem(named.RECORDINGS, "reacher2", Recording(Environment, options, episodes=10))
    recorded_by(lambda name: None)
    try:
        with pytest.raises(UserError, match="reacher2 is not recorded yet: selfsup record reacher2"):
            open_data("reacher2")
        recorded_by(_record)
        if not (child := os.fork()):  # another process of the same run
            os._exit(len(open_data("reacher2")))
        assert len(open_data("reacher2")) == 10
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    finally:
        recorded_by(_record)
    train, test = open_data("reacher2:train"), open_data("reacher2:test")
    assert (len(train), len(test)) == (8, 2)
    assert {train.path(i) for i in range(8)}.isdisjoint(test.path(i) for i in range(2))
    before = digest(recorded_folder("reacher2"))
    record_named("reacher2", quiet=True)  # it is there
    assert digest(recorded_folder("reacher2")) == before
    with pytest.raises(UserError, match="give --out, or no other options"):
        selfsup.record("reacher2", size=32)


def test_mujoco_and_atari(tmp_path: Path) -> None:
    try:
        world = Environment("Reacher-v5", cameras=("main", "side=90:-20:1"), size=16, steps=3)
    except UserError as error:
        pytest.skip(str(error))  # a machine without EGL
    one = world.episode(0, 1)
    assert {name: frames.shape for name, frames in one.frames.items()} == dict.fromkeys(
        ["main", "side"], (4, 16, 16, 3)
    )
    assert (one.frames["main"] != one.frames["side"]).any()
    assert len(world.states) == one.state.shape[1]
    np.testing.assert_allclose(one.state[:, 0] ** 2 + one.state[:, 1] ** 2, 1, atol=1e-5)  # cosine and sine of an angle
    for camera, words in (("back", "unknown camera 'back'"), ("a=1", "a camera is NAME=AZIMUTH:ELEVATION")):
        with pytest.raises(UserError, match=words):
            Environment("Reacher-v5", cameras=(camera,))
    world.close()
    world = Environment("ALE/Pong-v5", size=16, steps=40)
    pong = world.episode(0, 0)
    assert 0 not in pong.action
    assert world.states[:2] == ("ball_x", "ball_y")
    assert world.fps == 15.0
    assert (np.diff(pong.state[:, world.states.index("player_y")]) != 0).any()
