"""`mocap2`: recorded human motions, seen by two synchronous cameras that stand 70° apart.

The motions are those that pybullet brings (15, 0.8 to 4.5 s). Of any 15 episodes in a row from the first on, each shows
another motion, from an angle of its own; the cameras stand still, so neither follows the body.
"""

from __future__ import annotations

import json
import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from selfsup.control.bullet import Bullet, data_folder
from selfsup.data.trajectory import Episode

FPS, APART = 20.0, 70.0  # observations a second, degrees between the cameras
FOV, DISTANCE, HEIGHT = 50.0, 3.0, 0.8  # degrees, metres
BALLS = ("chest", "neck", "right_hip", "right_ankle", "right_shoulder", "left_hip", "left_ankle", "left_shoulder")
HINGES = ("right_knee", "right_elbow", "left_knee", "left_elbow")
PLACE = {  # of each joint in a frame of the file: 4 numbers of a ball, 1 of a hinge
    "chest": 8, "neck": 12, "right_hip": 16, "right_knee": 20, "right_ankle": 21, "right_shoulder": 25,
    "right_elbow": 29, "left_hip": 30, "left_knee": 34, "left_ankle": 35, "left_shoulder": 39, "left_elbow": 43,
}  # fmt: skip
ANGLES = ("height", *HINGES, *(f"{joint}_{axis}" for joint in BALLS for axis in "xyz"))
COLOURS = {  # of clothes, so that limbs and trunk can be told apart, but not left from right
    "root": (0.2, 0.3, 0.7), "chest": (0.2, 0.3, 0.7), "neck": (0.9, 0.7, 0.6), "hip": (0.25, 0.25, 0.3),
    "knee": (0.25, 0.25, 0.3), "ankle": (0.6, 0.2, 0.1), "shoulder": (0.2, 0.5, 0.8), "elbow": (0.9, 0.7, 0.6),
    "wrist": (0.9, 0.7, 0.6),
}  # fmt: skip


class Mocap:
    """The episodes of `mocap2`, each a function of (seed, number); `size` pixels a side."""

    cameras: tuple[str, ...] = ("left", "right")
    action: tuple[str, int] = ("none", 0)
    states: tuple[str, ...] = (*ANGLES, *(f"{name}_speed" for name in ANGLES))
    fps = FPS

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self.files = sorted((data_folder() / "data" / "motions").glob("humanoid3d_*.txt"))

    @cached_property
    def world(self) -> Bullet:
        """The world, with the body."""
        world = Bullet()
        self.body = world.load(data_folder() / "humanoid" / "humanoid.urdf", useFixedBase=True, globalScaling=0.25)
        self.joints = {}
        for number in range(world.p.getNumJoints(self.body, physicsClientId=world.client)):
            name = world.p.getJointInfo(self.body, number, physicsClientId=world.client)[1].decode()
            self.joints[name] = number
            colour = COLOURS[name.split("_")[-1]]
            world.p.changeVisualShape(self.body, number, rgbaColor=(*colour, 1), physicsClientId=world.client)
        return world

    def episode(self, seed: int, number: int) -> Episode:
        """Return episode `number`; its label is the motion."""
        turn = number // len(self.files)  # another order each time, so that every fifth episode shows all motions
        file = self.files[(number + turn) % len(self.files)]
        times, poses = _resampled(np.array(json.loads(file.read_text())["Frames"]))
        draw = np.random.default_rng([seed, number])
        yaw, tilt = draw.uniform(0, 2 * math.pi), math.radians(draw.uniform(5, 25))
        middle = (poses[:, 1:4].min(0) + poses[:, 1:4].max(0)) / 2
        at = [middle[0], HEIGHT, middle[2]]
        around = [yaw + side * math.radians(APART) / 2 for side in (-1, 1)]
        eyes = [
            np.add(
                at, DISTANCE * np.array([math.cos(a) * math.cos(tilt), math.sin(tilt), math.sin(a) * math.cos(tilt)])
            )
            for a in around
        ]
        frames = {camera: np.empty((len(poses), self.size, self.size, 3), np.uint8) for camera in self.cameras}
        for row, pose in enumerate(poses):
            self._show(pose)
            for camera, eye in zip(self.cameras, eyes, strict=True):
                frames[camera][row] = self.world.image(eye, at, [0, 1, 0], FOV, self.size)[0]
        angles = _angles(poses)
        state = np.concatenate([angles, np.gradient(angles, times, axis=0)], 1).astype(np.float32)
        return Episode(frames, truncated=True, state=state, label=file.stem.removeprefix("humanoid3d_"))

    def _show(self, pose: NDArray[np.float64]) -> None:
        world = self.world
        p, mine = world.p, {"physicsClientId": world.client}
        p.resetBasePositionAndOrientation(self.body, pose[1:4], _xyzw(pose[4:8]), **mine)
        for name in BALLS:
            place = PLACE[name]
            p.resetJointStateMultiDof(self.body, self.joints[name], _xyzw(pose[place : place + 4]), **mine)
        for name in HINGES:
            p.resetJointState(self.body, self.joints[name], pose[PLACE[name]], **mine)

    def close(self) -> None:
        """End the world."""
        if "world" in self.__dict__:
            self.world.close()


def _xyzw(wxyz: NDArray[np.float64]) -> list[float]:
    return [*wxyz[1:].tolist(), float(wxyz[0])]


def _resampled(frames: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the times (n,) at `FPS` and the poses (n, 44) then, between those of the file."""
    known = np.concatenate([[0], np.cumsum(frames[:-1, 0])])  # the last duration leads nowhere
    times = np.arange(int(known[-1] * FPS) + 1) / FPS
    turned = frames.copy()
    balls = [4, *(PLACE[name] for name in BALLS)]
    for place in balls:  # q and -q are the same rotation: each next to the one before
        part = turned[:, place : place + 4]
        part[1:] *= np.cumprod(np.where((part[1:] * part[:-1]).sum(1) < 0, -1.0, 1.0))[:, None]
    poses = np.stack([np.interp(times, known, column) for column in turned.T], 1)
    for place in balls:
        poses[:, place : place + 4] /= np.linalg.norm(poses[:, place : place + 4], axis=1, keepdims=True)
    return times, poses


def _angles(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `ANGLES` (n, .) in metres and radians: balls as rotation vectors, continuous in time."""
    parts = [poses[:, 2:3], *(poses[:, PLACE[name]][:, None] for name in HINGES)]
    for name in BALLS:
        w, xyz = poses[:, PLACE[name]], poses[:, PLACE[name] + 1 : PLACE[name] + 4]
        norm = np.linalg.norm(xyz, axis=1)
        parts.append(xyz * (2 * np.arctan2(norm, w) / np.maximum(norm, 1e-9))[:, None])
    return np.concatenate(parts, 1)
