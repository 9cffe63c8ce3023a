"""What an encoder says of the places of images, as images: patch features in colours, masks true and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from selfsup.evaluation.false_colours import pca_colours
from selfsup.evaluation.mask_probes import SHOWN, Shown
from selfsup.evaluation.result import Evaluation
from selfsup.nn.image.dense import has_patch_features, patch_features
from selfsup.reports.page import Section, captioned, embedded, join, tag
from selfsup.reports.sheets import save_sheet
from selfsup.source import Source
from selfsup.views.image.standard import whole

SHEET = "masks.png"  # in a run folder
COLUMNS = {"image": "image", "features": "patch features", "mask": "mask", "predicted": "predicted"}


def save_masks(shown: Sequence[Shown], path: Path) -> None:
    """Write a row for each image: the image, its patch features in colours, its mask, and the predicted one.

    Raises `RunFailed` where the file cannot be written.
    """
    cells = [(getattr(one, name), caption) for one in shown for name, caption in COLUMNS.items()]
    save_sheet(cells, path, len(COLUMNS))


@torch.no_grad()
def patch_sections(
    encoder: Any,
    source: Source,
    spec: Any,
    evaluation: Evaluation | None,
    folder: Path,
    device: torch.device,
    seed: int,
) -> list[Section]:
    """Return a section with images beside their patch features in colours, and the sheet of an evaluation of masks.

    None for an encoder without patch features of images.
    """
    if spec.kind != "image" or not has_patch_features(encoder):
        return []
    some = np.sort(np.random.default_rng(seed).permutation(len(source))[:SHOWN])
    views = whole(spec).for_device(device)
    batch = views.fetch(source, some, seed, 0).batch
    x = views.finish({key: value.to(device) for key, value in batch.items()})["x"]
    colours = pca_colours(patch_features(encoder.to(device).eval(), x).float().cpu().numpy())
    rows = []
    for number, image, features in zip(batch["index"].tolist(), x, colours, strict=True):
        large = Image.fromarray(features).resize((spec.size, spec.size), Image.Resampling.NEAREST)
        name = source.path(number)
        cells = [
            captioned(spec.draw(image), name, "image"),
            captioned(large, f"{name}: patch features", "patch features"),
        ]
        rows.append(tag("div", *cells, class_="row"))
    high, wide = colours.shape[1:3]
    words = (
        f"What the encoder says of each of {high} × {wide} places, as colours: the first three principal components "
        "over all of these images, so that alike colours are alike features."
    )
    body = [tag("p", words), *rows]
    if (sheet := _sheet(evaluation, folder)) is not None:
        words = "Test images with the masks that the linear reader predicts from the most labelled images of a draw."
        body += [tag("p", words), embedded(sheet, "masks, true and predicted", max(sheet.size))]
    return [Section("patches", "Patch features", join(body))]


def _sheet(evaluation: Evaluation | None, folder: Path) -> Image.Image | None:
    """Return the sheet that an evaluation of masks left in the run folder."""
    if evaluation is None or evaluation.about.get("target") != "masks":
        return None
    try:
        with Image.open(folder / SHEET, formats=["PNG"]) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
