"""Episodes of several environments in step with each other: one policy acts in all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.control.environments import Environment
from selfsup.data.trajectory import Episode
from selfsup.errors import RunFailed, UserError
from selfsup.source import Broken

Seed = tuple[int, ...]


class Scene(NamedTuple):
    """What is seen, and what is true, in n environments: `frames` (n, H, W, 3) uint8, `states` (n, S) float32.

    `first` (n, H, W, 3): what was seen at the beginning of the same episodes.
    """

    frames: NDArray[np.uint8]
    states: NDArray[np.float32]
    first: NDArray[np.uint8]

    def part(self, rows: slice) -> Scene:
        """Return some of them."""
        return Scene(self.frames[rows], self.states[rows], self.first[rows])

    @classmethod
    def joined(cls, scenes: Sequence[Scene]) -> Scene:
        """Return those of several one after the other."""
        columns: list[Any] = [np.concatenate(column) for column in zip(*scenes, strict=True)]
        return cls(*columns)

    @classmethod
    def of(cls, rows: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]]) -> Scene:
        """Return the scene of one environment each: frame, state, first frame."""
        columns: list[Any] = [np.stack(column) for column in zip(*rows, strict=True)]
        return cls(*columns)


Act = Callable[[Scene], NDArray[np.float32]]  # actions (n, d) from -1 to 1
Make = Callable[[], Environment]


def check_environment(env: Environment, needs_states: bool) -> None:
    """Raise `UserError` for an environment in which the agents cannot act."""
    if env.action[0] != "box":
        raise UserError(f"{env.name} has {env.action[1]} actions to choose from; these agents act with real numbers")
    space: Any = env.env.action_space
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(f"the actions of {env.name} have no bounds, which these agents need: clip them in its wrapper")
    if needs_states and not env.states:
        raise UserError(f"{env.name} tells no state, which an agent would see or a distance be measured by")


def play(make: Make, seeds: Sequence[Seed], act: Act) -> list[Episode | Broken]:
    """Play an episode of each seed, in new environments; one that fails is returned as what went wrong."""
    worlds = [_World(make(), seed) for seed in seeds]
    try:
        while any(world.runs for world in worlds):
            actions = act(Scene.of([(*world.seen[-1], world.seen[0][0]) for world in worlds]))
            for world, action in zip(worlds, actions, strict=True):
                world.step(action)
    finally:
        for world in worlds:
            world.env.close()
    return [world.error or world.episode() for world in worlds]


def each(act: Callable[[int, Scene], NDArray[np.float32]]) -> Act:
    """Return a policy that acts in one environment after the other, of which `act` gets the number and the scene.

    What is computed of one in a batch could depend on how many there are, by its last bits.
    """
    return lambda scene: np.concatenate([act(k, scene.part(slice(k, k + 1))) for k in range(len(scene.frames))])


def goals(make: Make, seeds: Sequence[Seed]) -> Scene:
    """Return a goal for the episode of each seed: the environment's own, or where random actions led another time.

    Raises `RunFailed` where the environment fails.
    """
    env = make()
    own = getattr(env.env.unwrapped, "goal_image", None)
    begun = []
    try:
        for seed in seeds:
            (frame,) = env.frames(env.reset(*seed)).values()
            goal = (env.square(own()), np.asarray(env.env.unwrapped.goal, np.float32).reshape(-1)) if own else ()
            begun.append((frame, *goal))
    except Broken as error:
        raise RunFailed(f"no goal could be made: {error}") from error
    finally:
        env.close()
    if own:
        return Scene.of([(goal, state, frame) for frame, goal, state in begun])
    others = [(*seed, 1) for seed in seeds]
    ends = []
    for (frame,), episode in zip(begun, play(make, others, random_actions(env.action[1], others)), strict=True):
        if not isinstance(episode, Episode) or episode.state is None:
            raise RunFailed(f"no goal could be made: {episode}")
        ends.append((next(iter(episode.frames.values()))[-1], episode.state[-1], frame))
    return Scene.of(ends)


def random_actions(width: int, seeds: Sequence[Seed]) -> Act:
    """Return a policy that draws actions (n, `width`) evenly, from a seed for each of n environments."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    return each(lambda k, _: generators[k].uniform(-1, 1, (1, width)).astype(np.float32))


def unscaled(actions: NDArray[Any], space: Any) -> NDArray[np.float32]:
    """Return actions of an environment (n, d) as numbers from -1 to 1."""
    low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
    return np.clip(2 * (np.asarray(actions, np.float32) - low) / (high - low) - 1, -1, 1)


class _World:
    """One environment, and what happened in it since its reset."""

    def __init__(self, env: Environment, seed: Seed) -> None:
        self.env, self.ended = env, False
        self.seen: list[Any] = []
        self.actions: list[Any] = []
        self.rewards: list[float] = []
        self.terminated = False
        self.error: Broken | None = None
        try:
            self._note(env.reset(*seed))
        except Broken as error:
            self.error = error
            side = env.size
            self.seen = [(np.zeros((side, side, 3), np.uint8), np.zeros(len(env.states), np.float32))]

    @property
    def runs(self) -> bool:
        return not (self.error or self.ended)

    def step(self, action: NDArray[np.float32]) -> None:
        if not self.runs:
            return
        space: Any = self.env.env.action_space
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
        own = np.clip(low + (action.astype(np.float64) + 1) / 2 * (high - low), low, high)
        try:
            observation, reward, self.terminated, truncated = self.env.step(
                own.reshape(space.shape).astype(space.dtype)
            )
            self._note(observation)
        except Broken as error:
            self.error = error
            return
        self.actions.append(own)
        self.rewards.append(reward)
        self.ended = self.terminated or truncated or len(self.actions) == self.env.steps

    def _note(self, observation: Any) -> None:
        (frame,), state = self.env.frames(observation).values(), self.env.state(observation)
        if not np.isfinite(state).all():
            raise Broken("a state that is not finite")
        self.seen.append((frame, state))

    def episode(self) -> Episode:
        frames, states = (np.stack(parts) for parts in zip(*self.seen, strict=True))
        count = len(self.actions)
        return Episode(
            frames={self.env.cameras[0]: frames},
            action=np.stack(self.actions).astype(np.float32),
            reward=np.array(self.rewards),
            terminated=np.arange(count) == (count - 1 if self.terminated else -1),
            truncated=not self.terminated,
            state=states,
        )
