"""`SwingUp`: a pole hangs from a cart, which is to swing it up and to keep it there.

In `SwingUp:background` things move behind it, other ones in each episode; in `SwingUp:background:test` they have shapes
that no other episode shows: what an encoder keeps of them is of no use to an agent (Zhang et al., 2021).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from selfsup.data.trajectory.dot import DARKEST, SHAPES, cover

NAMES = ("SwingUp", "SwingUp:background", "SwingUp:background:test")
SIDE, STEPS, FPS = 48, 250, 25  # pixels; actions of an episode, and how many a second
CART, POLE, LENGTH = 1.0, 0.1, 1.0  # kg, kg, metres: the cartpole of Tassa et al. (2018), as what follows
FORCE, RAIL, GRAVITY = 10.0, 1.8, 9.81  # newtons of the largest action; metres to either side
INNER = 4  # steps of the simulation in one of the environment
FASTEST = np.array([10.0, 30.0])  # metres and radians a second, which the motor hardly reaches
LIMITS = np.array([RAIL, 1, 1, *FASTEST])  # of an observation, to either side
HALF = 2.1  # metres from the middle of the image to its edge
WIDE, HIGH, THIN, LINE = 0.22, 0.14, 0.07, 0.03  # half the cart's sides, the pole's and the rail's width, metres
COLOURS = ((35, 38, 48), (250, 110, 60), (225, 230, 235), (95, 100, 110))
DARK, RED, WHITE, GREY = (np.array(one, np.float32)[:, None, None] for one in COLOURS)
SHARP = np.float32(SIDE / (2 * HALF))  # pixels of a metre
ACROSS = (((np.arange(SIDE) + 0.5) / SIDE - 0.5) * 2 * HALF).astype(np.float32)  # the middle of each pixel, metres
DOWN = ACROSS[:, None]
THINGS = 5  # that move behind

States = NDArray[np.float64]  # (N, 4): place of the cart, angle of the pole (0 is up), and how fast both change


class Behind(NamedTuple):
    """What moves behind: its places begin at `start` (K, 2) and change by `speed` (K, 2) in each step."""

    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    sizes: NDArray[np.float64]  # (K,), fractions of the side, as places are
    shapes: tuple[str, ...]
    colours: NDArray[np.float32]  # (K, 3, 1, 1)
    plain: NDArray[np.float32]  # (3, 1, 1), the colour behind all

    @classmethod
    def drawn(cls, generator: np.random.Generator, test: bool) -> Behind:
        """Return things of the shapes that the training shows, or of those of the `test`."""
        angle, pace = generator.uniform(0, 2 * np.pi, THINGS), generator.uniform(0.01, 0.03, (THINGS, 1))
        names = SHAPES[test]
        return cls(
            generator.uniform(0, 2, (THINGS, 2)), pace * np.stack([np.cos(angle), np.sin(angle)], 1),
            generator.uniform(0.12, 0.3, THINGS),
            tuple(names[k] for k in generator.integers(len(names), size=THINGS)),
            generator.uniform(DARKEST, 255, (THINGS, 3, 1, 1)).astype(np.float32),
            generator.uniform(0, DARKEST, (3, 1, 1)).astype(np.float32),
        )  # fmt: skip

    def draw(self, time: int) -> NDArray[np.float32]:
        """Return an image (3, 48, 48) from 0 to 255."""
        out = np.broadcast_to(self.plain, (3, SIDE, SIDE)).copy()
        grid = (np.arange(SIDE) + 0.5) / SIDE
        places = 1 - np.abs((self.start + time * self.speed) % 2 - 1)  # reflected at the edges
        for place, size, shape, colour in zip(places, self.sizes, self.shapes, self.colours, strict=True):
            x, y = ((grid - at) / size for at in place)
            _paint(out, cover(shape, x[None], y[:, None]), colour)
        return out


def move(states: States, actions: NDArray[Any]) -> States:
    """Return the states (N, 4) after a step of 0.04 s with actions (N,) from -1 to 1.

    The equations of Barto, Sutton and Anderson (1983) without friction, in steps of 0.01 s, speeds before places. The
    cart stops at the ends of the rail.
    """
    x, angle, speed, spin = states.T.copy()
    force, half, step = FORCE * np.clip(actions, -1, 1), LENGTH / 2, 1 / (FPS * INNER)
    for _ in range(INNER):
        cos, sin = np.cos(angle), np.sin(angle)
        push = (force + POLE * half * spin**2 * sin) / (CART + POLE)
        turn = (GRAVITY * sin - cos * push) / (half * (4 / 3 - POLE * cos**2 / (CART + POLE)))
        speed = speed + (push - POLE * half * turn * cos / (CART + POLE)) * step
        spin = spin + turn * step
        x, angle = x + speed * step, angle + spin * step
        speed = np.where(abs(x) < RAIL, speed, 0.0)
        x = x.clip(-RAIL, RAIL)
    return np.stack([x, angle, speed.clip(-FASTEST[0], FASTEST[0]), spin.clip(-FASTEST[1], FASTEST[1])], 1)


def rewards(states: States, actions: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rewards (N,), 0 to 1, of where actions (N,) led: upright, in the middle, slow, and without force."""
    x, angle, _, spin = states.T
    upright, middle, slow = (1 + np.cos(angle)) / 2, (1 + 0.1 ** ((x / 2) ** 2)) / 2, (1 + 0.1 ** ((spin / 5) ** 2)) / 2
    found: NDArray[np.float64] = upright * middle * slow * (5 - np.clip(actions, -1, 1) ** 2) / 5
    return found


def draw(states: States, behind: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Return images (N, 48, 48, 3) of states, before what is `behind` (N, 3, 48, 48), from 0 to 255."""
    out = np.empty((len(states), 3, SIDE, SIDE), np.float32)
    out[:] = DARK if behind is None else behind
    x, angle = states[:, :2].T.astype(np.float32)[..., None, None, None]
    sin, cos, right = np.sin(angle), np.cos(angle), ACROSS - x  # the pole points to (sin, -cos), y is down
    along = np.clip(right * sin - DOWN * cos, 0, LENGTH)
    off = np.hypot(right - along * sin, DOWN + along * cos)
    _paint(out, _within(LINE, np.abs(DOWN)) * _within(RAIL, np.abs(ACROSS)), GREY)
    _paint(out, _within(WIDE, np.abs(right)) * _within(HIGH, np.abs(DOWN)), WHITE)
    _paint(out, _within(THIN, off), RED)
    return np.ascontiguousarray(np.rint(out).astype(np.uint8).transpose(0, 2, 3, 1))


def _within(reach: float, off: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much of each pixel is covered by what reaches so far, metres; `off` is how far a pixel is off."""
    covered = (np.float32(reach) - off) * SHARP + np.float32(0.5)
    return covered.clip(0, 1, out=covered)


def _paint(out: NDArray[np.float32], covered: NDArray[np.float32], colour: NDArray[np.float32]) -> None:
    out += covered * (colour - out)


class SwingUp(gymnasium.Env):  # type: ignore[misc]
    """The cart as an environment of Gymnasium; see the module.

    Observations (5,) are the place of the cart, the cosine and the sine of the pole's angle, 1 and 0 when it is up,
    and the speeds of both; `render` shows the scene (48, 48, 3), but no speeds. Actions (1,) are from -1 to 1, rewards
    those of `rewards`. An episode has 250 actions and never terminates.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 (as Gymnasium has it)
    observation_space = gymnasium.spaces.Box(-LIMITS, LIMITS, dtype=np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, name: str = "SwingUp", render_mode: str | None = "rgb_array") -> None:
        self.moving, self.test, self.render_mode = ":background" in name, name.endswith(":test"), render_mode
        self.spec = gymnasium.envs.registration.EnvSpec(
            "SwingUp-v0", f"{__name__}:SwingUp", max_episode_steps=STEPS, kwargs={"name": name}
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Begin an episode: the pole hangs in the middle, nearly still."""
        super().reset(seed=seed)
        self.state, self.time = 0.01 * self.np_random.standard_normal((1, 4)) + [0, np.pi, 0, 0], 0
        self.behind = Behind.drawn(self.np_random, self.test) if self.moving else None
        return self._seen(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Push the cart."""
        force = np.asarray(action, np.float64).reshape(1)
        self.state, self.time = move(self.state, force), self.time + 1
        return self._seen(), float(rewards(self.state, force)[0]), False, self.time >= STEPS, {}

    def render(self) -> NDArray[np.uint8]:
        """Return what it looks like, (48, 48, 3)."""
        return draw(self.state, None if self.behind is None else self.behind.draw(self.time)[None])[0]

    def _seen(self) -> NDArray[np.float64]:
        x, angle, *speeds = self.state[0]
        return np.array([x, np.cos(angle), np.sin(angle), *speeds])
