"""Families of views: what is the same image, for photographs, for images without an up, and for scanned pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from selfsup.spec.image import DOCUMENT, OVERHEAD
from selfsup.views.image.crop import Crop


def in_family(name: str, groups: Mapping[str, Crop]) -> dict[str, Crop]:
    """Return groups of views as a family (`selfsup.spec.image.FAMILIES`) has them; natural ones are what they were.

    - overhead, for satellites, microscopes, parts on a belt: no up. Mirrored both ways and rotated by quarter turns.
    - document, for scanned pages: never mirrored; rotated by up to 3°, sheared by up to 2°, shifted by up to a fiftieth
      of the side; hue and light and dark stay (no solarizing), at most one view in ten is gray.

    Patches of a grid stay what they are.
    """
    return {key: crop if crop.grid > 1 else _changed(name, crop) for key, crop in groups.items()}


def _changed(name: str, crop: Crop) -> Crop:
    if name == OVERHEAD:
        return replace(crop, flip=0.5, vertical_flip=0.5, quarter_turns=True)
    if name == DOCUMENT:
        jitter = crop.jitter and (*crop.jitter[:3], 0.0)
        moved = replace(crop, flip=0.0, degrees=3.0, shear=2.0, translate=0.02)
        return replace(moved, jitter=jitter, gray=min(crop.gray, 0.1), solarize=0.0)
    return crop
