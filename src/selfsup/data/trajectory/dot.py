"""`dot`: a small world that is partly ours to move, made as it is read.

A dot goes where the actions push it; five other things move by themselves. The reward depends on the dot's place alone,
so that what moves without us is a distractor: bisimulation (Ferns et al., 2004) forgets it. The dot has a colour that
the others may have too, and is told from them by its shape, or with `:own` a colour channel of its own (pixels are then
enough). In `:test` what moves by itself has other shapes.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from selfsup.data.index import fingerprint_of_generated
from selfsup.data.trajectory.episodes import Episodes, Steps, no_steps
from selfsup.source import Labels

PARTS = ("dot", "dot:test", "dot:own", "dot:own:test")
COUNT, LENGTH, SIDE, FPS = {False: 400, True: 100}, 25, 32, 10.0  # episodes by test; observations; pixels
OTHERS = 5  # things that move by themselves
REACH, RADIUS = 0.08, 0.085  # how far the largest action moves the dot, and its size, as fractions of the side
GOAL = np.array([0.5, 0.5])  # x, y where the reward is largest
COLOUR, DARKEST = np.array([255, 220, 90], np.float32), 90  # of the dot; of the others: any of no darker channels
SHAPES = {False: ("blob", "square", "bar", "triangle"), True: ("ring", "cross")}
QUARTERS = ("top left", "top right", "bottom left", "bottom right")


class Course(NamedTuple):
    """What happens in an episode: places of the dot (T, 2) and of the others (K, T, 2) as x, y from 0 to 1."""

    dot: NDArray[np.float64]
    others: NDArray[np.float64]
    action: NDArray[np.float32]  # (T, 2) from -1 to 1, nan in the last row
    sizes: NDArray[np.float64]  # (K,)
    shapes: NDArray[np.int64]  # (K,)
    colours: NDArray[np.float32]  # (K, 3)


class Dot(Episodes):
    """The generated episodes; see the module. `numbers`: which of them, from which everything about them follows.

    Actions are two real numbers from -1 to 1. The reward of a step is 1 less the distance of the dot from the middle,
    before it: a reward alone does not tell on which side the dot is, what the actions do to it does. The label of an
    episode is the quarter in which the dot is in the middle of it.
    """

    cameras, action, fps, shape = ("camera",), ("box", 2), FPS, (SIDE, SIDE)
    states = ("dot_x", "dot_y", *(f"distractor{k}_{axis}" for k in range(1, OTHERS + 1) for axis in "xy"))

    def __init__(self, name: str = "dot") -> None:
        self.name, self.own, self.test = name, ":own" in name, name.endswith(":test")
        self.numbers = np.arange(COUNT[self.test])
        self.extents = np.full(len(self.numbers), LENGTH)
        middle = np.stack([_course(number, self.test).dot[(LENGTH - 1) // 2] for number in self.numbers.tolist()])
        self.labels = Labels((middle > 0.5).astype(np.int64) @ np.array([1, 2]), QUARTERS)

    def frames(self, index: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, 32, 32, 3) by their numbers."""
        return _drawn(int(self.numbers[index]), self.test, self.own)[numbers]

    def steps(self, index: int) -> Steps:
        """Return the rows of an episode; it never terminates."""
        return _steps(int(self.numbers[index]), self.test)

    def path(self, index: int) -> str:
        """Return the number of the episode."""
        return str(self.numbers[index])

    def some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy with some of the episodes."""
        same = copy.copy(self)
        same.numbers = self.numbers[indices]
        return same

    def fingerprint(self) -> str:
        """Return a hash of the name, the numbers and the labels."""
        return fingerprint_of_generated(self.name, self.numbers, self.labels)


@lru_cache(4096)
def _course(number: int, test: bool) -> Course:
    u = np.random.Generator(np.random.Philox(key=[number, 7 + test]))
    action = np.zeros((LENGTH, 2))
    place = np.empty((LENGTH, 2))
    place[0] = u.uniform(RADIUS, 1 - RADIUS, 2)
    for t in range(LENGTH):  # an action is kept for a while, so that the dot gets around
        action[t] = u.uniform(-1, 1, 2) if t == 0 or u.uniform() < 0.3 else action[t - 1]
        if t + 1 < LENGTH:
            place[t + 1] = np.clip(place[t] + REACH * action[t], RADIUS, 1 - RADIUS)
    action[-1] = np.nan
    speed = u.uniform(0.03, 0.1, (OTHERS, 1)) * _direction(u)
    way = u.uniform(0, 2, (OTHERS, 1, 2)) + speed[:, None] * np.arange(LENGTH)[:, None]
    others = 1 - np.abs(way % 2 - 1)  # reflected at the walls
    shapes = u.integers(len(SHAPES[test]), size=OTHERS)
    return Course(
        place, others, action.astype(np.float32), u.uniform(0.1, 0.18, OTHERS), shapes,
        u.uniform(DARKEST, 255, (OTHERS, 3)).astype(np.float32),
    )  # fmt: skip


def _direction(u: np.random.Generator) -> NDArray[np.float64]:
    angle = u.uniform(0, 2 * np.pi, OTHERS)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


@lru_cache(4096)
def _steps(number: int, test: bool) -> Steps:
    course, steps = _course(number, test), no_steps(LENGTH, Dot.action, len(Dot.states))
    steps.action[:] = course.action
    steps.reward[:-1] = 1 - np.linalg.norm(course.dot[:-1] - GOAL, axis=1)
    steps.state[:] = np.concatenate([course.dot[None], course.others]).swapaxes(0, 1).reshape(LENGTH, -1)
    return steps


@lru_cache(1024)  # 160 MB
def _drawn(number: int, test: bool, own: bool) -> NDArray[np.uint8]:
    """Return all frames (T, SIDE, SIDE, 3) of an episode: the others in their order, and the dot over them."""
    course = _course(number, test)
    out = np.full((LENGTH, SIDE, SIDE, 3), 20, np.float32)
    grid = (np.arange(SIDE) + 0.5) / SIDE
    mask = np.array([0, 1, 1] if own else [1, 1, 1], np.float32)
    for k in range(OTHERS):
        x, y = (grid - course.others[k, :, axis, None] for axis in (0, 1))  # (T, SIDE)
        alpha = cover(SHAPES[test][course.shapes[k]], x[:, None, :] / course.sizes[k], y[:, :, None] / course.sizes[k])
        out += alpha[..., None] * (course.colours[k] * mask - out)
    x, y = (grid - course.dot[:, axis, None] for axis in (0, 1))
    far = np.hypot(x[:, None, :], y[:, :, None])
    alpha = np.clip((RADIUS - far) * SIDE + 0.5, 0, 1).astype(np.float32)[..., None]
    out += alpha * ((np.array([255, 0, 0], np.float32) if own else COLOUR) - out)
    return np.rint(out).astype(np.uint8)


def cover(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how much of each pixel (..., S, S) a thing of `SHAPES` covers, at places in units of its size."""
    far, near = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    if name == "blob":
        covered = np.exp(-2 * (x**2 + y**2))
    elif name == "square":
        covered = far < 0.8
    elif name == "bar":
        covered = (np.abs(x) < 1.2) & (np.abs(y) < 0.35)
    elif name == "triangle":
        covered = (y < 0.7) & (np.abs(x) < 0.5 * (y + 1))
    else:
        covered = np.abs(np.hypot(x, y) - 0.75) < 0.25 if name == "ring" else (near < 0.3) & (far < 1)
    return covered.astype(np.float32)
