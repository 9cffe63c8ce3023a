"""Views: from samples to a batch, for each kind of data."""

from __future__ import annotations

import importlib
from typing import Protocol

from selfsup.spec import Spec
from selfsup.task import Views

VIEWS = {"image": "selfsup.views.image.standard", "text": "selfsup.views.text.standard"}  # modules of `StandardViews`


class StandardViews(Protocol):
    """What a kind of data brings beside the views of its tasks."""

    def plain(self, spec: Spec) -> Views:
        """Return the views of evaluation, embedding and export: the key `x`, nothing drawn at random."""

    def labelled(self, spec: Spec, pad: int, flip: float) -> Views:
        """Return `x` and `y` for training on labels; `pad` and `flip` shift and flip what can be."""

    def several(self, spec: Spec) -> tuple[Views, str]:
        """Return views of which several are made of a sample (key `x`), and what they are."""


def standard_views(spec: Spec) -> StandardViews:
    """Return the views that the kind of data of a spec brings."""
    return importlib.import_module(VIEWS[spec.kind])


def plain_views(spec: Spec) -> Views:
    """Return the views of evaluation, embedding and export: the key `x`, nothing drawn at random."""
    return standard_views(spec).plain(spec)
