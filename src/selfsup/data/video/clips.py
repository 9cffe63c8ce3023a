"""What every source of videos needs to make a spec of clips, and to fit one."""

from __future__ import annotations

from selfsup.errors import UserError
from selfsup.spec import ClipSpec, Spec

FRAMES, STEP, SIZE = 8, 2, 64  # of a clip by default
MARGIN = 8 / 7  # stored side / size of a view, as evaluation's centre crop has it


def clip_spec(size: int | None, channels: int | None, frames: int | None, step: int | None, fps: float) -> ClipSpec:
    """Return the spec with the options that were given; raise `UserError` for values out of their range."""
    if channels not in (None, 1, 3):
        raise UserError(f"videos are read with 1 or 3 channels, not {channels}: give another --channels")
    for flag, value, most in (("size", size, 4096), ("frames", frames, 1024), ("step", step, 1024)):
        if value is not None and not 1 <= value <= most:
            raise UserError(f"--{flag} is from 1 to {most:,}, not {value}")
    return ClipSpec.of(size or SIZE, channels or 3, frames or FRAMES, step or STEP, fps)


def clips_only(name: str, spec: Spec) -> ClipSpec:
    """Return the spec; raise `UserError` for one of another kind than the videos of this name."""
    if not isinstance(spec, ClipSpec):
        raise UserError(f"{name} holds no {spec.samples}, which this encoder takes")
    return spec


def stored_side(spec: ClipSpec) -> int:
    """Return the shorter side of the frames from which views of a spec are cut."""
    return round(MARGIN * spec.size)
