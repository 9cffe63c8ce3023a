"""The standard views of texts (`selfsup.views.StandardViews`)."""

from __future__ import annotations

from selfsup.spec import TextSpec
from selfsup.views.text.views import TextViews


def plain(spec: TextSpec) -> TextViews:
    """Return the document in windows."""
    return TextViews(spec)


def labelled(spec: TextSpec, pad: int, flip: float) -> TextViews:
    """Return a window of each document, which is neither shifted nor flipped."""
    return TextViews(spec, "one", labels=True)


def several(spec: TextSpec) -> tuple[TextViews, str]:
    """Return windows at random places."""
    return TextViews(spec, "one"), "windows at random places of the document"


def single(spec: TextSpec, scale: float) -> TextViews:
    """Return a window at a random place, which is not cropped."""
    return TextViews(spec, "one")
