"""Gymnasium: an environment and a policy as a world that plays episodes, seen by one or more cameras.

Frames are the observations where these are images, else what MuJoCo's cameras or `render` show, scaled to a square.
States are MuJoCo's joints, the memory of an Atari console, or the numbers of the observation.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.base.watchdog import limited
from selfsup.control.atari import memory_of
from selfsup.control.mujoco import Cameras, joint_names, joint_values, prepare
from selfsup.data.trajectory import Episode
from selfsup.errors import RunFailed, UserError, need, unknown
from selfsup.source import Broken

STEPS = 1000  # of an episode that the environment does not end itself
ENDLESS = 10_000  # steps from which on it does not
TIMEOUT = 60  # seconds in which an environment answers, or it hangs
MANY = 1024  # numbers of a state, at most
LARGE = 2**31  # bytes of an episode's frames, at most: they are held
OURS = {"PointRoom": "selfsup.control.rooms", "SwingUp": "selfsup.control.swing"}  # each has NAMES and the class
IMAGE = 16  # pixels of the shorter side of an observation from which on it is an image

Policy = Callable[[Any, np.random.Generator], Any]


class Environment:
    """Episodes of an environment of Gymnasium; see `selfsup.control.record.World`.

    Args:
        name: An environment's id, `module:Id` or `module:Class` of your own.
        policy: `random`, or `module:function` or `module:Class` of your own; "" where `episode` is not called.
        cameras: Names of cameras, of MuJoCo alone; see `selfsup.control.mujoco.Cameras`.
        size: Pixels a side of the frames.
        steps: Steps of an episode, at most; None for the environment's own limit.

    Raises:
        UserError: For an environment that is unknown, not installed, or renders nothing, for an action space that is
            not of numbers, and for a policy that cannot be loaded.
    """

    def __init__(
        self, name: str, policy: str = "random", cameras: tuple[str, ...] = (), size: int = 64, steps: int | None = None
    ) -> None:
        self.name, self.size = name, size
        self.env = _make(name)
        self.action, self.first_action = _action(name, self.env.action_space)
        self.seen: Cameras | None = None
        self.cameras, self.render = self._cameras(cameras)
        self.states, self.state = self._states()
        limit = getattr(self.env.spec, "max_episode_steps", None)
        self.steps = steps or (limit if limit and limit <= ENDLESS else STEPS)
        if (needed := (self.steps + 1) * size**2 * 3 * len(self.cameras)) > LARGE:
            raise UserError(
                f"the frames of an episode of {self.steps:,} steps take {needed / 2**30:.1f} GiB: give fewer --steps, "
                "or a smaller --size"
            )
        fps = self.env.metadata.get("render_fps") or 1.0
        self.fps = float(60 / self.env.unwrapped._frameskip if self._is_atari() else fps)
        if policy:
            self.policy = self._random() if policy == "random" else _load_policy(policy, self.env)

    def close(self) -> None:
        """End the environment."""
        if self.seen is not None:
            self.seen.close()
        with contextlib.suppress(Exception), limited(TIMEOUT):  # of an environment that crashed
            self.env.close()

    def episode(self, seed: int, number: int) -> Episode:
        """Play an episode with the policy until the environment ends it, or for `steps` steps.

        Raises `Broken` for one in which the environment fails or gives a reward that is not finite.
        """
        generator = np.random.default_rng([seed, number])
        observation = self.reset(seed, number)
        if (reset := getattr(self.policy, "reset", None)) is not None:
            with _of_policy():
                reset()
        seen, states = [self.frames(observation)], [self.state(observation)]
        actions: Any = []
        rewards, terminated = list[float](), False
        while not terminated and len(actions) < self.steps:
            with _of_policy():
                action = self.policy(observation, generator)
            action = self._checked(action)
            observation, reward, terminated, truncated = self.step(action)
            rewards.append(reward)
            actions.append(action - self.first_action if self.first_action else action)
            seen.append(self.frames(observation))
            states.append(self.state(observation))
            if truncated:
                break
        return Episode(
            frames={camera: np.stack([one[camera] for one in seen]) for camera in self.cameras},
            action=np.stack([np.reshape(action, -1) for action in actions]) if self.action[0] == "box" else actions,
            reward=np.array(rewards),
            terminated=np.arange(len(rewards)) == (len(rewards) - 1 if terminated else -1),
            truncated=not terminated,
            state=np.stack(states),
        )

    def reset(self, *seed: int) -> Any:
        """Begin an episode that follows from some numbers, and return the observation. Raises `Broken`."""
        with _named("reset"):
            observation, _ = self.env.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
        return observation

    def step(self, action: Any) -> tuple[Any, float, bool, bool]:
        """Act, and return observation, reward, and whether the episode terminated or was truncated. Raises `Broken`."""
        with _named("step"):
            observation, reward, terminated, truncated, _ = self.env.step(action)
            reward = float(reward)
        if not math.isfinite(reward):
            raise Broken(f"the reward is {reward}")
        return observation, reward, bool(terminated), bool(truncated)

    def frames(self, observation: Any) -> dict[str, NDArray[np.uint8]]:
        """Return what each camera sees now. Raises `Broken`."""
        with _named("render"):
            return self.render(observation)

    def square(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image (H, W, 3) as frames are, (size, size, 3)."""
        return _square(pixels, self.size)

    def _checked(self, action: Any) -> Any:
        space = self.env.action_space
        if self.action[0] == "discrete":
            right = np.ndim(action) == 0 and float(action).is_integer() and space.contains(np.int64(action))
            action = np.int64(action) if right else action
        else:
            action = np.asarray(action)
            right = action.dtype.kind in "iuf" and action.shape == space.shape and bool(np.isfinite(action).all())
            action = action.astype(space.dtype) if right else action
            right = right and space.contains(action)
        if not right:
            raise RunFailed(f"the policy gives {action!r:.60}, which is not in {space!r:.80}")
        return action

    def _random(self) -> Policy:
        """Return a policy that draws from the action space, but never action 0 of Atari, as Anand et al. (2019)."""
        space: Any = self.env.action_space
        if self.action[0] == "discrete":
            least = 1 if self._is_atari() and self.action[1] > 1 else 0
            return lambda _, generator: self.first_action + generator.integers(least, self.action[1])
        low, high = (np.broadcast_to(bound, space.shape).astype(np.float64) for bound in (space.low, space.high))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UserError(
                f"the actions of {self.name} have no bounds, so that they cannot be drawn at random: give --policy "
                "module:Class"
            )
        return lambda _, generator: generator.uniform(low, high)

    def _is_atari(self) -> bool:
        return hasattr(self.env.unwrapped, "ale")

    def _cameras(self, asked: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[Any], dict[str, NDArray[np.uint8]]]]:
        """Return the names of the cameras, and a function from an observation to what each sees."""
        plain: Any = self.env.unwrapped
        if hasattr(plain, "mujoco_renderer"):
            self.seen = seen = Cameras(plain, asked, self.size)
            return seen.names, lambda _: seen.render()
        images = _are_images(self.env.observation_space)
        if not images:
            self.env.close()
            self.env = _make(self.name, render_mode="rgb_array")
        camera = "observation" if images else "render"
        if asked not in ((), (camera,)):
            raise UserError(f"{self.name} has one camera, {camera}: --cameras is for environments of MuJoCo")
        if images:
            return (camera,), lambda observation: {camera: _square(_image_of(observation), self.size)}
        self._check_rendering()
        return (camera,), lambda _: {camera: _square(self.env.render(), self.size)}

    def _check_rendering(self) -> None:
        try:
            with limited(TIMEOUT):
                self.env.reset(seed=0)
                frame: Any = self.env.render()
        except Exception as error:  # of somebody else's code
            raise UserError(f"{self.name} cannot be rendered: {_line(error)}") from error
        if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8):
            shown = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else repr(frame)[:40]
            raise UserError(
                f"{self.name} renders {shown}, not an image (H, W, 3) uint8: there is nothing to see; it needs the "
                "render mode rgb_array"
            )

    def _states(self) -> tuple[tuple[str, ...], Callable[[Any], NDArray[np.float32]]]:
        """Return the names of the state, and a function from an observation to its numbers (S,)."""
        plain: Any = self.env.unwrapped
        if hasattr(plain, "mujoco_renderer"):
            return joint_names(plain.model), lambda _: joint_values(plain.model, plain.data)
        if self._is_atari():
            memory = memory_of(plain._game)
            places = np.array(list(memory.values()))
            return tuple(memory), lambda _: plain.ale.getRAM()[places].astype(np.float32)
        parts = dict(_numbers(self.env.observation_space, "observation"))
        names = [name if size == 1 else f"{name}_{place}" for name, (size, _) in parts.items() for place in range(size)]
        if not 0 < len(names) <= MANY:
            return (), lambda _: np.zeros(0, np.float32)
        return tuple(names), lambda observation: np.concatenate(
            [np.asarray(read(observation), np.float32).reshape(-1) for _, read in parts.values()]
        )


def _make(name: str, **options: Any) -> Any:
    """Return an environment. Raises `UserError` for one that is unknown, not installed or cannot be made."""
    prepare()
    gymnasium = need("gymnasium", "control")
    for kind, module in OURS.items():
        if name.startswith(kind):
            home = importlib.import_module(module)
            if name not in home.NAMES:
                raise unknown("environment", name, home.NAMES)
            return getattr(home, kind)(name)
    if name.startswith(("ALE/", "atari:")):
        need("ale_py", "control")
    with contextlib.suppress(ImportError):  # it registers Atari
        atari = importlib.import_module("ale_py")
        atari.ALEInterface.setLoggerMode(atari.LoggerMode.Error)  # or it prints its own name
        gymnasium.register_envs(atari)
    try:
        with warnings.catch_warnings(), limited(TIMEOUT):
            warnings.simplefilter("ignore")
            own = _own(name) if ":" in name else None
            if own is not None:
                return own(**options)
            return gymnasium.make(name, disable_env_checker=True, **options)
    except gymnasium.error.UnregisteredEnv as error:
        raise unknown("environment", name, gymnasium.registry) from error
    except Exception as error:  # of somebody else's code
        raise UserError(f"cannot make the environment {name}: {_line(error)}") from error


def _own(name: str) -> Any:
    """Return the class `module:Class`, or None where the module has none of this name: it may register an id."""
    found = getattr(_module(name), name.partition(":")[2], None)
    return found if callable(found) else None


def _module(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")  # your own module is in the current folder
    return importlib.import_module(name.partition(":")[0])


def _load_policy(name: str, env: Any) -> Policy:
    """Return a policy of a user's own: a function, or an object of a class that is made with the environment."""
    try:
        found = getattr(_module(name), name.partition(":")[2])
        policy: Policy = found(env) if isinstance(found, type) else found
    except Exception as error:  # of the user's own code
        raise UserError(f"cannot load the policy {name!r}: {_line(error)}") from error
    if ":" not in name or not callable(policy):
        raise UserError(
            f"{name!r} is not a policy: give random, or module:function or module:Class whose objects are called with "
            "(observation, generator) and return an action"
        )
    return policy


def _action(name: str, space: Any) -> tuple[tuple[str, int], int]:
    """Return what actions are, and the number of the first one. Raises `UserError` for what cannot be recorded."""
    kind = type(space).__name__
    if kind == "Discrete":
        return ("discrete", int(space.n)), int(space.start)
    if kind == "Box" and space.dtype.kind in "iuf" and space.shape is not None and 0 < math.prod(space.shape) <= MANY:
        return ("box", math.prod(space.shape)), 0
    raise UserError(
        f"the actions of {name} are {space!r:.80}; Discrete and Box can be recorded: wrap it in an environment of your "
        "own, module:Class"
    )


def _are_images(space: Any) -> bool:
    """Return whether observations are images, (H, W), (H, W, 1) or (H, W, 3) uint8."""
    shape = tuple(getattr(space, "shape", None) or ())
    if getattr(space, "dtype", None) != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,)):
        return False
    return min(shape[:2]) >= IMAGE


def _image_of(observation: Any) -> NDArray[np.uint8]:
    pixels = np.asarray(observation)
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _square(pixels: Any, size: int) -> NDArray[np.uint8]:
    """Scale a whole frame to a square, each pixel the mean of those that it covers."""
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    if pixels.shape == (size, size, 3):
        return pixels.copy()
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))


def _numbers(space: Any, name: str) -> Iterator[tuple[str, tuple[int, Callable[[Any], Any]]]]:
    """Yield the parts of an observation that are numbers: name, how many, and how they are read."""
    if isinstance(getattr(space, "spaces", None), Mapping):
        for key, part in space.spaces.items():
            for inner, (size, read) in _numbers(part, str(key)):
                yield inner, (size, lambda observation, key=key, read=read: read(observation[key]))  # type: ignore[misc]
    elif type(space).__name__ in ("Box", "Discrete", "MultiBinary", "MultiDiscrete") and not _are_images(space):
        yield name, (math.prod(space.shape or ()), lambda observation: observation)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Drop the episode where the environment fails, or hangs."""
    try:
        with limited(TIMEOUT):
            yield
    except Exception as error:  # of somebody else's code
        raise Broken(f"{what} fails: {_line(error)}") from error


@contextlib.contextmanager
def _of_policy() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the user's own code
        raise RunFailed(f"the policy fails: {_line(error)}") from error


def _line(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
