"""The standard views of recordings (`selfsup.views.StandardViews`)."""

from __future__ import annotations

from selfsup.spec import WaveSpec
from selfsup.views.audio.views import CANVAS, AudioViews, Window


def plain(spec: WaveSpec) -> AudioViews:
    """Return the window in the middle of the recording."""
    return AudioViews(spec, {"x": Window(at="even")})


def windows(spec: WaveSpec) -> AudioViews:
    """Return the window at the beginning."""
    return AudioViews(spec, {"x": Window(at="start")})


def labelled(spec: WaveSpec, pad: int, flip: float) -> AudioViews:
    """Return windows from anywhere in the recording, and their labels."""
    return AudioViews(spec, {"x": Window()}, labels=True)


def several(spec: WaveSpec) -> tuple[AudioViews, str]:
    """Return random windows, a little louder or softer."""
    return AudioViews(spec, {"x": Window(gain=6.0)}), "random windows, up to 6 dB louder or softer"


def single(spec: WaveSpec, scale: float) -> AudioViews:
    """Return one window from anywhere, changed as those of `preset` are."""
    return AudioViews(spec, {"x": _changed(spec, scale, 1)})


def preset(spec: WaveSpec, name: str, scale: float, noise: bool) -> AudioViews:
    """Return two windows from anywhere, changed as BYOL-A does (Niizumi et al., 2021), whatever the method's name is.

    Of samples, which are not cropped, both are played up to a tenth slower or faster, and louder or softer.
    """
    return AudioViews(spec, {"x": _changed(spec, scale, 2)}, noise=noise)


def _changed(spec: WaveSpec, scale: float, count: int) -> Window:
    cropped, played = Window(count, mix=0.4, crop=(scale**0.5, CANVAS)), Window(count, speed=0.1, gain=6.0)
    return cropped if spec.form == "logmel" else played
