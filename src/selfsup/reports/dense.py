"""What an encoder says of the places of images, as images: patch features in colours, masks true and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfsup.evaluation.mask_probes import Shown
from selfsup.reports.sheets import save_sheet

COLUMNS = {"image": "image", "features": "patch features", "mask": "mask", "predicted": "predicted"}


def save_masks(shown: Sequence[Shown], path: Path) -> None:
    """Write a row for each image: the image, its patch features in colours, its mask, and the predicted one.

    Raises `RunFailed` where the file cannot be written.
    """
    cells = [(getattr(one, name), caption) for one in shown for name, caption in COLUMNS.items()]
    save_sheet(cells, path, len(COLUMNS))
