"""`tray`: objects in a tray, the same tray when one of them has been taken, and that object alone.

The objects are pybullet's `random_urdfs`, 1,000 kinds. An episode has two observations, before and after: the camera
`scene` shows the tray, the camera `object` what has been taken: nothing before, after it the object alone in another
pose. When an object is taken the others shift by about 8 mm, so that the difference of the two images is not the object
alone.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.control.bullet import Bullet, data_folder
from selfsup.data.trajectory import Episode

KINDS, SEEN, UNSEEN = 1000, 24, 6
IN_TRAY, SHIFT = 5, 0.008  # objects; standard deviation of what the others move, in metres
HALF, APART = 0.12, 0.09  # metres: half a side of where objects lie, and how far they are from each other at least
AWAY = (0.0, -0.2, 9.0)  # behind the camera: where objects are that are not shown
FLOOR, VISIBLE = 0.01, 0.004  # metres; the least part of the image that the object to be taken fills
TRIES = 20  # to place an object where it can be seen: a few kinds are too small for that
EYE, FOV = (0.0, -0.22, 0.52), 42.0


class Lying(NamedTuple):
    """An object, where it lies, and its rotation."""

    kind: int
    place: NDArray[np.float64]
    turn: NDArray[np.float64]


class Tray:
    """The episodes of `tray`, each a function of (seed, number); `size` pixels a side.

    Objects are of `SEEN` kinds, which the seed draws; with `unseen` the one that is taken is of `UNSEEN` further kinds.
    State: the box around what can be seen of it before, as fractions of the image.
    """

    cameras: tuple[str, ...] = ("scene", "object")
    action: tuple[str, int] = ("none", 0)
    states: tuple[str, ...] = ("taken_left", "taken_top", "taken_right", "taken_bottom")
    fps = 1.0

    def __init__(self, size: int = 64, unseen: bool = False) -> None:
        self.size, self.unseen = size, unseen
        self.bodies: dict[int, int] = {}

    @cached_property
    def world(self) -> Bullet:
        """The world, with the empty tray."""
        world = Bullet()
        world.load(data_folder() / "tray" / "traybox.urdf", useFixedBase=True, globalScaling=0.6)
        return world

    @cached_property
    def empty(self) -> NDArray[np.uint8]:
        """The tray without objects."""
        return self._photo([])[0]

    def episode(self, seed: int, number: int) -> Episode:
        """Return episode `number`; its label is the kind of object that is taken."""
        kinds = np.random.default_rng(seed).permutation(KINDS)[: SEEN + UNSEEN]
        seen, new = kinds[:SEEN], kinds[SEEN:]
        draw = np.random.default_rng([seed, self.unseen, number])
        visible, tries = np.zeros((1, 1), bool), 0
        while visible.mean() < VISIBLE:  # behind others, or seen from its narrow side
            if tries % TRIES == 0:
                taken = int(draw.choice(new if self.unseen else seen))
                others = draw.choice(seen[seen != taken], IN_TRAY - 1, replace=False).tolist()
            tries += 1
            places = _places(draw)
            shown = [Lying(kind, place, _rotation(draw)) for kind, place in zip([taken, *others], places, strict=True)]
            before, bodies = self._photo(shown)
            visible = bodies == self.bodies[taken]
        after = self._photo([one._replace(place=one.place + draw.normal(0, SHIFT, 2)) for one in shown[1:]])[0]
        alone = self._photo([Lying(taken, draw.uniform(-0.02, 0.02, 2), _rotation(draw))])[0]
        frames = {"scene": np.stack([before, after]), "object": np.stack([self.empty, alone])}
        return Episode(frames, state=np.tile(_box(visible), (2, 1)), label=f"{taken:03d}")

    def _photo(self, shown: list[Lying]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return an image of some objects in the tray, and which body each of its pixels belongs to."""
        p, mine = self.world.p, {"physicsClientId": self.world.client}
        for body in self.bodies.values():
            p.resetBasePositionAndOrientation(body, AWAY, (0, 0, 0, 1), **mine)
        for kind, place, turn in shown:
            if kind not in self.bodies:
                self.bodies[kind] = self.world.load(data_folder() / "random_urdfs" / f"{kind:03d}" / f"{kind:03d}.urdf")
            body = self.bodies[kind]
            p.resetBasePositionAndOrientation(body, (0, 0, 0), turn, **mine)
            lowest = p.getAABB(body, **mine)[0][2]
            p.resetBasePositionAndOrientation(body, (*place, FLOOR - lowest), turn, **mine)
        return self.world.image(EYE, (0, 0, 0), (0, 1, 0), FOV, self.size)

    def close(self) -> None:
        """End the world."""
        if "world" in self.__dict__:
            self.world.close()


def _rotation(draw: np.random.Generator) -> NDArray[np.float64]:
    """Return a uniformly random rotation, as a quaternion."""
    turn = draw.normal(size=4)
    return turn / np.linalg.norm(turn)


def _places(draw: np.random.Generator) -> NDArray[np.float64]:
    """Return where the objects lie (n, 2), apart from each other."""
    first, second = np.triu_indices(IN_TRAY, 1)
    while True:
        tried = draw.uniform(-HALF, HALF, (256, IN_TRAY, 2))
        apart = np.linalg.norm(tried[:, first] - tried[:, second], axis=2).min(1) >= APART
        if apart.any():
            return tried[apart.argmax()]


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return left, top, right and bottom of what is set, as fractions of the sides."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    return box / np.float32(len(mask))
