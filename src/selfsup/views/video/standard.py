"""The standard views of videos (`selfsup.views.StandardViews`)."""

from __future__ import annotations

from selfsup.spec import ClipSpec
from selfsup.views.image.crop import Crop, centre
from selfsup.views.image.standard import distorted
from selfsup.views.video.views import ClipViews, Cut


def plain(spec: ClipSpec) -> ClipViews:
    """Return the clip in the middle of the video, and the centre of its frames."""
    return ClipViews(spec, {"x": (centre(spec.size), Cut(spec.frames, spec.step, at="even"))})


def windows(spec: ClipSpec) -> ClipViews:
    """Return the clip at the beginning, and the centre of its frames."""
    return ClipViews(spec, {"x": (centre(spec.size), Cut(spec.frames, spec.step, at="start"))})


def labelled(spec: ClipSpec, pad: int, flip: float) -> ClipViews:
    """Return clips from anywhere in the video, shifted and flipped, and their labels."""
    crop = Crop(spec.size, pad=pad, flip=flip)
    return ClipViews(spec, {"x": (crop, Cut(spec.frames, spec.step))}, labels=True)


def several(spec: ClipSpec) -> tuple[ClipViews, str]:
    """Return random crops of random clips."""
    crop = Crop(spec.size, scale=(0.5, 1.0))
    return ClipViews(
        spec, {"x": (crop, Cut(spec.frames, spec.step))}
    ), "random clips, cropped to half to all of a frame"


def single(spec: ClipSpec, scale: float) -> ClipViews:
    """Return a random clip, all of whose frames have one crop with SimCLR's distortion."""
    return ClipViews(spec, {"x": (distorted(spec.size, scale), Cut(spec.frames, spec.step))})
