"""`PointRoom`: a ball in a room with a wall, which goes where the actions push it, and is to go to a place.

In `PointRoom:colours` wall and ball have other colours in each episode, in `PointRoom:colours:test` such as these never
have: a goal that is imagined for one scene cannot be reached in another (Nair et al., 2019).
"""

from __future__ import annotations

import colorsys
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

NAMES = ("PointRoom", "PointRoom:colours", "PointRoom:colours:test")
SIDE, STEPS, FPS = 48, 50, 10  # pixels; actions of an episode, and how many a second
RADIUS, REACH = 0.07, 0.06  # of the ball; how far the largest action moves it, along x and y; fractions of the side
WALL = np.array([0.45, 0.0, 0.55, 0.6])  # left, top, right, bottom: one has to go round below it
FAR = 0.4  # of a start from its goal, at least
FLOOR, BALL, STONE = np.array([40, 40, 46]), np.array([90, 200, 255]), np.array([200, 90, 60])
GRID = (np.arange(SIDE) + 0.5) / SIDE  # the middle of each pixel
UNSEEN = 0.3  # fraction of all hues that the test has alone


def move(places: NDArray[np.float64], actions: NDArray[Any]) -> NDArray[np.float64]:
    """Return where balls at (N, 2), x and y from 0 to 1, are after actions (N, 2) from -1 to 1.

    A wall stops what goes into it, along each axis for itself, so that the ball slides along it.
    """
    places = places.copy()
    for axis in range(2):
        before = places[:, axis].copy()
        places[:, axis] = np.clip(before + REACH * np.clip(actions[:, axis], -1, 1), RADIUS, 1 - RADIUS)
        places[:, axis] = np.where(in_wall(places), before, places[:, axis])
    return places


def in_wall(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether balls at (N, 2) touch the wall."""
    inside = (places > WALL[:2] - RADIUS) & (places < WALL[2:] + RADIUS)
    return inside[:, 0] & inside[:, 1]


def draw(
    places: NDArray[np.float64], balls: NDArray[np.float64] = BALL, walls: NDArray[np.float64] = STONE
) -> NDArray[np.uint8]:
    """Return images (N, 48, 48, 3) of balls at (N, 2); colours (3,) or (N, 3) from 0 to 255."""
    walls, balls = np.atleast_2d(walls), np.broadcast_to(np.atleast_2d(balls), (len(places), 3))
    scenes = np.rint(FLOOR + COVERED[..., None] * (walls[:, None, None] - FLOOR)).astype(np.uint8)
    out = np.broadcast_to(scenes, (len(places), SIDE, SIDE, 3)).copy()
    across, down = ((GRID - places[:, axis, None]) ** 2 for axis in range(2))
    far = across[:, None] + down[:, :, None]  # squared: most pixels are far from the ball
    where = np.nonzero(far < (RADIUS + 0.5 / SIDE) ** 2)
    alpha = np.clip((RADIUS - np.sqrt(far[where])) * SIDE + 0.5, 0, 1)[:, None]
    out[where] = np.rint(out[where] * (1 - alpha) + alpha * balls[where[0]])
    return out


def free_places(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return places (count, 2) that do not touch a wall, each as likely as any other."""
    places = generator.uniform(RADIUS, 1 - RADIUS, (count, 2))
    while (blocked := in_wall(places)).any():
        places[blocked] = generator.uniform(RADIUS, 1 - RADIUS, (int(blocked.sum()), 2))
    return places


def _covered() -> NDArray[np.float64]:
    """Return how much of each pixel (48, 48) the wall covers."""
    middle, half = (WALL[:2] + WALL[2:]) / 2, (WALL[2:] - WALL[:2]) / 2
    inside = np.clip((half - np.abs(GRID[:, None] - middle)) * SIDE + 0.5, 0, 1)  # (48, 2)
    return inside[:, 1, None] * inside[:, 0]


def _colour(generator: np.random.Generator, test: bool) -> NDArray[np.float64]:
    hue = generator.uniform(1 - UNSEEN, 1) if test else generator.uniform(0, 1 - UNSEEN)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, 0.75, 0.95))


COVERED = _covered()


class PointRoom(gymnasium.Env):  # type: ignore[misc]
    """The room as an environment of Gymnasium; see the module.

    Observations are the place of the ball (2,), x and y from 0 to 1; `render` shows it (48, 48, 3). Actions (2,) are
    from -1 to 1. The reward is the distance of the ball from the goal, negative. `info` has the `goal` (2,), and the
    colours of `ball` and `wall` (3,) from 0 to 255; `goal_image` is what the room looks like when it is reached. An
    episode has 50 actions and never terminates.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 (as Gymnasium has it)
    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, name: str = "PointRoom", render_mode: str | None = "rgb_array") -> None:
        self.colours, self.test, self.render_mode = ":colours" in name, name.endswith(":test"), render_mode
        self.spec = gymnasium.envs.registration.EnvSpec(
            "PointRoom-v0", f"{__name__}:PointRoom", max_episode_steps=STEPS, kwargs={"name": name}
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Begin an episode anywhere, with a goal that is some way off."""
        super().reset(seed=seed)
        self.place = self.goal = free_places(self.np_random, 1)
        while np.linalg.norm(self.place - self.goal) < FAR:
            self.goal = free_places(self.np_random, 1)
        self.ball, self.wall = BALL.astype(np.float64), STONE.astype(np.float64)
        if self.colours:
            self.ball, self.wall = (_colour(self.np_random, self.test) for _ in range(2))
        self.time = 0
        return self.place[0], self._info()

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Push the ball."""
        self.place, self.time = move(self.place, np.asarray(action, np.float64)[None]), self.time + 1
        reward = -float(np.linalg.norm(self.place - self.goal))
        return self.place[0], reward, False, self.time >= STEPS, self._info()

    def render(self) -> NDArray[np.uint8]:
        """Return what the room looks like, (48, 48, 3)."""
        return draw(self.place, self.ball, self.wall)[0]

    def goal_image(self) -> NDArray[np.uint8]:
        """Return what it looks like with the ball at the goal."""
        return draw(self.goal, self.ball, self.wall)[0]

    def _info(self) -> dict[str, Any]:
        return {"goal": self.goal[0].copy(), "ball": self.ball.copy(), "wall": self.wall.copy()}
