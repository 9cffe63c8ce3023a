"""Views: from samples to a batch, for each kind of data."""

from __future__ import annotations

import importlib
from typing import Protocol

from selfsup.spec import Spec
from selfsup.task import Views

VIEWS = {  # modules of `StandardViews`
    "image": "selfsup.views.image.standard",
    "text": "selfsup.views.text.standard",
    "video": "selfsup.views.video.standard",
    "audio": "selfsup.views.audio.standard",
    "trajectory": "selfsup.views.trajectory.standard",
}


class StandardViews(Protocol):
    """The views that each kind of data brings besides those of its tasks."""

    def plain(self, spec: Spec) -> Views:
        """Return the views of evaluation, embedding and export: the key `x`, nothing drawn at random."""

    def labelled(self, spec: Spec, pad: int, flip: float) -> Views:
        """Return `x` and `y` for training on labels; images are shifted by up to `pad`, and flipped with `flip`."""

    def several(self, spec: Spec) -> tuple[Views, str]:
        """Return random views, several of which can be made of a sample (key `x`), and their description."""

    def single(self, spec: Spec, scale: float) -> Views:
        """Return one random view `x`: see `single_view`."""

    def preset(self, spec: Spec, name: str, scale: float, noise: bool) -> Views:
        """Return the two views `x` of a published method: see `preset_views`. Of images and recordings alone."""


def standard_views(spec: Spec) -> StandardViews:
    """Return the views that the kind of data of a spec brings."""
    return importlib.import_module(VIEWS[spec.kind])


def plain_views(spec: Spec) -> Views:
    """Return the views of evaluation, embedding and export: the key `x`, nothing drawn at random."""
    return standard_views(spec).plain(spec)


def single_view(spec: Spec, scale: float) -> Views:
    """Return one random view `x` of each sample, changed as much as those that two-view methods compare.

    `scale`: the smallest area of a crop, as a fraction of the frame or of the spectrogram; texts and samples of sound
    are not cropped: of a text it is a window from anywhere, of sound it may be slower or faster, louder or softer.
    """
    return standard_views(spec).single(spec, scale)


def preset_views(spec: Spec, name: str, scale: float, noise: bool = False) -> Views:
    """Return the two views `x` of each sample with which a published method learns.

    `name`: of a preset of images (`selfsup.views.image.preset`); recordings have one for all methods. `scale`: the
    smallest area of a crop, as a fraction of the image or of the spectrogram. `noise`: with a key for each sample.
    """
    return standard_views(spec).preset(spec, name, scale, noise)


def window_views(spec: Spec) -> Views | None:
    """Return the views of which each sample is one window of a longer one, from its beginning; None without time.

    A window that is too short is padded behind its end.
    """
    windows = getattr(standard_views(spec), "windows", None)
    return windows and windows(spec)
