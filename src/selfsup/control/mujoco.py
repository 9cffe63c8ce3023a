"""MuJoCo: cheap images from several cameras, and the joints as states.

Rendered without shadows, reflections, sky, haze and multisampling, which on a processor cost 7 to 50 times as much as
the rest; at twice the size and averaged, so that thin limbs stay visible.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.base.notes import say
from selfsup.errors import UserError, unknown

DEFAULT = "main"  # the camera that the environment itself looks through
PLACE = "NAME=AZIMUTH:ELEVATION[:DISTANCE] in degrees and metres, such as side=90:-20"
NUMBER = r"-?\d+(?:\.\d+)?"


def prepare() -> None:
    """Let MuJoCo, where it is installed, draw without a display, and say its warnings instead of leaving a log file."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")  # it is read on import
    with contextlib.suppress(ImportError):
        import mujoco

        mujoco.set_mju_user_warning(_warn)


def _warn(text: str | bytes) -> None:
    line = (text.decode(errors="replace") if isinstance(text, bytes) else text).strip()
    if "deprecated" not in line:  # which is for the authors of the model
        say(f"MuJoCo: {line}")


class Cameras:
    """Cameras of a MuJoCo environment: the model's own, by name, or such as turn around what the default one looks at.

    Args:
        env: The unwrapped environment.
        asked: Names of the model's cameras, or `PLACE`; the environment's default camera for none.
        size: Pixels a side.

    Raises:
        UserError: For a camera that is not there, and where nothing can be rendered.
    """

    def __init__(self, env: Any, asked: tuple[str, ...], size: int) -> None:
        import mujoco

        self.env = env
        env.model.vis.quality.offsamples = 0
        self.cameras = dict(self._camera(mujoco, text) for text in asked or (DEFAULT,))
        try:
            self.renderer = mujoco.Renderer(env.model, 2 * size, 2 * size)
        except Exception as error:  # of the system's OpenGL, of many types
            raise UserError(
                f"MuJoCo cannot render here ({type(error).__name__}): set MUJOCO_GL to egl, osmesa or glfw, whichever "
                "this machine has"
            ) from error
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
            self.renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the cameras."""
        return tuple(self.cameras)

    def render(self) -> dict[str, NDArray[np.uint8]]:
        """Return what each camera sees now, (size, size, 3) uint8."""
        found = {}
        for name, camera in self.cameras.items():
            self.renderer.update_scene(self.env.data, camera)
            found[name] = np.asarray(Image.fromarray(self.renderer.render()).reduce(2))
        return found

    def close(self) -> None:
        """Free what OpenGL holds."""
        self.renderer.close()

    def _camera(self, mujoco: Any, text: str) -> tuple[str, Any]:
        name, sign, place = text.partition("=")
        own = [self.env.model.camera(number).name for number in range(self.env.model.ncam)]
        if not sign and name in own:
            return name, name
        if not sign and name != DEFAULT:
            raise unknown("camera", name, [DEFAULT, *own, "NAME=AZIMUTH:ELEVATION"])
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self.env.model, camera)
        for key, value in (getattr(self.env.mujoco_renderer, "default_cam_config", None) or {}).items():
            setattr(camera, key, value)
        if camera.trackbodyid >= 0:
            camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        if sign:
            match = re.fullmatch(f"({NUMBER}):({NUMBER})(?::({NUMBER}))?", place)
            if not (match and re.fullmatch(r"[A-Za-z0-9][\w-]*", name)):
                raise UserError(f"a camera is {PLACE}, not {text!r}")
            camera.azimuth, camera.elevation = float(match[1]), float(match[2])
            camera.distance = float(match[3] or camera.distance)
        return name, camera


WIDTHS = {0: (7, 6), 1: (4, 3), 2: (1, 1), 3: (1, 1)}  # of free, ball, slide and hinge: numbers of position, velocity
HINGE = 3


def joint_names(model: Any) -> tuple[str, ...]:
    """Return the names of `joint_values`: positions in metres and radians, velocities in these a second.

    A hinge that may turn around and around is told by the cosine and the sine of its angle.
    """
    positions: list[str] = []
    velocities: list[str] = []
    for joint, kind in enumerate(model.jnt_type.tolist()):
        name = model.joint(joint).name or f"joint{joint}"
        turning = [f"position_{name}_cos", f"position_{name}_sin"]
        position, velocity = WIDTHS[kind]
        positions += turning if _turns(model, joint) else _numbered(f"position_{name}", position)
        velocities += _numbered(f"velocity_{name}", velocity)
    return (*positions, *velocities)


def joint_values(model: Any, data: Any) -> NDArray[np.float32]:
    """Return the positions and velocities of all joints (S,)."""
    positions: list[float] = []
    for joint, (kind, first) in enumerate(zip(model.jnt_type.tolist(), model.jnt_qposadr.tolist(), strict=True)):
        values = data.qpos[first : first + WIDTHS[kind][0]].tolist()
        positions += [math.cos(values[0]), math.sin(values[0])] if _turns(model, joint) else values
    return np.array([*positions, *data.qvel], np.float32)


def _turns(model: Any, joint: int) -> bool:
    return bool(model.jnt_type[joint] == HINGE and not model.jnt_limited[joint])


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}_{place}" for place in range(count)]
