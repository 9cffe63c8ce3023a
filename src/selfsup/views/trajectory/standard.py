"""The standard views of episodes (`selfsup.views.StandardViews`)."""

from __future__ import annotations

from selfsup.spec import TrajectorySpec
from selfsup.views.image.crop import Crop
from selfsup.views.image.standard import distorted
from selfsup.views.trajectory.observations import ObservationViews


def plain(spec: TrajectorySpec) -> ObservationViews:
    """Return the observation in the middle of the episode, or of a span of one: the whole frame."""
    return ObservationViews(spec)


def windows(spec: TrajectorySpec) -> ObservationViews:
    """Return the first observation."""
    return ObservationViews(spec, at="start")


def labelled(spec: TrajectorySpec, pad: int, flip: float) -> ObservationViews:
    """Return observations from anywhere in the episode, shifted and flipped, and their labels."""
    return ObservationViews(spec, at="random", crop=Crop(spec.size, pad=pad, flip=flip), labels=True)


def several(spec: TrajectorySpec) -> tuple[ObservationViews, str]:
    """Return random crops of the observation in the middle of the episode."""
    views = ObservationViews(spec, crop=Crop(spec.size, scale=(0.5, 1.0)))
    return views, "random crops of half to all of the observation in the middle"


def single(spec: TrajectorySpec, scale: float) -> ObservationViews:
    """Return an observation from anywhere in the episode, with SimCLR's distortion."""
    return ObservationViews(spec, at="random", crop=distorted(spec.size, scale))
